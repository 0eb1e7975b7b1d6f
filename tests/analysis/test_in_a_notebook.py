"""What a notebook shows and completes. Oracles: the arrays that the archive was made of, and the figures by their registry."""

import numpy as np
import pytest

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.figures import Scene, choose, registered
from kerneltrack.errors import AnalysisError

KERNEL = np.diag([4.0, 2.0, 1.0])
TARGETS = np.array([1.0, -1.0, 0.5])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two archives of three snapshots; the metadata of one is hostile."""
    found = tmp_path_factory.mktemp("notebook")
    for name, seed in (("a", 0), ("b", "<script>alert(1)</script>\x1b[31m")):
        last, snapshots = None, []
        for step in (0, 10, 30):
            last = kt.snapshot_from_arrays(
                KERNEL * (1 + step), TARGETS / (1 + step), TARGETS, step=step, loss="half_mse", learning_rates=0.01,
                optimizer="SGD", after=last,
            )  # fmt: skip
            snapshots.append(last)
        first = snapshots[0]
        with kt.ArchiveWriter(
            found / f"{name}.h5", probes=[first.record], provenance=first.provenance(seed=seed)
        ) as writer:
            for snapshot in snapshots:
                writer.append(snapshot)
    return found


def test_rows_are_chosen_by_step(folder):
    with kt.open_archive(folder / "a.h5") as archive:
        data = archive.to_xarray(by="step")
        assert float(data.sel(step=10).trace) == 7 * 11
        assert int(data.sel(step=25, method="nearest").step) == 30
        assert archive.to_xarray().isel(snapshot=1).step == 10
        with pytest.raises(KeyError):
            data.sel(step=11)


def test_numbers_as_a_table(folder):
    with kt.open_archive(folder / "a.h5") as archive:
        table = archive.to_dataframe()
        assert table.index.tolist() == [0, 10, 30]
        assert table.trace.tolist() == [7.0, 77.0, 217.0]
        assert "eigenvalues" not in table


def test_probes_as_a_tree(folder):
    with kt.open_archive(folder / "a.h5") as archive:
        tree = archive.to_datatree()
        assert list(tree.children) == ["probe"]
        np.testing.assert_array_equal(tree["probe"].trace, [7.0, 77.0, 217.0])


def test_reprs_are_short(folder):
    runs = load([folder / "a.h5", folder / "b.h5"])
    assert repr(runs) == "<Trajectory of 2 runs: a, b>"
    assert repr(runs[0]) == "<Run 'a' on probe 'probe': 3 snapshots, steps 0 to 30>"
    many = type(runs)(runs.runs * 100)
    assert repr(many) == "<Trajectory of 200 runs: a, b, a, b, a, …>"
    assert many._repr_html_().count("<tr>") == 1 + 20 + 1  # heads, runs, and how many more


def test_tables_tell_and_escape(folder):
    with kt.open_archive(folder / "b.h5") as archive:
        shown = archive._repr_html_()
        archive.close()
        assert "snapshots" in archive._repr_html_()
    run = load(folder / "b.h5").only
    several = load([folder / "a.h5", folder / "b.h5"])._repr_html_()
    for text in (shown, several):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
        assert "\x1b" not in text
    assert "0 to 30" in shown
    assert ">seed</th>" in several
    assert "effective_rank at the end" in run._repr_html_()


def test_figures_are_called_and_completed(folder):
    run = load(folder / "a.h5").only
    assert [name.replace("_", "-") for name in dir(run.plot)] == sorted(registered())
    expected = choose("eigenvalues")(Scene(run))
    for drawn in (run.plot("eigenvalues"), run.plot.eigenvalues()):
        (mine, *_), (theirs, *_) = drawn.axes, expected.axes
        for line, other in zip(mine.get_lines(), theirs.get_lines(), strict=True):
            np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
        assert drawn._repr_png_().startswith(b"\x89PNG")
    assert repr(run.plot).startswith("<figures of a: ")


def test_what_is_no_figure_is_refused(folder):
    run = load(folder / "a.h5").only
    with pytest.raises(AnalysisError, match=r"figure 'eigenvalue'.*eigenvalues"):
        run.plot("eigenvalue")
    with pytest.raises(AttributeError, match="no figure 'nothing'"):
        run.plot.nothing()
    with pytest.raises(AnalysisError, match="style: expected one of paper"):
        run.plot("eigenvalues", style="page")
    with pytest.raises(AnalysisError, match="class_diagonal"):
        run.plot("class-levels")
