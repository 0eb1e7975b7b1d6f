"""What is appended is what is read. Oracle: the snapshots that were given, kept in memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter, open_archive
from kerneltrack.errors import ArchiveExistsError
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot, same_measurement

SAMPLES, VECTORS = 12, 3
PROBE = ProbeRecord(
    name="train",
    fingerprint="sha256:00",
    count=SAMPLES,
    targets=np.ones((SAMPLES, 2)),
    target_encoding="real",
    input_shapes={"": ("float32", (SAMPLES, 5))},
    inputs={"": np.zeros((SAMPLES, 5), np.float32)},
    settings={"output": "trace", "energy_k": [1, 2, 4]},
)


def snapshot(step: int, **changes: object) -> Snapshot:
    draw = np.random.default_rng(step)
    measured = {
        "eigenvalues": draw.normal(size=SAMPLES),
        "eigenvectors": draw.normal(size=(SAMPLES, 1, VECTORS)).astype(np.float32),
        "target_coefficients": draw.normal(size=(SAMPLES, 2)),
    }
    if step == 0:
        measured["kernel"] = draw.normal(size=(SAMPLES, SAMPLES, 1, 1)).astype(np.float32)
    given = Snapshot(
        step=step,
        epoch=step // 4,
        batch=step,
        samples_seen=8 * step,
        wall_time=1.5 * step,
        train_seconds=step / 3,
        snapshot_seconds=0.25,
        learning_rates=(0.1, 0.01),
        training_loss=1 / (1 + step),
        trigger="every 1 — ≤ λ",
        update_applied=True,
        probes={"train": measured},
    )
    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def same(a: Snapshot, b: Snapshot) -> bool:
    bare = [dataclasses.replace(s, probes={}) for s in (a, b)]
    return (
        bare[0] == bare[1]
        and a.probes.keys() == b.probes.keys()
        and all(same_measurement(a.probes[name], b.probes[name]) for name in a.probes)
    )


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
def test_reads_what_was_appended_before_and_after_closing(tmp_path, count):
    given = [snapshot(step) for step in range(count)]
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[PROBE], provenance=Provenance(metadata={"width": 8})) as writer:
        for each in given:
            writer.append(each)
        with open_archive(path) as archive:
            assert all(map(same, archive, given))
            assert len(archive) == count
    assert not path.with_name("run.h5.parts").exists()
    with open_archive(path) as archive:
        assert archive.steps.tolist() == list(range(count))
        assert all(same(archive[i], given[i]) for i in range(-count, count))
        assert archive.provenance.metadata == {"width": 8}
        assert archive.probes["train"].settings == PROBE.settings
        np.testing.assert_array_equal(archive.probes["train"].inputs[""], PROBE.inputs[""])


def test_a_resume_supersedes_what_lies_after_its_checkpoint(tmp_path):
    path = tmp_path / "run.h5"
    run = Provenance(run={"run_id": "r"})
    with ArchiveWriter(path, probes=[PROBE], provenance=run) as writer:
        for step in range(6):
            writer.append(snapshot(step))
    with ArchiveWriter.resume(path, probes=[PROBE], provenance=run, resumed_from_step=3) as writer:
        for step in (3, 4):
            writer.append(snapshot(step, training_loss=7.0))
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4]
        assert archive[3].training_loss == 7.0
    with open_archive(path, all_segments=True) as archive:
        assert archive.steps.tolist() == [0, 1, 2, 3, 4, 5, 3, 4]


def test_refuses_to_overwrite(tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(b"precious")
    with pytest.raises(ArchiveExistsError, match="already"):
        ArchiveWriter(path, probes=[PROBE])
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["run.h5"]
