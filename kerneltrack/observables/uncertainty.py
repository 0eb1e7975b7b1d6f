"""Uncertainty, in four fields that are never added up and never called an error bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import to_numpy
from kerneltrack.observables.observable import Observable
from kerneltrack.observables.registry import compute
from kerneltrack.observables.state import Array, State
from kerneltrack.spectrum import eigensystem


@dataclass(frozen=True)
class Uncertainty:
    """How far one number can be trusted; a field is None where it was not estimated.

    Attributes:
        numerical: what rounding and an unconverged solver can have changed.
        estimator: standard error of a stochastic estimate (a trace from random vectors).
        probe: how the number varies with the choice of the probe's points.
        seeds: how it varies over runs that differ in their seed only.
    """

    numerical: float | None = None
    estimator: float | None = None
    probe: float | None = None
    seeds: float | None = None


def disjoint_halves(
    state: State, selected: Sequence[Observable], *, splits: int = 8, seed: int = 0
) -> Mapping[str, tuple[Array, Array]]:
    """Every chosen scalar on both halves of ``splits`` random divisions of the probe.

    A bootstrap with replacement repeats points, which makes a kernel singular: wrong for anything spectral. Halves have
    N/2 points, so what depends on N (an eigenvalue grows with it) is that of a smaller probe; compare halves with each
    other, and λ_i/N rather than λ_i.

    Args:
        state: measured, with its kernel.
        selected: observables that are scalars and need nothing but kernel, targets, outputs and residual.
        splits: how many divisions.
        seed: of the divisions.

    Returns:
        By name, (splits,) values on the first halves and on the second halves. With d their differences, whose mean is 0
        because both halves are drawn alike, √(mean d²/2) estimates the standard deviation of the number on a probe of N/2
        points. On N points it need not be smaller: an effective rank varies more where it is larger.

    Raises:
        ObservableError: the state holds no kernel, or fewer than four points.
    """
    if state.kernel is None or state.samples < 4:
        raise ObservableError("halves of the probe need the kernel, and at least 4 points", got=f"N = {state.samples}")
    kernel = to_numpy(state.kernel)
    rng = np.random.default_rng(seed)
    half = state.samples // 2
    found: dict[str, list[tuple[float, float]]] = {entry.name: [] for entry in selected if not entry.dims}
    for _ in range(splits):
        order = rng.permutation(state.samples)
        halves = order[:half], order[half : 2 * half]
        first, second = (compute(selected, _part(state, kernel, points)) for points in halves)
        for name, pairs in found.items():
            pairs.append((float(first[name]), float(second[name])))
    return {name: (np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])) for name, pairs in found.items()}


def _part(state: State, kernel: Array, points: NDArray[np.int64]) -> State:
    kernel = kernel[points][:, points]
    return State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction=state.reduction,
        gauge=state.gauge,
        outputs=state.outputs[points],
        targets=None if state.targets is None else state.targets[points],
        given_targets=None if state.given_targets is None else state.given_targets[points],
        residual=None if state.residual is None else state.residual[points],
        probe_loss=state.probe_loss,
        learning_rates=state.learning_rates,
        settings=state.settings,
    )
