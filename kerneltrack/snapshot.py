"""Snapshot, ProbeRecord, Provenance: what is measured at one moment, on what, and by whom. Frozen values, no torch.

A :class:`Snapshot` is one moment θ_t, *before* update t, together with the learning rates that update t will use. What
was measured on each probe at that moment is a mapping from the names of the archive's schema (or of an observable in
the catalogue) to arrays; see ``docs/format.md`` for every name, dimension and unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

Array = NDArray[Any]
Json = Any  # None, bool, int, float, str, and lists and string-keyed mappings of these
Status = Literal["ok", "failed"]
TargetEncoding = Literal["real", "one-hot", "none"]
Batches = Literal["same_batches", "other_batches", "unverified"]
InTraining = Literal["yes", "no", "unknown"]
Reduction = Literal["full", "diagonal", "trace", "sum", "callable"]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One measurement: the state that ``step`` updates have made, before the next one.

    Attributes:
        step: optimizer updates applied so far (t).
        epoch: epochs completed or running, counted from 0, as the trainer counts.
        batch: training batches consumed so far; -1 where unknown.
        samples_seen: training samples consumed so far; -1 where unknown.
        wall_time: seconds since 1970-01-01T00:00:00Z.
        train_seconds: seconds of training so far, measurements not counted.
        snapshot_seconds: what this measurement cost, in seconds.
        learning_rates: one per parameter group, as the update that leaves this state uses them.
        training_loss: the loss of the batch of that update; NaN where unknown.
        trigger: the schedule that asked for it, printed as it is written.
        window: 0, or which state of a group of consecutive ones it is: 1 for the second of a pair, 2 for the third of a triple.
        lag: updates since the group's first state; 0 where that is this one, or unknown.
        update_applied: whether that update happened; None where it is unknown (the last state of a run).
        status: "failed" where the measurement raised; then ``probes`` may be empty.
        message: the reason of a failure, or why some observables are NaN; one line.
        probes: for each probe that was measured now, named arrays (float64 unless the schema says otherwise).
    """

    step: int
    epoch: int = 0
    batch: int = -1
    samples_seen: int = -1
    wall_time: float = math.nan
    train_seconds: float = math.nan
    snapshot_seconds: float = math.nan
    learning_rates: tuple[float, ...] = ()
    training_loss: float = math.nan
    trigger: str = ""
    window: int = 0
    lag: int = 0
    update_applied: bool | None = None
    status: Status = "ok"
    message: str = ""
    probes: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProbeRecord:
    """A probe without torch: what an archive keeps of it.

    Attributes:
        name: the probe's name, the name of its group in the archive.
        fingerprint: "sha256:…" of the bytes (dtype, shape, data) of inputs and targets.
        count: N, the number of samples.
        targets: (N, O) float64 as they are aligned against (one-hot for classes), or None.
        target_encoding: "real", "one-hot" or "none".
        input_shapes: key of each input leaf ("" for a single tensor) to (dtype, shape).
        inputs: the input arrays under the same keys, or None where they are left out (they may be private).
        identity: where the samples come from (dataset, split, indices, transform), as the user gave it.
        settings: what is measured on it and how: output reduction and factor to the mean trace, parameter subset,
            mode, dtype, loss and its normalisation, stability scope.
        in_training: whether its points are trained on; None where the archive does not say (format 1.0).
    """

    name: str
    fingerprint: str
    count: int
    targets: Array | None = None
    target_encoding: TargetEncoding = "none"
    input_shapes: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    inputs: Mapping[str, Array] | None = None
    identity: Mapping[str, Json] | None = None
    settings: Mapping[str, Json] = field(default_factory=dict)
    in_training: InTraining | None = None


@dataclass(frozen=True, kw_only=True)
class ControlOf:
    """That an archive is of a run which goes on from a state of another run.

    Attributes:
        archive_id: of the other run's archive.
        fork_step: the step of that state.
        placebo: whether it has that run's own learning rates, and other batches; else the rate before that state is kept.
        batches: whether it was trained on the batches of that run: "same_batches", "other_batches" where one of them was another
            or nothing tells, "unverified" until it has ended.
    """

    archive_id: str
    fork_step: int
    placebo: bool = False
    batches: Batches = "unverified"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an archive comes from, in four sections of plain JSON values.

    Attributes:
        run: run_id, versions, model class, optimizer and its settings, loss and normalisation, seed, precision, device,
            git revision, creation time: what a stranger needs to believe the numbers.
        metadata: the user's own keys (width, seed, …): what comparisons group by.
        parameters: one entry per parameter: name, shape, trainable, layer.
        private: host, user, paths, command; ``kerneltrack publish`` leaves this section out.
    """

    run: Mapping[str, Json] = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)
    parameters: Sequence[Mapping[str, Json]] = ()
    private: Mapping[str, Json] = field(default_factory=dict)
