"""What permuted labels give: the target's energy in the first k modes against that of the same targets at other points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Run

#: With them the smallest share that can be told is one in a thousand.
DRAWS = 999
#: Two energies are equal if they differ by less: float32 eigenvectors hold seven digits.
_EQUAL = 1e-6


@dataclass(frozen=True)
class PermutedEnergy:
    """E(y, k) and what permuted targets give.

    Attributes:
        k: how many modes.
        energy: E(y, k), from the stored eigenvectors.
        null: (draws,) E(πy, k) for random permutations π of the probe's points.
    """

    k: int
    energy: float
    null: Floats

    @property
    def reached(self) -> float:
        """The share of permutations, the identity among them, that reach the energy: its false-alarm rate."""
        return float((1 + np.sum(self.null >= self.energy - _EQUAL)) / (1 + len(self.null)))

    @property
    def constant(self) -> bool:
        """Whether no permutation changes the energy: targets of one class, or every mode among the k."""
        return bool(np.ptp(self.null) < _EQUAL)


def permuted_energy(run: Run, row: int, k: int, *, draws: int = DRAWS, seed: int = 0) -> PermutedEnergy:
    """E(y, k) = Σ_{i≤k} ‖⟨v_i, y⟩‖²/‖y‖² at one snapshot, and under random permutations of the targets' points.

    The eigenvectors are the same for every permutation, so a basis that the solver chose inside a cluster of equal eigenvalues
    favours none of them.

    Args:
        run: with targets and eigenvectors.
        row: the snapshot.
        k: how many of the stored eigenvectors, at least 1.
        draws: how many permutations.
        seed: of the permutations.

    Raises:
        AnalysisError: no targets or fewer than k eigenvectors are stored, or targets have no projection on this kernel.
    """
    run.require("eigenvectors", "targets", why="comparing with permuted labels")
    vectors = run.at("eigenvectors", row)[:, :, :k]  # (N, kernel outputs, k)
    targets, reduction = run.seen(run.values("targets")), run.settings.get("output")
    if vectors.shape[2] < k or not np.isfinite(vectors).all():
        raise AnalysisError(f"comparing with permuted labels needs {k} stored eigenvectors", where=run.path or None)
    if reduction == "sum":
        targets = targets.sum(axis=1, keepdims=True)
    if reduction == "callable" or vectors.shape[1] not in (1, targets.shape[1]):
        raise AnalysisError(f"targets have no projection on a {reduction!r} kernel", where=run.path or None)
    size = float(np.sum(targets**2))
    if not 0 < size < np.inf:
        raise AnalysisError("the targets are zero or not finite, so they have no direction", where=run.path or None)
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(targets)) for _ in range(draws))
    null = np.array([_energy(vectors, targets[order]) for order in orders])
    return PermutedEnergy(k, _energy(vectors, targets) / size, null / size)


def mode_squares(vectors: Floats, phi: Floats) -> Floats:
    """‖⟨v_i, φ⟩‖² (k,) of eigenvectors (M, k): of a kernel over the N points every column of φ (N, C) meets the same v_i."""
    if len(vectors) == len(phi):
        return np.asarray(np.sum((vectors.T @ phi) ** 2, axis=1))
    return np.asarray((vectors.T @ phi.reshape(-1)) ** 2)


def _energy(vectors: Floats, phi: Floats) -> float:
    """Σ_i ‖⟨v_i, φ⟩‖² of eigenvectors (N, kernel outputs, k)."""
    return float(np.sum(mode_squares(vectors.reshape(-1, vectors.shape[2]), phi)))
