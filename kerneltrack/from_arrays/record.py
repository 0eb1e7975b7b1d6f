"""The record of a probe that is known by its arrays: what an archive keeps of it, and that it stays the same in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerneltrack import observables
from kerneltrack.conventions import Gauge, fingerprint
from kerneltrack.errors import ObservableError, ProbeError
from kerneltrack.from_arrays.given import ArrayReduction, Given, leaves
from kerneltrack.snapshot import Json, ProbeRecord


def record_of(
    given: Given,
    targets: Any,
    inputs: Any,
    *,
    name: str,
    identity: Mapping[str, Json] | None,
    reduction: ArrayReduction,
    gauge: Gauge,
    loss: str | None,
    top_k: int,
    stability_scope: str,
) -> ProbeRecord:
    """The record; the arguments are those of :func:`kerneltrack.snapshot_from_arrays`.

    Raises:
        ProbeError: neither inputs nor targets, inputs of another length, or a loss without targets.
    """
    count, width = given.outputs.shape
    found = {f"inputs/{key}": leaf for key, leaf in leaves(inputs).items()}
    if lengths := {key: leaf.shape[:1] for key, leaf in found.items() if leaf.shape[:1] != (count,)}:
        raise ProbeError("inputs", expected=f"a first axis of {count}, as the outputs", got=lengths)
    shapes = {key.removeprefix("inputs/"): (leaf.dtype.name, leaf.shape) for key, leaf in found.items()}
    if targets is not None:
        found["targets"] = np.ascontiguousarray(targets)
    if not found:
        raise ProbeError(
            "nothing tells which points these are", remedy="Give inputs= or targets: they make the fingerprint."
        )
    if loss is not None and given.targets is None:
        raise ProbeError(f"loss={loss!r} without targets", remedy="Give the targets, or loss=None.")
    modes = count * (1 if reduction in ("trace", "sum") else width - (gauge == "softmax" and reduction == "full"))
    every_output = reduction in ("full", "diagonal", "trace") and gauge == "raw"
    return ProbeRecord(
        name=name,
        fingerprint=fingerprint((key, a.dtype.name, a.shape, a.tobytes()) for key, a in found.items()),
        count=count,
        targets=given.targets,
        target_encoding=given.encoding,
        input_shapes=shapes,
        identity=identity,
        in_training=observables.in_training(identity),
        settings={
            "output": reduction,
            "gauge": gauge,
            "mean_trace_factor": 1.0 / width if every_output else None,
            "parameters": "all that the kernel was computed of",
            "mode": "as the kernel was computed",
            "dtype": given.dtypes[0],
            "method": "from arrays",
            "eigenpairs": "all",
            "loss": loss,
            "loss_normalisation": None if loss is None else "mean over the probe's samples",
            "residual": "f - y" if loss is None else "N dL/df",
            "stability_scope": stability_scope,
            "energy_k": list(observables.energy_k(modes)),
            "layers": [],
            "top_k": min(top_k, modes),
        },
    )


def require_same_record(record: ProbeRecord, before: ProbeRecord) -> None:
    """Refuse a state of other points than those of the snapshot before it, or measured otherwise.

    Raises:
        ObservableError: names what differs.
    """
    was, now = ({"fingerprint": r.fingerprint, "probe": r.name, **r.settings} for r in (before, record))
    for key, value in was.items():
        if now[key] != value:
            raise ObservableError(
                f"{key} is another one than in the snapshot before",
                expected=value,
                got=now[key],
                remedy="Give the states of one run on the same points with the same arguments, or leave after= away.",
            )
