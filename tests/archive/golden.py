"""Write the archive that a released version of the format leaves behind, and what it says, as JSON beside it.

    python tests/archive/golden.py tests/archive/data/format-1.0.h5

A golden file is written once, when its version of the format is released, and is never written again: the reader must
go on reading it. It has two probes, inputs, a kernel, observables, a failed row, a resume, and rows that it superseded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kerneltrack.archive import ArchiveWriter, open_archive
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot

N = 4


def probes() -> list[ProbeRecord]:
    inputs = np.arange(2.0 * N).reshape(N, 2).astype("f4")
    train = ProbeRecord(
        name="train",
        fingerprint="sha256:" + "ab" * 32,
        count=N,
        targets=np.eye(2)[[0, 1, 1, 0]],
        target_encoding="one-hot",
        input_shapes={"": ("float32", (N, 2))},
        inputs={"": inputs},
        identity={"dataset": "made up", "indices": [3, 1, 4, 1]},
        settings={"output": "trace", "energy_k": [1, 2, N]},
    )
    return [train, ProbeRecord(name="val", fingerprint="sha256:" + "cd" * 32, count=N)]


def snapshot(step: int, **changes: Any) -> Snapshot:
    draw = np.random.default_rng(step)
    train = {
        "eigenvalues": -np.sort(-draw.uniform(0, 9, N)),
        "eigenvectors": draw.normal(size=(N, 1, 2)).astype("f4"),
        "target_coefficients": draw.normal(size=(N, 2)),
        "trace": np.float64(draw.uniform()),
        "target_energy": np.sort(draw.uniform(size=3)),
    }
    if step == 0:
        train["kernel"] = draw.normal(size=(N, N, 1, 1)).astype("f4")
    val = {"eigenvalues": -np.sort(-draw.uniform(0, 9, N))} if step % 2 == 0 else None
    given: dict[str, Any] = {
        "epoch": step // 2,
        "batch": step,
        "samples_seen": 8 * step,
        "wall_time": 1.7e9 + step,
        "train_seconds": step / 4,
        "snapshot_seconds": 0.125,
        "learning_rates": (0.1, 0.01) if step < 2 else (0.05, 0.01, 0.2),
        "training_loss": 1 / (1 + step),
        "trigger": "every 1 — λ",
        "update_applied": step != 1,
        "probes": {"train": train} | ({"val": val} if val else {}),
    }
    return Snapshot(step=step, **(given | changes))


def write(path: Path) -> None:
    provenance = Provenance(
        run={"run_id": "golden", "seed": 3, "optimizer": {"name": "SGD", "lr": 0.1}},
        metadata={"width": 256, "note": "naïve"},
        parameters=[{"name": "0.weight", "shape": [2, 2], "trainable": True, "layer": "0"}],
        private={"host": "nowhere"},
    )
    with ArchiveWriter(path, probes=probes(), provenance=provenance) as writer:
        for step in range(3):
            writer.append(snapshot(step))
        writer.append(Snapshot(step=3, status="failed", message="λ_1 is not finite"))
    with ArchiveWriter.resume(path, probes=probes(), provenance=provenance, resumed_from_step=2) as writer:
        writer.append(snapshot(3, window=1))


def said(path: Path) -> dict[str, Any]:
    """Everything that an archive says, as JSON: floats as hexadecimal text, bit for bit."""
    with open_archive(path, all_segments=True) as archive:
        return {
            "attrs": archive.attrs,
            "provenance": vars(archive.provenance) | {"parameters": list(archive.provenance.parameters)},
            "segments": [vars(segment) for segment in archive.segments],
            "probes": {name: _plain(_said(record)) for name, record in archive.probes.items()},
            "snapshots": [_plain(_without_later(vars(each))) for each in archive],
            "canonical": open_archive(path).steps.tolist(),
        }


def _said(record: ProbeRecord) -> dict[str, Any]:
    """What a later minor version added is left out where the file does not say it."""
    return {name: value for name, value in vars(record).items() if name != "in_training" or value is not None}


def _without_later(row: dict[str, Any]) -> dict[str, Any]:
    """A row as format 1.0 said it: what came into the format later is not there, and says nothing."""
    assert not row["lag"]
    return {name: value for name, value in row.items() if name != "lag"}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "bytes": value.tobytes().hex()}
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target)
    target.with_suffix(".json").write_text(
        json.dumps(said(target), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )
