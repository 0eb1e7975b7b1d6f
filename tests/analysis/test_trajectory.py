"""Trajectories: what is read, and what is refused with which words. Oracle: the arrays that were written."""

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.archive import ArchiveWriter
from kerneltrack.errors import AnalysisError, ArchiveError
from kerneltrack.snapshot import ProbeRecord, Snapshot


def test_a_run_reads_what_was_written(archives, truth, synthetic):
    run = load(archives[0]).only
    assert (run.name, run.count, run.outputs, run.dimension) == ("run", synthetic.N, 1, synthetic.N)
    assert run.steps.tolist() == list(truth.eigenvalues)
    np.testing.assert_array_equal(run.values("eigenvalues"), np.stack(list(truth.eigenvalues.values())))
    np.testing.assert_array_equal(run.learning_rates[:, 0], list(truth.rates.values()))
    assert run.measured.all()
    assert run.row(synthetic.HALVED) == list(truth.rates).index(synthetic.HALVED)
    assert run.row(12345) is None


def test_the_number_of_samples_is_the_stored_one(tmp_path):
    """Eigenvalues alone say nothing of N: 20 samples with 2 outputs have 40. Oracle: the record that was given."""
    record = ProbeRecord(name="p", fingerprint="sha256:0", count=20)
    with ArchiveWriter(tmp_path / "run.h5", probes=[record]) as writer:
        writer.append(Snapshot(step=0, probes={"p": {"eigenvalues": np.linspace(2, 1, 40)}}))
    assert load(tmp_path / "run.h5").only.count == 20


def test_large_arrays_are_read_row_by_row(archives, truth, synthetic):
    run = load(archives[0]).only
    np.testing.assert_array_equal(run.at("eigenvectors", 3)[:, 0], truth.basis[:, : synthetic.TOP_K].astype("f4"))
    assert run.has("eigenvectors")
    assert "eigenvectors" not in run._read


def test_what_is_missing_is_named_with_its_remedy(archives):
    run = load(archives[0]).only
    assert not run.has("condition_number")
    with pytest.raises(AnalysisError, match=r"needs 'condition_number'.*observables"):
        run.require("condition_number", why="conditioning")
    with pytest.raises(AnalysisError, match=r"needs 'nonsense'.*observables"):
        run.values("nonsense")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("targets", "Probe"),
        ("stability_ratio", "loss="),
        ("eigenvectors", "top_k"),
        ("inputs", "keep_inputs"),
        ("kernel", "keep_kernel"),
    ],
)
def test_every_remedy_says_what_to_pass(name, remedy):
    from kerneltrack.analysis.withheld import missing

    assert remedy in str(missing(name, "this"))


def test_several_runs_are_a_sequence_and_one_is_only(archives):
    both = load(archives)
    assert [run.name for run in both] == ["run", "control"]
    assert both[1:].only.name == "control"
    with pytest.raises(AnalysisError, match=r"one run.*got 2: run, control"):
        both.only  # noqa: B018


def test_mixed_reductions_are_refused_by_name(archives, synthetic, truth, tmp_path):
    path = synthetic.write(tmp_path / "traced.h5", synthetic.snapshots(truth), synthetic.record(truth, output="trace"))
    with pytest.raises(AnalysisError, match=r"'output'.*run: full; traced: trace"):
        load([archives[0], path]).comparable()


def test_the_same_identity_with_other_bytes_is_noted_and_compared(synthetic, truth, tmp_path):
    identity = {"dataset": "digits", "indices": [1, 2]}
    paths = [
        synthetic.write(
            tmp_path / f"{letter}.h5",
            synthetic.snapshots(truth),
            synthetic.record(truth, fingerprint="sha256:" + letter * 64, identity=identity),
        )
        for letter in "ab"
    ]
    (note,) = load(paths).comparable()
    assert "its bytes differ" in note


def test_bad_arguments(archives, synthetic, truth, tmp_path):
    with pytest.raises(AnalysisError, match="at least one archive"):
        load([])
    with pytest.raises(AnalysisError, match="expected one of train"):
        load(archives[0], probe="val")
    with pytest.raises(ArchiveError, match="no such archive"):
        load(tmp_path / "absent.h5")
    with pytest.raises(AnalysisError, match="no snapshot yet"):
        load(synthetic.write(tmp_path / "empty.h5", [], synthetic.record(truth)))


def test_failed_and_nan_snapshots_are_not_measured(synthetic, truth, tmp_path):
    import dataclasses

    rows = list(synthetic.snapshots(truth))
    rows[2] = dataclasses.replace(rows[2], status="failed", message="NaN in the kernel", probes={})
    nan = {name: np.full_like(value, np.nan) for name, value in rows[4].probes["train"].items()}
    rows[4] = dataclasses.replace(rows[4], probes={"train": nan})
    run = load(synthetic.write(tmp_path / "gaps.h5", rows, synthetic.record(truth))).only
    assert np.flatnonzero(~run.measured).tolist() == [2, 4]
    assert run.row(rows[4].step) is None
