"""Task shift: what training on a new task does to the outputs at an old one's points, foretold by the kernel at the switch.

Of an archive whose first probe has points of the new task, B, and another one those of the old, A: the tracker carries B's
eigenvectors to A, Θ_ABV. With the kernel held from the switch on, f_A(t) = f_A + Σ_i Θ_ABv_i w_t(λ_i) ⟨v_i, y_B − f_B⟩.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack import EigenSystem
from kerneltrack.errors import AnalysisError
from kerneltrack.regression import cross_size, descent_filter, epsilon_rank, flow_filter, tangent_angles

from ..trajectory import Floats, Ints, Run, load
from .flow_time import flow_time
from .kernels import noise_floor
from .mode_factors import residual_curvature

#: Modes of each task whose spans are compared.
MODES = 10


@dataclass(frozen=True)
class TaskShift:
    """What two tasks have in common, and what the second does to the first.

    Attributes:
        switch: the step of the state from which on the new task is trained.
        steps: (T,) of the states after it.
        predicted: (T, N, O) change of the outputs at the old task's points since the switch, by the kernel there.
        actual: (T, N, O) the change itself.
        error: (T,) ‖actual − predicted‖²/‖actual‖².
        losses: (T,) loss on those points, less what it was at the switch.
        foretold: (T,) the same of the predicted outputs.
        rank: ε-rank of the new task's kernel at the switch, ε = 0.01.
    """

    switch: int
    steps: Ints
    predicted: Floats
    actual: Floats
    error: Floats
    losses: Floats
    foretold: Floats
    rank: int

    @property
    def share(self) -> float:
        """What of the last state's forgetting is foretold; NaN where nothing was forgotten."""
        return float(self.foretold[-1] / self.losses[-1]) if self.losses[-1] > 0 else float("nan")


@dataclass(frozen=True)
class TaskOverlap:
    """What two tasks' tangent spaces have in common over training.

    Attributes:
        steps: (S,) of the moments.
        size: (S,) ‖Θ_AB‖_F/√(‖Θ_AA‖_F ‖Θ_BB‖_F), from the vectors that are stored: of not all of them it is a lower bound.
        angles: (S, k) principal angles of the spans of the leading modes, ascending, in radians; of modes above the noise floor
            only: NaN behind them.
        complete: whether every vector is stored.
    """

    steps: Ints
    size: Floats
    angles: Floats
    complete: bool


def other_task(run: Run) -> Run:
    """The same archive seen through the probe whose eigenvectors were carried over to this one.

    Raises:
        AnalysisError: there is none.
    """
    name = run.settings.get("extension_of")
    if not isinstance(name, str) or name not in run.probes or "extension" not in run.dataset:
        raise AnalysisError(
            "task shift needs 'extension', the new task's eigenvectors at the old one's points",
            where=run.path or None,
            remedy="Give the tracker both, the new one first, probe={'new': …, 'old': …}, and "
            "observables=['default', 'target_energy_out_of_sample'], and look through the old one.",
        )
    return load(run.path, probe=name).only


def task_overlap(run: Run, *, modes: int = MODES) -> TaskOverlap:
    """Size of the cross-kernel and angles between the tangent spaces, at every moment at which both probes were measured.

    Args:
        run: seen through the old task's probe.
        modes: k of each task, at most what is stored.

    Raises:
        AnalysisError: as :func:`other_task`, or eigenvectors that are not stored.
    """
    new = other_task(run)
    for one in (run, new):
        one.require("eigenvalues", "eigenvectors", why="task shift")
    found = [(row, *_overlap(run, new, int(row), modes)) for row in np.flatnonzero(run.measured & new.measured)]
    carried = int(run.dataset.sizes["other_vector"])
    return TaskOverlap(
        steps=run.steps[[row for row, *_ in found]],
        size=np.array([size for _, size, _ in found]),
        angles=np.array([angles for *_, angles in found]),
        complete=carried == new.dimension,
    )


def _overlap(run: Run, new: Run, row: int, modes: int) -> tuple[float, Floats]:
    own, other = run.values("eigenvalues")[row], new.values("eigenvalues")[row]
    carried = _carried(run, row)
    vectors = run.at("eigenvectors", row).reshape(len(carried), -1)
    pairs = EigenSystem.stored(own, vectors) if len(own) == len(vectors) else None
    if pairs is None or len(other) != new.dimension:
        raise AnalysisError("task shift needs every eigenvalue of both probes", where=run.path or None)
    known = (int(np.sum(v > noise_floor(one, row))) for one, v in ((run, own), (new, other)))
    most = min(modes, vectors.shape[1], carried.shape[1])
    k, angles = min(most, *known), np.full(most, np.nan)
    if k:
        angles[:k] = tangent_angles(carried, pairs, other, k)
    size = cross_size(float(np.linalg.norm(carried)), float(np.linalg.norm(own)), float(np.linalg.norm(other)))
    return size, angles


