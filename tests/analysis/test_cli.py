"""The command line: exit codes, plain text in pipes, clear words for bad use. Oracle: the archives' known contents."""

import csv
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import typer
import xarray

from kerneltrack.analysis.cli import app, main
from kerneltrack.analysis.text import Table, duration, number, plain, plain_lines, signed

COMMANDS = sorted(typer.main.get_command(app).commands)


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_commands_are_those_of_the_design():
    design = "demo show summary check plot report lr-decay forecast compare export merge publish track plan"
    assert sorted(design.split()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"kerneltrack {command}" in out.partition("Example:")[2].replace("\n", " ")


@pytest.mark.parametrize("command", [*COMMANDS, ""])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(capsys, monkeypatch, command, columns):
    """Oracle: the length of every line; and that a wide terminal gets longer ones than a narrow one."""
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run(capsys, *filter(None, [command, "--help"]))
    assert code == 0
    longest = max(map(len, out.splitlines()))
    assert min(columns, 100) * 0.5 < longest <= columns


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("show", "Missing argument 'ARCHIVE'. See `kerneltrack show --help`"),
        ("show a.h5 --nope", "No such option"),
        ("plot --x cubic a.h5", "'cubic' is not one of"),
        ("compare a.h5 b.h5 --at x", "--at"),
        ("track -o x.h5", "Missing option"),
        ("--nope", "See `kerneltrack --help`"),
    ],
)
def test_bad_words_are_answered_in_one_line(capsys, words, said):
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("kerneltrack: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["show", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_lightning_nor_matplotlib(words):
    """In a fresh interpreter, which is the only one that knows."""
    code = (
        f"import sys; from kerneltrack.analysis.cli import main; assert main({words!r}) == 0; "
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'matplotlib', 'xarray', 'scipy'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


def test_reading_and_analysing_loads_no_torch(archives):
    code = (
        f"import sys; from kerneltrack.analysis.cli import main; assert main(['lr-decay', {str(archives[0])!r}]) == 0; "
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'matplotlib', 'scipy.stats'} & set(sys.modules); sys.exit(str(heavy) "
        "if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


def test_version(capsys):
    import kerneltrack

    assert run(capsys, "--version") == (0, f"kerneltrack {kerneltrack.__version__}\n", "")


def test_show_is_plain_in_a_pipe_and_complete_as_json(capsys, archives, truth, synthetic):
    code, out, _ = run(capsys, "show", archives[0])
    assert code == 0
    assert "\x1b" not in out
    assert "probe train, values at step 700" in out
    code, out, _ = run(capsys, "show", archives[0], "--json")
    facts = json.loads(out)
    assert (code, facts["snapshots"], facts["last_step"]) == (0, len(truth.rates), synthetic.LAST)
    probe = facts["probes"]["train"]
    assert (probe["samples"], probe["measured"], probe["failed"]) == (synthetic.N, len(truth.rates), 0)
    assert probe["last"]["eigenvalue_1"] == truth.eigenvalues[synthetic.LAST][0]


def test_show_of_an_archive_with_an_empty_last_row(capsys, synthetic, truth, tmp_path):
    import dataclasses

    rows = list(synthetic.snapshots(truth))[:3]
    rows[2] = dataclasses.replace(rows[2], status="failed", message="oom", probes={})
    path = synthetic.write(tmp_path / "gap.h5", rows, synthetic.record(truth))
    code, out, _ = run(capsys, "show", path)
    assert code == 0
    assert "2 (1 without a measurement)" in out
    assert "values at step 1" in out


def test_check_says_yes_and_no_by_its_exit_code(capsys, archives, tmp_path):
    assert run(capsys, "check", *archives) == (0, "2 archives in order\n", "")
    broken = tmp_path / "broken.h5"
    broken.write_bytes(archives[0].read_bytes()[:3000])
    code, out, _ = run(capsys, "check", broken)
    assert code == 1
    assert "broken.h5" in out


def test_unreadable_input_is_exit_2(capsys, tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    for words in (["show", tmp_path / "absent.h5"], ["show", tmp_path / "text.h5"], ["check", tmp_path / "absent.h5"]):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "")
        assert err.startswith("kerneltrack: ")


def test_bad_use_is_exit_2(capsys, archives, tmp_path):
    for words in (
        ["nonsense"],
        ["show"],
        ["plot", archives[0]],
        ["plot", archives[0], "--figure", "nonsense", "-o", tmp_path / "x.png"],
        ["plot", archives[0], "--figure", "rank", "-o", tmp_path / "x.bmp"],
        ["export", archives[0], "--to", "xls", "-o", tmp_path / "x"],
    ):
        code, _, err = run(capsys, *words)
        assert code == 2, words
        assert err


def test_impossible_analysis_is_exit_1_with_its_reason(capsys, archives, synthetic, truth, tmp_path):
    code, _, err = run(capsys, "lr-decay", archives[1])
    assert code == 1
    assert "never change" in err
    path = synthetic.write(
        tmp_path / "few.h5", synthetic.snapshots(truth, drop={"stability_bound"}), synthetic.record(truth)
    )
    code, _, err = run(capsys, "plot", path, "--figure", "stability", "-o", tmp_path / "x.png")
    assert code == 1
    assert "needs 'stability_bound'" in err
    assert "NTKTracker(loss=" in err
    other = synthetic.write(tmp_path / "other.h5", synthetic.snapshots(truth), synthetic.record(truth, output="trace"))
    code, _, err = run(capsys, "compare", archives[0], other)
    assert code == 1
    assert "run: full; other: trace" in err


def test_a_file_that_cannot_be_written_is_exit_2(capsys, archives, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "export", archives[0], "-o", tmp_path / "file" / "x.csv")
    assert code == 2
    assert "x.csv" in err


def test_plot_lists_and_writes(capsys, archives, tmp_path):
    code, out, _ = run(capsys, "plot", "--list")
    assert code == 0
    assert "stability " in out
    target = tmp_path / "stability.svg"
    code, out, _ = run(
        capsys,
        "plot",
        archives[0],
        "--control",
        archives[1],
        "--figure",
        "stability",
        "--style",
        "slide",
        "--x",
        "log",
        "-o",
        target,
    )
    assert (code, out) == (0, f"wrote {target}\n")
    assert "λ₁, control" in target.read_text(encoding="utf-8")


def test_report_writes(capsys, archives, tmp_path, undrawn):
    target = tmp_path / "sub" / "run.html"
    code, out, _ = run(capsys, "report", archives[0], "-o", target)
    assert (code, out) == (0, f"wrote {target}\n")
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_lr_decay_speaks_and_counts(capsys, archives):
    code, out, _ = run(capsys, "lr-decay", archives[0], "--control", archives[1])
    assert code == 0
    assert out.startswith("At step 300 the learning rate fell from 0.25 to 0.125. This was followed by ")
    assert "\x1b" not in out
    code, out, _ = run(capsys, "lr-decay", archives[0], "--json")
    assert json.loads(out)["changes"][0]["control"] == "no control was given"


def test_compare_takes_common_steps_and_refuses_none(capsys, archives, truth, control_truth, synthetic, tmp_path):
    code, out, _ = run(capsys, "compare", *archives, "--quantity", "eigenvalue_2", "--json")
    found = json.loads(out)
    assert (code, found["positions"]) == (0, [float(step) for step in control_truth.rates])
    expected = [[t.eigenvalues[s][1] / synthetic.N for t in (truth, control_truth)] for s in control_truth.rates]
    assert found["values"]["eigenvalue_2"] == expected
    rows = [s for s in synthetic.snapshots(truth) if s.step < synthetic.HALVED]
    early = synthetic.write(tmp_path / "early.h5", rows, synthetic.record(truth))
    code, _, err = run(capsys, "compare", early, archives[1])
    assert code == 1
    assert "no common step" in err


def test_compare_by_loss_takes_the_first_snapshot_at_or_below(capsys, archives, truth, control_truth, synthetic):
    code, out, _ = run(capsys, "compare", *archives, "--by", "loss", "--quantity", "probe_loss", "--json")
    found = json.loads(out)
    assert code == 0
    for level, row in zip(found["positions"], found["values"]["probe_loss"], strict=True):
        for value, one in zip(row, (truth, control_truth), strict=True):
            losses = [np.sum(c**2) / (2 * synthetic.N) for c in one.coefficients.values()]
            assert value == next(loss for loss in losses if loss <= level)


@pytest.fixture(scope="module")
def family(synthetic, tmp_path_factory):
    """Two widths with six and with two seeds; a seed scales its eigenvalues by a known factor."""
    import dataclasses

    folder, truth, paths = tmp_path_factory.mktemp("family"), synthetic.simulate(), []
    for width, seeds in ((64, 6), (128, 2)):
        for seed in range(seeds):
            scaled = {s: v * (1 + seed / 10) for s, v in truth.eigenvalues.items()}
            rows = synthetic.snapshots(dataclasses.replace(truth, eigenvalues=scaled))
            metadata = {"width": width, "seed": seed}
            paths.append(
                synthetic.write(folder / f"{width}-{seed}.h5", rows, synthetic.record(truth), metadata=metadata)
            )
    return paths


def test_groups_are_averaged_and_have_a_spread_from_six_runs_on(capsys, family, truth, synthetic):
    code, out, _ = run(capsys, "compare", *family, "--group", "width", "--quantity", "eigenvalue_1")
    assert code == 0
    rows = {line.split("  ")[0].strip(): line for line in out.splitlines()}
    largest = truth.eigenvalues[100][0] / synthetic.N
    factors = 1 + np.arange(6) / 10
    assert f"{number(largest * factors.mean())} ± {number(largest * np.std(factors, ddof=1), 2)}" in rows["100"]
    assert rows["100"].endswith(f"  {number(largest * 1.05)}")
    assert "width 64 (n = 6)" in out
    assert "left out below 6 runs" in out
    code, _, err = run(capsys, "compare", *family, "--group", "depth")
    assert code == 1
    assert "metadata" in err


def test_runs_are_drawn_as_lines_or_as_a_band(family, archives, truth, synthetic):
    from kerneltrack.analysis import load
    from kerneltrack.analysis.comparison.comparison import compare
    from kerneltrack.analysis.figures.gallery.runs import runs_figure
    from kerneltrack.analysis.figures.style import PAPER

    comparison = compare(load(family), quantities=["eigenvalue_1"])
    ax = runs_figure(comparison, PAPER, group="width").axes[0]
    band, *single = ax.lines
    expected = [v[0] / synthetic.N * 1.25 for v in truth.eigenvalues.values()]
    np.testing.assert_allclose(band.get_ydata(), expected, rtol=1e-14)
    assert (band.get_label(), len(single), len(ax.collections)) == ("width 64", 2, 1)
    assert len(runs_figure(compare(load(archives)), PAPER).axes[0].lines) == 2


def test_several_archives_make_the_figure_of_runs_only(capsys, archives, tmp_path):
    code, out, _ = run(capsys, "plot", *archives, "--figure", "runs", "-o", tmp_path / "runs.svg")
    assert (code, out) == (0, f"wrote {tmp_path / 'runs.svg'}\n")
    code, _, err = run(capsys, "plot", *archives, "--figure", "rank", "-o", tmp_path / "rank.svg")
    assert code == 2
    assert "of one run" in err
    code, _, _ = run(capsys, "compare", *archives, "-o", tmp_path / "compare.png")
    assert code == 0
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_csv_reads_back_to_the_stored_numbers(capsys, archives, truth, tmp_path):
    target = tmp_path / "run.csv"
    code, _, _ = run(capsys, "export", archives[0], "--to", "csv", "-o", target)
    assert code == 0
    with target.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(truth.rates)
    assert [float(row["eigenvalue_3"]) for row in rows] == [v[2] for v in truth.eigenvalues.values()]
    assert [float(row["learning_rate"]) for row in rows] == list(truth.rates.values())
    assert "residual_energy_20" in rows[0]


def test_netcdf_opens_elsewhere_and_keeps_secrets(capsys, archives, truth, tmp_path):
    target = tmp_path / "run.nc"
    code, _, _ = run(capsys, "export", archives[0], "--to", "netcdf", "-o", target)
    assert code == 0
    with xarray.open_dataset(target, engine="h5netcdf") as dataset:
        np.testing.assert_array_equal(dataset["eigenvalues"], np.stack(list(truth.eigenvalues.values())))
        assert json.loads(dataset.attrs["settings"])["loss"] == "half_mse"
    assert b"secret" not in target.read_bytes()


def test_large_arrays_are_written_row_by_row_and_read_the_same(capsys, archives, truth, tmp_path, monkeypatch):
    """Oracle: the file that xarray itself writes of the same data, and the kernels of the first and the last row."""
    whole, rows = tmp_path / "whole.nc", tmp_path / "rows.nc"
    assert run(capsys, "export", archives[0], "--to", "netcdf", "-o", whole)[0] == 0
    monkeypatch.setattr("kerneltrack.analysis.commands.export._AT_ONCE_BYTES", 0)
    assert run(capsys, "export", archives[0], "--to", "netcdf", "-o", rows)[0] == 0
    with xarray.open_dataset(whole, engine="h5netcdf") as a, xarray.open_dataset(rows, engine="h5netcdf") as b:
        xarray.testing.assert_identical(a, b)
        kernel = (truth.basis * truth.eigenvalues[0]) @ truth.basis.T
        np.testing.assert_array_equal(b["kernel"][0, :, :, 0, 0], kernel.astype("f4"))
    with h5py.File(rows) as file:
        assert file["kernel"].id.get_num_chunks() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.nc", "whole.nc"]


def test_merge_and_publish(capsys, archives, synthetic, truth, tmp_path):
    path = synthetic.write(tmp_path / "run.h5", synthetic.snapshots(truth), synthetic.record(truth))
    code, out, _ = run(capsys, "merge", path)
    assert code == 0
    assert "joined into" in out
    words = ["--licence", "CC0-1.0", "--author", "A", "--contact", "a@example.org"]
    code, _, _ = run(capsys, "publish", path, "-o", tmp_path / "public.h5", *words)
    assert code == 0
    assert b"secret-host" not in (tmp_path / "public.h5").read_bytes()
    code, _, err = run(capsys, "publish", path, "-o", tmp_path / "public.h5", *words)
    assert code == 2
    assert "nothing was touched" in err


def test_what_an_archive_says_cannot_drive_the_terminal(capsys, synthetic, truth, tmp_path):
    attack = "[red]x[/red]\x1b[2J\x07‮"
    path = synthetic.write(
        tmp_path / "hostile.h5",
        synthetic.snapshots(truth),
        synthetic.record(truth, loss=attack),
        metadata={attack: attack},
    )
    code, out, _ = run(capsys, "show", path)
    assert code == 0
    assert "[red]x[/red]\\x1b[2J\\x07\\u202e" in out
    assert not {"\x1b", "\x07", "‮"} & set(out)
    _, out, _ = run(capsys, "show", path, "--json")
    assert not {"\x1b", "\x07", "‮"} & set(out)


def test_a_terminal_gets_a_table_and_no_color_is_honoured(archives, monkeypatch):
    import io

    from rich.console import Console

    from kerneltrack.analysis.text import print_table

    table = Table("Title", ["name", "value"], [["[b]a[/b]", "1"]], ("a note",), frozenset({0}))
    stream = io.StringIO()
    print_table(Console(file=stream, force_terminal=True, width=60), table)
    assert "[b]a[/b]" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    print_table(Console(file=stream, force_terminal=True, width=60), table)
    assert "\x1b[3" not in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (1234.5, "1,230"),
        (0.999, "0.999"),
        (-0.5, "−0.500"),
        (1e-9, "1e-09"),
        (9.999, "10.0"),
        (3.2e8, "3.2e+08"),
    ],
)
def test_numbers_are_for_reading(value, text):
    assert number(value) == text


def test_small_texts():
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.500", "−0.500", "0")
    assert [duration(s) for s in (0.3, 42.0, 245, 7800)] == ["0.3 s", "42 s", "4 min 05 s", "2 h 10 min"]
    assert plain("a\nb") == "a\\nb"
    assert plain_lines(Table("", ["x", "y"], [["long", "1"]])) == ["x     y", "long  1"]
