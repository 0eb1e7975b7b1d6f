"""ArraySnapshot: a snapshot of a kernel that other code has computed, and what the next one of its run compares with."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata as installed
from typing import Any, Literal

import numpy as np

from kerneltrack import observables as catalogue
from kerneltrack.conventions import Gauge, GaugeChoice, measured, message
from kerneltrack.errors import ObservableError
from kerneltrack.from_arrays.given import Array, ArrayOutput, ArrayReduction, Given
from kerneltrack.from_arrays.loss import ArrayLoss, ArrayLossName
from kerneltrack.from_arrays.record import record_of, require_same_record
from kerneltrack.from_arrays.rule import Rule
from kerneltrack.observables import Observable, State
from kerneltrack.schema import FIXED_SIZES
from kerneltrack.snapshot import Json, ProbeRecord, Provenance, Snapshot
from kerneltrack.spectrum import eigensystem, kernel_estimates, threads_for

#: What arrays of one state, and of those before it, may hold; an observable that needs anything else is left out.
OF_ARRAYS = frozenset(
    {
        "eigenvalues", "eigenvectors", "spectrum", "kernel", "matrix", "size", "estimates", "outputs", "targets", "residual",
        "loss", "initial", "previous", "lagged", "operator", "sharpness", "halves", "optimizer_kernel",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ArraySnapshot(Snapshot):
    """A :class:`kerneltrack.Snapshot` that knows its probe's record and what the next one compares with.

    Attributes:
        record: the probe, for ``kt.ArchiveWriter(path, probes=[snapshot.record], …)``.
        state: what was measured; its kernel and eigenvectors are NumPy's.
        initial: the state at step 0 of the run, or None where it was not given.
        optimizer: as it was given.
    """

    record: ProbeRecord = field(repr=False)
    state: State = field(repr=False)
    initial: State | None = field(default=None, repr=False)
    optimizer: Mapping[str, Any] | None = None

    def provenance(self, **metadata: Json) -> Provenance:
        """A provenance with the loss, the optimizer and the versions that made the numbers.

        Args:
            metadata: your own keys (width, seed, …), by which comparisons group.
        """
        rule = Rule(self.learning_rates, self.optimizer)
        versions = {name: installed.version(name) for name in ("kerneltrack", "numpy", "scipy", "h5py")}
        run = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions,
            "loss": self.record.settings["loss"],
            "optimizers": rule.settings,
            "kernel": "computed elsewhere",
        }
        return Provenance(run=run, metadata=metadata)


def snapshot_from_arrays(
    kernel: Any,
    outputs: Any,
    targets: Any = None,
    *,
    step: int,
    loss: ArrayLossName | None = None,
    learning_rates: float | Sequence[float] = (),
    optimizer: str | Mapping[str, Any] | None = None,
    after: ArraySnapshot | None = None,
    inputs: Any = None,
    probe: str = "probe",
    identity: Mapping[str, Json] | None = None,
    output: ArrayOutput = "auto",
    gauge: GaugeChoice = "auto",
    observables: str | Iterable[str] = "default",
    top_k: int = 64,
    keep_kernel: bool = False,
    stability_scope: Literal["exact", "probe estimate"] = "probe estimate",
    epoch: int = 0,
    training_loss: float = math.nan,
) -> ArraySnapshot:
    """A snapshot of the kernel Θ_t[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ · ∂f_p(x_m)/∂θ that other code has computed, by NumPy alone.

    Every observable that follows from arrays is computed by the same functions as the tracker's. What needs parameters,
    layers or the state after the update is left out; what only these arrays lack is NaN, and the message says why.

    Args:
        kernel: Θ_t over all parameters that train, un-normalised: (N, N, O, O) every pair of outputs, (N, N, O) the same output
            on both sides, (N, N) of one output or a reduction. Any array that ``numpy.asarray`` takes: its dtype says how
            far its digits go.
        outputs: f_t (N, O), or (N,) of one output, on the same points in the same order.
        targets: y (N, O), or (N,) real of one output, or integer classes (N,), or None.
        step: t, updates made so far.
        loss: the mean loss on these points, "half_mse", "mse" or "cross_entropy"; None: residual f − y, no loss, no ρ.
        learning_rates: of the update that leaves this state, one per parameter group.
        optimizer: its class, or settings with the class among them, {"class": "SGD", "momentum": 0.9}: ρ and J P Jᵀ follow from
            the kernel where it is SGD with one learning rate. None: unknown, and both are NaN.
        after: the snapshot before this one in the same run, whose states this one is compared with. The first has none.
        inputs: x, an array (N, …) or a mapping of arrays: with the targets they make the probe's fingerprint. They are not stored.
        probe: its name in the archive.
        identity: where the points come from; ``{"split": "test"}`` says that they are not trained on.
        output: "full", "diagonal", "trace" or "sum": which reduction is measured; "auto": the kernel as it came, of which (N, N)
            beside several outputs is the trace.
        gauge: of a cross-entropy "auto" measures BᵀΘB where the kernel is (N, N, O, O), as the tracker does; "raw" does not.
        observables: names of the catalogue; "default" and "all" stand for those that arrays can tell.
        top_k: how many eigenvectors are stored.
        keep_kernel: whether the kernel is stored.
        stability_scope: "exact" where the points are the whole training set, in every batch, and the function is the trained one.
        epoch: epochs so far.
        training_loss: of the update's batch.

    Returns:
        The snapshot. ``kt.ArchiveWriter(path, probes=[first.record], provenance=first.provenance(width=64))`` takes it. Of
        several probes put the ``probes`` together: ``dataclasses.replace(a, probes={**a.probes, **b.probes})``.

    Raises:
        KernelError: a kernel of another shape, not finite, or not symmetric.
        ProbeError: outputs or targets of another shape, not finite, or nothing that tells the points.
        ObservableError: an unknown loss, or an observable that needs more than arrays; a state that is not after ``after``, or was
            measured otherwise.
    """
    began = time.perf_counter()
    given = Given.of(kernel, outputs, targets)
    rule, reduction = Rule.of(learning_rates, optimizer), given.reduction(output)
    chosen_gauge = given.gauge(gauge, loss, reduction)
    record = record_of(
        given, targets, inputs, name=probe, identity=identity, reduction=reduction, gauge=chosen_gauge, loss=loss, top_k=top_k,
        stability_scope=stability_scope,
    )  # fmt: skip
    _require_after(step, record, after)
    chosen, loss_here = _chosen(observables), _loss(given, loss)
    residual = None if given.targets is None else given.outputs - given.targets
    residual = loss_here.residual if loss_here else residual
    state, missing = _state(
        given, loss_here, residual, record, rule, reduction, chosen_gauge, step, after, catalogue.needs(chosen)
    )
    with threads_for(state.eigensystem.size):
        values = catalogue.compute(chosen, state)
        stored = catalogue.measurement(state, top_k=top_k, keep_kernel=keep_kernel)
    numbers = {name: np.asarray(value) for name, value in values.items()}
    stored |= {"outputs": given.outputs} | ({} if residual is None else {"residual": residual})
    reasons = {name: _why(entry, missing, values.reasons) for entry in chosen if (name := entry.name) in values.reasons}
    return ArraySnapshot(
        step=step,
        epoch=epoch,
        wall_time=time.time(),
        snapshot_seconds=time.perf_counter() - began,
        learning_rates=rule.learning_rates,
        training_loss=training_loss,
        message=message([], [reasons], room=FIXED_SIZES["message_length"]),
        probes={probe: {**stored, **numbers}},
        record=record,
        state=state,
        initial=state if step == 0 else None if after is None else after.initial,
        optimizer=rule.optimizer,
    )


def _state(
    given: Given,
    loss: ArrayLoss | None,
    residual: Array | None,
    record: ProbeRecord,
    rule: Rule,
    reduction: ArrayReduction,
    gauge: Gauge,
    step: int,
    after: ArraySnapshot | None,
    needs: Collection[str],
) -> tuple[State, dict[str, str]]:
    """What was measured, and need → why something was not."""
    kernel = given.measured(gauge, reduction)
    pairs, numbers = eigensystem(kernel), np.asarray(kernel, dtype=np.float64)
    read = partial(measured, gauge=gauge, reduction=reduction)
    targets = None if given.targets is None else read(given.targets)
    found, missing = _curvatures(given, loss, rule, exact=record.settings["stability_scope"] == "exact")
    try:
        found["optimizer_kernel"] = rule.metric * numbers
    except ObservableError as error:
        missing["optimizer_kernel"] = str(error)
    if "estimates" in needs:
        found["estimates"] = kernel_estimates(_matrix(numbers), pairs, targets=_columns(targets, reduction))
    if after is None or after.initial is None:
        missing["initial"] = "the state at step 0 was not given" if step else "it is the state at step 0"
    if after is None:
        missing["previous"] = missing["lagged"] = "no snapshot before this one"
    lag = None if after is None else int(after.state.settings.get("lag", step - after.step))
    if after is not None and step - after.step == lag:
        found["lagged"] = after.state
    elif lag is not None:
        missing["lagged"] = f"no snapshot {lag} update{'s' * (lag != 1)} earlier"
    state = State(
        eigensystem=pairs,
        kernel=numbers,
        reduction=reduction,
        gauge=gauge,
        outputs=read(given.outputs),
        targets=targets,
        given_targets=None if gauge == "raw" else given.targets,
        residual=None if residual is None else read(residual),
        probe_loss=math.nan if loss is None else loss.value,
        learning_rates=rule.learning_rates,
        initial=None if after is None else after.initial,
        previous=None if after is None else after.state,
        settings={
            "loss": record.settings["loss"],
            "dtype": given.dtypes[0],
            "computed_in": given.coarsest,
            "step": step,
            "in_training": record.in_training,
            "layers": [],
            "optimizers": rule.settings,
            **({} if lag is None else {"lag": lag}),
        },
        **found,
    )
    return (state.as_initial() if step == 0 else state), missing


def _curvatures(
    given: Given, loss: ArrayLoss | None, rule: Rule, *, exact: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """The Gauss–Newton sharpness, ρ and its mean over two halves of the probe, and need → why there is none."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    if loss is None or (whole := given.whole) is None:
        why = "no loss was given" if loss is None else "the kernel is not that of every pair of outputs"
        return found, dict.fromkeys(("sharpness", "operator", "halves"), why)
    points = np.arange(len(given.outputs))
    found["sharpness"] = loss.largest_curvature(whole, points)
    try:
        factor = rule.metric / rule.threshold
    except ObservableError as error:
        return found, dict.fromkeys(("operator", "halves"), str(error))
    found["stability"] = factor * found["sharpness"]
    if exact or len(points) < 2:
        missing["halves"] = "the probe is the whole training set, which λ₁ is of" if exact else "a probe of one point"
        return found, missing
    order = np.random.default_rng(0).permutation(len(points))  # the tracker's halves
    halves = order[: len(points) // 2], order[len(points) // 2 :]
    tops = [len(half) / len(points) * loss.largest_curvature(whole, half) for half in halves]
    found["stability_halves"] = factor * sum(tops)
    return found, missing


def _loss(given: Given, name: ArrayLossName | None) -> ArrayLoss | None:
    return None if name is None or given.targets is None else ArrayLoss(name, given.outputs, given.targets)


def _matrix(kernel: Array) -> Array:
    """(M, M), rows (n, o); of a diagonal kernel with its zeros."""
    theta = np.asarray(kernel, dtype=np.float64)
    if theta.ndim == 3:
        theta = theta[..., None] * np.eye(theta.shape[2])
    rows = len(theta) * (theta.shape[2] if theta.ndim == 4 else 1)
    return np.asarray((theta.transpose(0, 2, 1, 3) if theta.ndim == 4 else theta).reshape(rows, rows))


def _columns(targets: Array | None, reduction: ArrayReduction) -> Array | None:
    if targets is None:
        return None
    catalogue.check_targets(targets, reduction)
    columns = catalogue.project(targets, reduction)
    return columns if columns.any() else None


def _chosen(names: str | Iterable[str]) -> tuple[Observable, ...]:
    """What arrays can tell among what was asked for.

    Raises:
        ObservableError: an observable asked for by its name needs something else.
    """
    asked = {names} if isinstance(names, str) else set(names)
    found = catalogue.select(asked)
    for entry in found:
        if entry.name in asked and (beyond := sorted(entry.needs - OF_ARRAYS)):
            raise ObservableError(
                f"the observable {entry.name!r} does not follow from arrays",
                expected=f"observables that need {', '.join(sorted(OF_ARRAYS))}",
                got=f"one that needs {', '.join(beyond)}",
                remedy="Measure it with kt.Tracker, or leave it out.",
            )
    return tuple(entry for entry in found if entry.needs <= OF_ARRAYS)


def _why(entry: Observable, missing: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """Why it is NaN: what is missing by its own reason, where "not measured" is all that the catalogue knows."""
    found = next((missing[need] for need in sorted(entry.needs) if need in missing), "")
    return found if found and reasons[entry.name].startswith("not measured") else reasons[entry.name]


def _require_after(step: int, record: ProbeRecord, after: ArraySnapshot | None) -> None:
    if after is None:
        return
    if step <= after.step:
        raise ObservableError(
            "step",
            expected=f"more than {after.step}, the step of the snapshot before",
            got=step,
            remedy="Give states in turn.",
        )
    require_same_record(record, after.record)