def task_shift(run: Run, switch: int | None = None) -> TaskShift:
    """Forgetting foretold by the kernel at the switch, beside what was forgotten.

    At one rate of plain gradient descent the filters are those of its updates, else of gradient flow over the same time.

    Args:
        run: seen through the old task's probe; the archive's first probe is of the new task.
        switch: the step of the last state before the new task; None: the tracker's ``metadata={"switch": step}``.

    Raises:
        AnalysisError: no such state, nothing measured after it, a loss that is no mean of squares, an optimizer under which modes
            do not decay one by one, or a kernel that is not of every output.
    """
    new, row = other_task(run), _row(run, switch)
    later = np.flatnonzero(run.taken & (run.steps > run.steps[row]))
    if not len(later):
        raise AnalysisError(f"no state after the switch at step {run.steps[row]}", where=run.path or None)
    curvature = residual_curvature(run, *[tuple(rates) for rates in run.learning_rates[row : later[-1] + 1]])
    values, carried = new.values("eigenvalues")[row], _carried(run, row)
    kept = carried.shape[1]
    # m = s(f − y) is stored; modes beyond the stored vectors are left out, whose eigenvalues are the smallest.
    residual = -new.values("residual_coefficients")[row][:kept] / curvature
    before = run.at("outputs", row)
    predicted = np.array(
        [
            (carried @ (_filters(new, row, int(t), values[:kept], curvature)[:, None] * residual)).reshape(before.shape)
            for t in later
        ]
    )
    actual = np.array([run.at("outputs", int(t)) for t in later]) - before
    away = before - run.values("targets")
    squares = np.sum(actual**2, axis=(1, 2))
    missed = np.sum((actual - predicted) ** 2, axis=(1, 2))
    return TaskShift(
        switch=int(run.steps[row]),
        steps=run.steps[later],
        predicted=predicted,
        actual=actual,
        error=np.divide(missed, squares, out=np.full(len(later), np.nan), where=squares > 0),
        losses=_gained(away, actual, curvature),
        foretold=_gained(away, predicted, curvature),
        rank=epsilon_rank(values),
    )


def _gained(away: Floats, changes: Floats, curvature: float) -> Floats:
    """s/2 (‖f − y + Δ‖² − ‖f − y‖²)/N (T,) of the changes Δ (T, N, O)."""
    return np.asarray(curvature / 2 * np.sum(changes * (2 * away + changes), axis=(1, 2)) / len(away))


def _row(run: Run, switch: int | None) -> int:
    told = run.provenance.get("metadata", {}).get("switch") if switch is None else switch
    if not isinstance(told, int):
        raise AnalysisError(
            "task shift needs 'switch', the step of the last state before the new task",
            where=run.path or None,
            remedy='Say it to the tracker, metadata={"switch": 1000}, or to the function.',
        )
    row = run.row(told)
    if row is None:
        raise AnalysisError(
            f"no snapshot at the switch, step {told}",
            where=run.path or None,
            remedy=f"Measure there: schedule=kt.schedule.At([{told}, …]), or with `|` beside another schedule.",
        )
    return row


def _carried(run: Run, row: int) -> Floats:
    """Θ_ABV (M, k)."""
    return run.at("extension", row).reshape(-1, run.dataset.sizes["other_vector"])


def _filters(new: Run, row: int, later: int, values: Floats, curvature: float) -> Floats:
    """w_t(λ_i) from one row to a later one.

    Raises:
        AnalysisError: the learning rates between them are not known.
    """
    times, rate = flow_time(new), float(new.learning_rates[row, 0])
    updates, passed = int(new.steps[later] - new.steps[row]), float(times[later] - times[row])
    if not passed > 0:
        raise AnalysisError(
            f"task shift needs the learning rates of steps {new.steps[row]} to {new.steps[later]}",
            expected="rates above 0",
            got=sorted({float(r) for r in new.learning_rates[row : later + 1, 0]}),
            where=new.path or None,
            remedy="Give a switch behind which every snapshot knows its rate.",
        )
    # A rate that changes behind the last snapshot but one is seen by the flow alone.
    if np.isclose(passed, rate * updates, rtol=1e-9, atol=0):
        return descent_filter(values, curvature * rate / new.count, updates)
    return flow_filter(values, curvature * passed / new.count)
