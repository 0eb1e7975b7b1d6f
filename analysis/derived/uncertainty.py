"""How far the numbers of a report can be trusted: four fields beside each, never added up, and why a field is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError, KerneltrackError
from kerneltrack.observables import State, Uncertainty, disjoint_halves, epsilon_of, select
from kerneltrack.spectrum import eigensystem

from ..text import Table, count, number
from ..trajectory import Run, Trajectory
from .kernels import full_kernel
from .quantities import quantity, title_of

#: What has a standard error of its own in the archive.
ESTIMATED = (
    "trace_estimate", "frobenius_estimate", "participation_ratio_estimate", "alignment_estimate",
)  # fmt: skip
#: What is judged, where the archive holds it.
JUDGED = (
    "eigenvalue_1", "effective_rank", "participation_ratio", "kernel_target_alignment",
    "kernel_target_alignment_null", "kernel_target_alignment_centred", "kernel_target_alignment_centred_null",
    "kernel_distance_from_initial", "stability_ratio", "probe_loss", *ESTIMATED,
)  # fmt: skip
#: Of these, what a kernel on half of the points gives by itself.
HALVED = ("effective_rank", "participation_ratio", "kernel_target_alignment", "kernel_target_alignment_centred")
SPLITS = 8
#: Rows of a kernel up to which its halves are solved for a report: sixteen solves of half of them take about a second.
LARGEST = 1200
#: Roundings of an eigenvalue by itself that a kernel's rows may have in common: two of J on either side.
_COMMON = 4
#: Squares of a thousand times as many entries still fit float64.
_TOO_LARGE = 1e150
_REDUCTIONS = ("full", "diagonal", "trace", "sum")


@dataclass(frozen=True)
class Assessed:
    """Numbers of one snapshot with their uncertainty.

    Attributes:
        step: the last measured step.
        values: by name of the quantity.
        uncertainties: by the same names.
        notes: for each of the four fields what it is, or why it was not measured.
    """

    step: int
    values: Mapping[str, float]
    uncertainties: Mapping[str, Uncertainty]
    notes: tuple[str, ...]


def assess(run: Run, others: Sequence[Run] = ()) -> Assessed:
    """The last measured snapshot of ``run``, judged by what its archive holds and by runs that differ in their seed only.

    Raises:
        AnalysisError: nothing was measured.
    """
    rows = np.flatnonzero(run.measured)
    if not rows.size:
        raise AnalysisError("no snapshot of this probe holds a measurement", where=run.path or None)
    row = int(rows[-1])
    values = {name: value for name in JUDGED if (value := _number(run, name, row)) is not None}
    names = list(values)
    numerical, rounding = _numerical(run, row)
    probe, halves = _probe(run, row, [name for name in HALVED if name in names])
    seeds, repeats = _seeds(run, others, row, names)
    found = {
        name: Uncertainty(
            numerical=numerical if name == "eigenvalue_1" else None,
            estimator=_number(run, f"{name}_error", row) if name in ESTIMATED else None,
            probe=probe.get(name),
            seeds=seeds.get(name),
        )
        for name in names
    }
    return Assessed(int(run.steps[row]), values, found, (rounding, _estimator(names), halves, repeats))


def _estimator(names: Sequence[str]) -> str:
    """What the field says of these numbers."""
    exact = "the null of permuted labels is an exact mean."
    if not set(names) & set(ESTIMATED):
        return f"Estimator: nothing here is estimated from random vectors; {exact}"
    return f"Estimator: one standard error over random vectors, of what is called an estimate; {exact}"


def assessment_table(found: Assessed) -> Table:
    """A row for each number, a column for each field; "–" where it was not estimated."""
    rows = [
        [title_of(name), number(value), *(_cell(field) for field in (u.numerical, u.estimator, u.probe, u.seeds))]
        for name, value, u in ((name, value, found.uncertainties[name]) for name, value in found.values.items())
    ]
    heads = [f"at step {count(found.step)}", "value", "numerical", "estimator", "choice of the probe", "seeds"]
    return Table(
        "How far these numbers can be trusted: four kinds of uncertainty, never added up", heads, rows, found.notes
    )


def _cell(field: float | None) -> str:
    return number(float("nan") if field is None else field, 2)


def _numerical(run: Run, row: int) -> tuple[float | None, str]:
    """(4ελ_1 + noise floor + eigen-residual)/N: how far λ_1 may be off.

    The noise floor is what independent errors of the entries do (by Weyl). Errors that a row of J has in common make DΘD of Θ with
    D within 2ε of the identity, and move every eigenvalue by as much of itself (Ostrowski): λ_1 by up to 4ελ_1.
    """
    names = ("eigenvalue_1", "noise_floor", "eigen_residual")
    largest, floor, residual = (_number(run, name, row) for name in names)
    if largest is None or floor is None or residual is None:
        return None, "Numerical: not measured, the archive holds no eigenvalues, no noise floor or no eigen-residual."
    common = _COMMON * epsilon_of(run.settings.get("dtype")) * abs(largest)
    note = "Numerical: four roundings of λ₁, the noise floor and the solver's residual, over N; for λ₁ only."
    return common + (floor + residual) / run.count, note


def _probe(run: Run, row: int, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """√(mean d²/2) of the differences d between disjoint halves of the probe: the standard deviation of a number on N/2 points.

    Both halves are drawn alike, so the mean of d is known to be 0: to fit it would lose √(7/8) of eight divisions.
    """
    try:
        pairs = disjoint_halves(_state(run, row), select(names), splits=SPLITS)
    except KerneltrackError as error:
        return {}, f"Choice of the probe: not measured, {error.problem}."
    spread = {name: float(np.sqrt(np.mean((first - second) ** 2) / 2)) for name, (first, second) in pairs.items()}
    return {name: value for name, value in spread.items() if np.isfinite(value)}, (
        f"Choice of the probe: standard deviation of a number on {count(run.count // 2)} points, half of the probe, from {SPLITS} "
        "divisions of it into disjoint halves of the stored kernel."
    )


def _state(run: Run, row: int) -> State:
    reduction = run.settings.get("output")
    if reduction not in _REDUCTIONS or run.count < 4 or "outputs" not in run.dataset:
        raise AnalysisError(
            f"halves of the probe need a built-in reduction, 4 points and the outputs, not {reduction!r}"
        )
    if run.dimension > LARGEST:
        raise AnalysisError(
            f"the kernel has {count(run.dimension)} rows, more than {count(LARGEST)}; observables.disjoint_halves does it"
        )
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            kernel = full_kernel(run, row)
    except AnalysisError as error:
        raise AnalysisError(f"the kernel of step {count(run.steps[row])} is not kept") from error
    if not np.abs(kernel).max(initial=0.0) < _TOO_LARGE:  # also where there is a NaN
        raise AnalysisError(f"the kernel of step {count(run.steps[row])} holds entries too large to square, or NaN")
    kernel = kernel[:, :, 0, 0] if kernel.shape[2:] == (1, 1) else kernel
    targets = run.values("targets") if "targets" in run.dataset else None
    return State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction=reduction,
        gauge="softmax" if run.gauge == "softmax" else "raw",
        outputs=run.seen(run.at("outputs", row)),
        targets=None if targets is None else run.seen(targets),
        given_targets=targets,
        settings=dict(run.settings),
    )


def _seeds(run: Run, others: Sequence[Run], row: int, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """Standard deviation over the runs that differ in their seed only, at the same step."""
    step = int(run.steps[row])
    runs = [run, *(other for other in others if other.row(step) is not None and _repeats(run, other))]
    if len(runs) < 2:
        return {}, "Seeds: not measured, no other run that differs in its seed only was given."
    found = {}
    for name in names:
        values = [_number(one, name, one.row(step)) for one in runs]
        known = [value for value in values if value is not None and np.isfinite(value)]
        if len(known) == len(runs):
            found[name] = float(np.std(known, ddof=1))
    return found, f"Seeds: standard deviation over {len(runs)} runs that differ in their seed only, at the same step."


def _number(run: Run, name: str, row: int | None) -> float | None:
    """One quantity at one row, or None where the archive does not hold it as one number per snapshot."""
    try:
        return None if row is None else float(quantity(run, name)[row])
    except AnalysisError:
        return None


def _repeats(run: Run, other: Run) -> bool:
    mine, theirs = (
        {k: v for k, v in one.provenance.get("metadata", {}).items() if k not in ("seed", "title")}
        for one in (run, other)
    )
    seeds = [one.provenance.get("metadata", {}).get("seed") for one in (run, other)]
    try:
        Trajectory((run, other)).comparable()
    except AnalysisError:
        return False
    return mine == theirs and None not in seeds and seeds[0] != seeds[1]
