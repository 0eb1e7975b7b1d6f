"""Probes and snapshots for the archive's tests."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot
from tests.archive.same_snapshot import same

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


def measurements(seed: int, *, kernel: bool = False) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    measured = {
        "eigenvalues": -np.sort(-draw.normal(size=SAMPLES)),
        "eigenvectors": draw.normal(size=(SAMPLES, 1, VECTORS)).astype(np.float32),
        "target_coefficients": draw.normal(size=(SAMPLES, 2)),
    }
    return measured | ({"kernel": draw.normal(size=(SAMPLES, SAMPLES, 1, 1)).astype("f4")} if kernel else {})


def snapshot(step: int, **changes: object) -> Snapshot:
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
        probes={"train": measurements(step, kernel=step == 0)},
    )
    return dataclasses.replace(given, **changes)


@pytest.fixture
def make():
    """What the tests of the archive make: probes, snapshots, and how to compare them."""
    return SimpleNamespace(
        probe=PROBE, snapshot=snapshot, measurements=measurements, same=same, run=Provenance(run={"run_id": "r"})
    )
