"""The page of many runs. Oracles: the HDF5 files read with h5py, NumPy's mean and deviation, and what the archives were made of."""

import dataclasses
import itertools
import json
import re

import h5py
import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.comparison import mean_course, overlay
from kerneltrack.analysis.comparison.overlay import Key
from kerneltrack.analysis.report.many import render_many
from kerneltrack.analysis.report.page import write_report
from kerneltrack.analysis.text import BAND_RUNS
from kerneltrack.analysis.trajectory import controls_of
from kerneltrack.errors import AnalysisError
from kerneltrack.snapshot import ControlOf
from tests.analysis.conftest import provenance
from tests.analysis.test_outputs import few
from tests.archive.at_once import write

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"
WIDTHS = (64, 128)
KEPT = {"stability_ratio", "effective_rank", "kernel_distance_from_initial", "class_within", "trace"}


def embedded(page):
    """The block of numbers of a page."""
    return json.loads(re.search(r'<script type="application/json" id="runs">(.*?)</script>', page, re.DOTALL).group(1))


def factor(number):
    """What every number of a run is multiplied by."""
    return 1 + number / 8


def six_and_two(place, synthetic, truth, control_truth):
    """Six runs of one width and two of another, each with numbers of its own; the first has a control, of the rate kept."""
    rows = list(few(synthetic.snapshots(truth), KEPT))
    for number in range(BAND_RUNS + 2):
        width = WIDTHS[number >= BAND_RUNS]
        mine = [
            dataclasses.replace(
                row, probes={"train": {k: np.asarray(v) * factor(number) for k, v in row.probes["train"].items()}}
            )
            for row in rows
            # the last seed was measured at fewer steps, and means of its width are at those of all
            if number != BAND_RUNS - 1 or row.step in (0, 100, 700)
        ]
        told = provenance(width=width, seed=number, note=f"{ATTACK}{number}")
        write(place / f"run-{number}.h5", mine, synthetic.record(truth), provenance=told)
    with h5py.File(place / "run-0.h5") as file:
        identity = bytes(file.attrs["archive_id"]).decode()
    kept = ControlOf(archive_id=identity, fork_step=synthetic.HALVED, batches="same_batches")
    after = few(synthetic.snapshots(control_truth), KEPT)
    write(place / "kept.h5", after, synthetic.record(control_truth), provenance=provenance(), control=kept)
    return sorted(place.glob("run-*.h5"))


@pytest.fixture(scope="module")
def folder(synthetic, truth, control_truth, tmp_path_factory):
    place = tmp_path_factory.mktemp("many")
    six_and_two(place, synthetic, truth, control_truth)
    return place


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.glob("run-*.h5"))


@pytest.fixture(scope="module")
def many(paths):
    """The page as text."""
    return render_many(load(paths), group="width")


@pytest.fixture(scope="module")
def found(paths):
    return overlay(load(paths))


def test_the_numbers_of_the_page_are_those_of_the_archives(many, folder):
    """Rounded to six digits, which is half a unit of the sixth."""
    block = embedded(many)
    names = [quantity["name"] for quantity in block["quantities"]]
    assert [run["name"] for run in block["runs"]] == [*(f"run-{i}" for i in range(8)), "kept"]
    for run in block["runs"]:
        with h5py.File(folder / f"{run['name']}.h5") as file:
            probe, steps = file["probes/train"], file["step"][()]
            assert run["steps"] == steps.tolist()
            drawn = dict(zip(names, run["values"], strict=True))
            assert drawn["eigenvalue_1"] == pytest.approx(
                (probe["eigenvalues"][:, 0] / len(probe["targets"])).tolist(), rel=5e-6
            )
            stored = [name for name in names if name in probe and run["name"] != "kept"]
            assert len(stored) >= 4 or run["name"] == "kept"
            for name in stored:
                known = np.isfinite(probe[name][()])
                got = np.array([np.nan if v is None else v for v in drawn[name]])
                assert got[known] == pytest.approx(probe[name][()][known], rel=5e-6)
                assert np.isnan(got[~known]).all()


