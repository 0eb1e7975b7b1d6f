"""What k updates of SGD make of the residual along one mode, with momentum or without.

Along v_i the gradient is proportional to the residual r, so with h = sηλ_i/N and the memory b in units of r an update is

    b ← βb + (1 − d) r,        r ← r − h b  (heavy ball),    r ← r − h (r + βb)  (Nesterov),

a matrix A(h) on (r, b); without momentum r ← (1 − h) r. A state does not hold b. In the long run of a constant rate (r, b) lies
along the eigenvector of A's largest root z, b = (1 − d) r/(z − β): on slow modes z → 1, and b is r times the gain of momentum
(:mod:`kerneltrack.conventions`). Where the roots are complex no such direction is there: what such a mode once held has turned and
died out as |z|^t, and what drives it now is slow, so that it has the same gain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import Momentum

from ..trajectory import Floats, Ints


def factors(speeds: Floats, updates: Ints, momentum: Momentum, memory: Floats) -> Floats:
    """r after k updates over r, (K, M).

    Args:
        speeds: (M,) h.
        updates: (K,) k.
        momentum: β, d and Nesterov; without β memory has no part.
        memory: (M,) b/r at the start.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what grows beyond all numbers is told to be above the edge
        if not momentum.beta:
            return np.asarray((1 - speeds) ** updates[:, None])
        step = _matrix(speeds, momentum)
        powers = (np.linalg.matrix_power(step, int(k)) for k in updates)
        return np.array([power[:, 0, 0] + power[:, 0, 1] * memory for power in powers])


def radius(speeds: Floats, momentum: Momentum) -> Floats:
    """max |z| over the roots of A(h), (M,): the mode is above the edge where it is more than 1."""
    if not momentum.beta:
        return np.asarray(np.abs(1 - speeds))
    return np.asarray(np.abs(_roots(speeds, momentum)).max(axis=0))


def turning(speeds: Floats, momentum: Momentum) -> NDArray[np.bool_]:
    """Whether a mode's roots are complex, (M,)."""
    return np.asarray(_roots(speeds, momentum)[0].imag != 0) if momentum.beta else np.zeros(speeds.shape, dtype=bool)


def memory_of(speeds: Floats, momentum: Momentum, begun: int) -> Floats:
    """b/r that a mode has at a state, (M,).

    A mode above the edge is held there, z = −1. Before the first update there is no memory, and the first takes the
    gradient as it is: (1 − d) r + βb = r.

    Args:
        speeds: (M,) h at the rate that made the state.
        momentum: β, d and Nesterov.
        begun: updates before the state.
    """
    if not momentum.beta or not begun:
        return np.full_like(speeds, momentum.dampening / momentum.beta if momentum.beta else 0.0)
    slow = replace(momentum, nesterov=False).gain()
    alone = ~turning(speeds, momentum)
    found = np.full_like(speeds, slow)
    found[alone] = (1 - momentum.dampening) / (
        np.maximum(_roots(speeds[alone], momentum)[0].real, -1.0) - momentum.beta
    )
    return found


def _matrix(speeds: Floats, momentum: Momentum) -> Floats:
    """A(h), (M, 2, 2)."""
    beta, kept = momentum.beta, 1 - momentum.dampening
    taken = (1 + beta * kept, beta**2) if momentum.nesterov else (kept, beta)
    rows = [[1 - speeds * taken[0], -speeds * taken[1]], [np.full_like(speeds, kept), np.full_like(speeds, beta)]]
    return np.moveaxis(np.array(rows), -1, 0)


def _roots(speeds: Floats, momentum: Momentum) -> NDArray[np.complex128]:
    """Both roots of each A(h), (2, M) complex; the larger one first where they are real and differ in size."""
    step = _matrix(speeds, momentum)
    half = (step[:, 0, 0] + step[:, 1, 1]) / 2
    determinant = step[:, 0, 0] * step[:, 1, 1] - step[:, 0, 1] * step[:, 1, 0]
    spread = np.sqrt((half**2 - determinant).astype(np.complex128))
    away = np.where(half >= 0, 1, -1)
    return np.array([half + away * spread, half - away * spread])
