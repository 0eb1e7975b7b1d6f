"""The loss-weighted kernel S^½ΘS^½, S = ∇²_f L: the Gauss–Newton matrix seen from the outputs, whose modes are those of learning.

Under cross-entropy a point that is fitted has no weight, whatever its kernel is. The eigenvalues are those of the Gauss–Newton
matrix, 1/N included; they do not depend on the gauge, because S does not see what softmax does not.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.conventions import helmert
from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside
from kerneltrack.observables.dynamics import MEAN_OF_SQUARES
from kerneltrack.observables.observable import observable
from kerneltrack.observables.spectral import effective_rank, participation_ratio, stable_rank
from kerneltrack.observables.state import Array, State
from kerneltrack.spectrum import EigenSystem, solved

_SOURCE = "derived; loss-weighted Gram matrices: arXiv 2509.22335"


def curvature_roots(loss: object, outputs: Array, targets: Array | None) -> Array:
    """S_n^½ (N, O, O), S_n = ∂²L/∂f_n² of a mean loss.

    Args:
        loss: its name.
        outputs: (N, O).
        targets: (N, O); a cross-entropy's weigh its points by their sums.

    Raises:
        ObservableError: a loss whose curvature is not known by its name, or is negative.
    """
    count, width = outputs.shape
    if loss in MEAN_OF_SQUARES:
        scale = 1.0 / count if loss == "half_mse" else 2.0 / (count * width)
        return np.broadcast_to(scale**0.5 * np.eye(width), (count, width, width))
    if loss != "cross_entropy" or width < 2 or targets is None:
        raise ObservableError(
            "the curvature of this loss is not known by its name",
            expected="half_mse, mse, or cross_entropy of several outputs",
            got=repr(loss),
        )
    weights = targets.sum(axis=1)
    if weights.min() < 0:
        raise ObservableError("the loss is not convex in the outputs", got="targets of negative sum")
    p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    blocks = (p[:, :, None] * np.eye(width) - p[:, :, None] * p[:, None, :]) * weights[:, None, None] / count
    values, vectors = np.linalg.eigh(blocks)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))[:, None, :]) @ vectors.transpose(0, 2, 1))


def _pairs(state: State) -> EigenSystem:
    """Of S^½ΘS^½, once for all that is told of it."""
    return state.once("loss-weighted kernel", lambda: solved(_weighted(state)))


def _weighted(state: State) -> Array:
    if state.reduction != "full" and state.network_outputs > 1:
        raise ObservableError(
            "the loss weighs pairs of outputs", expected='output="full"', got=f"output={state.reduction!r}"
        )
    if state.reduction == "callable":
        raise ObservableError("the kernel is of a callable, which the loss is not of")
    roots = curvature_roots(state.settings.get("loss"), state.by_output(state.outputs), state.raw_targets)
    if state.gauge == "softmax":
        roots = roots @ helmert(state.network_outputs)  # S^½B: with it B BᵀΘB Bᵀ is CΘC, which S^½ does not tell from Θ
    count, rows, columns = roots.shape
    root = np.zeros((count, rows, count, columns))
    root[np.arange(count), :, np.arange(count), :] = roots
    kernel = state.kernel_matrix()
    flat = beside(root.reshape(count * rows, count * columns), kernel)
    found: Array = flat @ kernel @ flat.T
    return found


def _eigenvalues(state: State) -> Array:
    """As many as the state has of its own kernel."""
    return np.asarray(_pairs(state).values[: len(state.eigensystem.values)])


OBSERVABLES = (
    observable(
        "loss_weighted_eigenvalues",
        _eigenvalues,
        "λ_i(S^½ΘS^½), S = ∇²_f L",
        "kernel",
        "loss",
        source=_SOURCE,
        spectrum_of="the loss-weighted kernel",
        dims=("mode",),
        default=False,
        long_name="eigenvalues of the loss-weighted kernel",
    ),
    observable(
        "loss_weighted_effective_rank",
        lambda s: effective_rank(_pairs(s).values, _pairs(s).noise_floor),
        "exp(−Σ_i p_i ln p_i) over λ_i(S^½ΘS^½) > noise_floor, p_i = λ_i/tr",
        "kernel",
        "loss",
        source=_SOURCE,
        spectrum_of="the loss-weighted kernel",
        default=False,
        long_name="effective rank of the loss-weighted kernel",
    ),
    observable(
        "loss_weighted_participation_ratio",
        lambda s: participation_ratio(_pairs(s).trace, _pairs(s).frobenius),
        "(tr S^½ΘS^½)²/‖S^½ΘS^½‖_F²",
        "kernel",
        "loss",
        source=_SOURCE,
        spectrum_of="the loss-weighted kernel",
        default=False,
        long_name="participation ratio of the loss-weighted kernel",
    ),
    observable(
        "loss_weighted_stable_rank",
        lambda s: stable_rank(_pairs(s).trace, float(_pairs(s).values[0])),
        "tr S^½ΘS^½/λ_1(S^½ΘS^½)",
        "kernel",
        "loss",
        source=_SOURCE,
        spectrum_of="the loss-weighted kernel",
        default=False,
        long_name="stable rank of the loss-weighted kernel",
    ),
)