def test_what_is_drawn_without_a_script_are_the_same_numbers(paths, many):
    """Oracle: the block of numbers; every line of a run stands in it, point by point."""
    from kerneltrack.analysis.figures import PAPER, overlay_figure

    block = embedded(many)
    names = [quantity["name"] for quantity in block["quantities"]]
    found = overlay(load(paths), controls_of(load(paths)))
    with PAPER.drawing("it"):
        figure = overlay_figure(found, PAPER, found.key("width"), ["trace"])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"_mean", "_run-6", "_run-7", "_kept"}
    for run in block["runs"][6:]:
        known = dict(zip(run["steps"], run["values"][names.index("trace")], strict=True))
        line = lines[f"_{run['name']}"]
        assert [known[int(x)] for x in line.get_xdata()] == pytest.approx(list(line.get_ydata()), rel=5e-6)
        assert (line.get_linestyle() == "--") == (run["name"] == "kept")


def test_a_mean_is_of_six_runs_at_the_steps_of_all(found, folder):
    steps, mean, spread = mean_course(found, range(BAND_RUNS), "trace")
    assert steps.tolist() == [0, 100, 700]
    values = []
    for number in range(BAND_RUNS):
        with h5py.File(folder / f"run-{number}.h5") as file:
            rows = np.isin(file["step"][()], steps)
            values.append(file["probes/train/trace"][()][rows])
    assert mean == pytest.approx(np.mean(values, axis=0))
    assert spread == pytest.approx(np.std(values, axis=0, ddof=1))
    assert not mean_course(found, range(BAND_RUNS - 1), "trace")[0].size


def test_controls_are_found_and_are_in_no_group(many, found):
    control = embedded(many)["runs"][-1]
    assert (control["name"], control["control"], control["of"]) == ("kept", True, 0)
    assert sum(run["control"] for run in embedded(many)["runs"]) == 1
    width = found.key("width")
    assert (width.values, width.of) == (("64", "128"), (0,) * 6 + (1,) * 2)  # `found` was laid without its control
    assert "8 runs: width 64, 128" in many


def test_a_control_has_the_width_of_its_run(many):
    width = next(key for key in embedded(many)["keys"] if key["name"] == "width")
    assert width["of"] == [0] * 6 + [1] * 2 + [0]


def test_it_opens_with_the_key_that_runs_share(found, paths):
    assert found.key(None).name == "width"  # seeds differ from run to run
    assert overlay(load(paths[:2]), group="run.run_id").keys[0].name == "run.run_id"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_it_opens_with_the_largest_groups_and_with_seeds_last(found, order):
    """Eight runs: two seeds, four widths of two, and a rate of three values: fewer are larger groups, whatever comes first."""
    keys = [
        Key("run.seed", ("0", "1"), (0, 1) * 4, True),
        Key("width", ("1", "2", "3", "4"), (0, 0, 1, 1, 2, 2, 3, 3), True),
        Key("rate", ("1", "2", "3"), (0, 0, 0, 1, 1, 1, 2, 2), True),
    ]
    told = dataclasses.replace(found, keys=tuple(keys[i] for i in order))
    assert told.key(None).name == "rate"
    assert dataclasses.replace(found, keys=(keys[0],)).key(None).name == "run.seed"


def test_hostile_text_is_shown_and_not_obeyed(many):
    assert many.count("<script") == 2  # the numbers and the page's own
    assert "onerror=alert(2)>" not in many
    assert "\x1b" not in many
    assert "&lt;script&gt;alert(1)" in many


def test_it_needs_nothing_from_anywhere(many):
    assert "default-src 'none'" in many
    assert not re.search(r"@import|https?://(?!www\.w3\.org/)", many)
    identifiers = re.findall(r'\bid="([^"]*)"', many)
    assert len(identifiers) == len(set(identifiers))
    assert {link[1:] for link in re.findall(r'<a[^>]* href="([^"]*)"', many)} <= set(identifiers)


def test_one_page_is_written(paths, tmp_path):
    assert [p.name for p in write_report(paths[:2], tmp_path / "two.html")] == ["two.html"]


def test_runs_of_other_kernels_are_refused(paths, synthetic, truth, tmp_path):
    rows = few(synthetic.snapshots(truth), KEPT)
    other = write(tmp_path / "t.h5", rows, synthetic.record(truth, output="trace"), provenance=provenance())
    with pytest.raises(AnalysisError, match="not comparable"):
        write_report([paths[0], other], tmp_path / "two.html")
    with pytest.raises(AnalysisError, match="grouping by 'depth'"):
        write_report(paths[:2], tmp_path / "two.html", group="depth")
