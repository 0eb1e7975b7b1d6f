"""Bad input: clear text and exit 1, never an empty figure. Oracle: the words that a reader needs."""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis.cli import main
from kerneltrack.analysis.figures import registered


@pytest.fixture
def unplaced():
    """Axes are placed here, as users have them."""


@pytest.fixture(scope="module")
def bad(synthetic, truth, tmp_path_factory):
    """Archives by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    rows = list(synthetic.snapshots(truth))

    def write(name, rows, **settings):
        fingerprint = settings.pop("fingerprint", "sha256:" + "a" * 64)
        return synthetic.write(
            folder / f"{name}.h5", rows, synthetic.record(truth, fingerprint=fingerprint, **settings)
        )

    def without_numbers(row):
        nan = {k: np.full_like(v, np.nan) for k, v in row.probes["train"].items() if v.dtype.kind == "f"}
        return dataclasses.replace(row, probes={"train": nan})

    return {
        "run": write("run", rows),
        "one": write("one", rows[:1]),
        "nan": write("nan", [without_numbers(row) for row in rows]),
        "holes": write("holes", [without_numbers(row) if i in (2, 5) else row for i, row in enumerate(rows)]),
        "constant": write("constant", [dataclasses.replace(row, learning_rates=(0.1,)) for row in rows]),
        "reduction": write("reduction", rows, output="trace"),
        "probe": write("probe", rows, fingerprint="sha256:" + "b" * 64),
        "poor": write(
            "poor", list(synthetic.snapshots(truth, drop={"kernel_angular_velocity", "stability_ratio", "layer_share"}))
        ),
    }


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["lr-decay", "constant"], ["never change", "0.1"]),
        (["lr-decay", "one"], ["at least two snapshots"]),
        (["compare", "run", "reduction"], ["'output'", "run: full", "reduction: trace", "one output="]),
        (["compare", "run", "probe"], ["probe fingerprints", "run: sha256:aaa", "probe: sha256:bbb"]),
        (["compare", "run", "probe", "--against", "seed"], ["probe fingerprints"]),
        (["compare", "run"], ["two archives or more"]),
        (["compare", "run", "poor", "--quantity", "lambda_1"], ["'lambda_1'", "no such quantity", "eigenvalue_1"]),
        (["compare", "poor", "poor", "--quantity", "kernel_angular_velocity"], ["does not hold", "Measure it"]),
        (["compare", "nan", "run", "--against", "seed"], ["a sweep", "a quantity that every run holds"]),
        (["summary", "nan"], ["no snapshot of this probe holds a measurement"]),
        (["report", "nan", "-o", "OUT.html"], ["no snapshot of this probe holds a measurement"]),
        (["plot", "nan", "--figure", "rank", "-o", "OUT.png"], ["no snapshot of this probe holds a measurement"]),
        (["plot", "poor", "--figure", "layer-shares", "-o", "OUT.png"], ["'layer_share'", "observables"]),
        (["plot", "poor", "--figure", "stages", "-o", "OUT.png"], ["'kernel_angular_velocity'", "observables"]),
        (["plot", "one", "--figure", "rotation", "-o", "OUT.png"], ["two measured snapshots"]),
        (["plot", "one", "--figure", "kernel-distances", "-o", "OUT.png"], ["two measured snapshots"]),
        (["plot", "constant", "--figure", "lr-trend", "-o", "OUT.png"], ["never change continuously"]),
    ],
    ids=lambda value: "-".join(value[:4]) if isinstance(value, list) else None,
)
def test_the_words_and_the_exit_code(bad, words, needed, tmp_path, capsys):
    filled = [str(bad.get(word, word)).replace("OUT", str(tmp_path / "out")) for word in words]
    assert main(filled) == 1
    said = capsys.readouterr().err
    assert [text for text in needed if text not in said] == [], said
    assert list(tmp_path.iterdir()) == []  # nothing half written


@pytest.mark.parametrize("kind", ["one", "holes"])
def test_a_report_is_made_of_what_there_is(bad, kind, tmp_path, capsys, request):
    """One snapshot, or NaN in between: a page, and what it lacks is said on it. With NaN it is drawn."""
    if kind == "one":
        request.getfixturevalue("undrawn")
    assert main(["report", str(bad[kind]), "-o", str(tmp_path / "out.html")]) == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    capsys.readouterr()
    shown = sum(f'id="figure-{name}"' in page for name in registered())
    assert 8 < shown < len(registered())
    assert "Not shown" in page
    expected = {"one": "at least two snapshots", "holes": "step 3"}
    assert expected[kind] in page
