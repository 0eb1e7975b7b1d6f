"""How little is known of an output: s(x)² = gᵀ(λI + Σ g_i g_iᵀ)⁻¹g over the pairs that were chosen, in full or by its diagonal."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from arm_network import Tangents
from scipy.linalg import cholesky, solve_triangular

from kerneltrack.errors import RegressionError


class Confidence(Protocol):
    """Of the pairs that were chosen so far."""

    log_determinant: float

    def widths(self, candidates: Tangents) -> np.ndarray:
        """(n,) s."""
        ...

    def add(self, row: int) -> None:
        """The candidate that was looked at last and is chosen."""
        ...


class Full:
    """By the kernel K of the chosen pairs: s² = [⟨g, g⟩ − k(K + λI)⁻¹kᵀ]/λ, by a Cholesky factor that grows by rows.

    Each gradient is that of its own moment, until :meth:`renew` takes all at one.

    Attributes:
        ridge: λ.
        count: t chosen pairs.
        log_determinant: ln det(I + K/λ).
    """

    def __init__(self, ridge: float, rounds: int) -> None:
        self.ridge, self.count, self.log_determinant = ridge, 0, 0.0
        self._factor, self._kernel = np.zeros((rounds, rounds)), np.zeros((rounds, rounds))
        self._chosen: Tangents | None = None
        self._rows: tuple[Tangents, np.ndarray, np.ndarray] | None = None

    @property
    def kernel(self) -> np.ndarray:
        """(t, t) K."""
        return self._kernel[: self.count, : self.count]

    @property
    def factor(self) -> np.ndarray:
        """(t, t) lower triangle L, LLᵀ = K + λI."""
        return self._factor[: self.count, : self.count]

    def widths(self, candidates: Tangents) -> np.ndarray:
        cross = np.zeros((0, len(candidates.x))) if self._chosen is None else self._chosen.kernel(candidates)
        solved = solve_triangular(self.factor, cross, lower=True, check_finite=False) if self.count else cross
        self._rows = candidates, cross, solved
        left = candidates.squares - np.einsum("ij,ij->j", solved, solved)
        return np.sqrt(np.maximum(left, 0.0) / self.ridge)

    def add(self, row: int) -> None:
        assert self._rows is not None  # they have been looked at
        candidates, cross, solved = self._rows
        t, new = self.count, candidates[row : row + 1]
        square = float(new.squares[0])
        self._kernel[t, :t] = self._kernel[:t, t] = cross[:, row]
        self._kernel[t, t] = square
        self._factor[t, :t] = solved[:, row]
        left = square + self.ridge - float(solved[:, row] @ solved[:, row])
        if not left > 0:
            raise RegressionError(
                "the kernel is not positive beside so small a ridge", expected="λ > 0", got=self.ridge
            )
        self._factor[t, t] = np.sqrt(left)
        self.log_determinant += float(np.log(left / self.ridge))
        self._chosen = new if self._chosen is None else Tangents.join([self._chosen, new])
        self.count += 1

    def renew(self, chosen: Tangents, kernel: np.ndarray, ridge: float) -> None:
        """All gradients of one moment, their kernel (t, t), and another λ."""
        t = self.count
        self.ridge, self._chosen = ridge, chosen
        self._kernel[:t, :t] = kernel
        self._factor[:t, :t] = cholesky(kernel + ridge * np.eye(t), lower=True)
        self.log_determinant = float(2 * np.log(np.diag(self.factor)).sum() - t * np.log(ridge))


class Diagonal:
    """By the diagonal U of λI + Σ g_i g_iᵀ alone, as the released code of NeuralUCB has it: s² = Σ_j g_j²/U_j."""

    def __init__(self, ridge: float, arms: int, inputs: int, width: int) -> None:
        self.ridge, self.log_determinant = ridge, float("nan")
        self._first, self._hidden = np.full((arms, width, inputs), ridge), np.full(width, ridge)
        self._looked: Tangents | None = None

    def widths(self, candidates: Tangents) -> np.ndarray:
        self._looked = candidates
        squares = [
            back**2 @ (1 / self._first[arm]) @ x**2 + np.sum(hidden**2 / self._hidden)
            for x, arm, back, hidden in zip(
                candidates.x, candidates.arms, candidates.back, candidates.hidden, strict=True
            )
        ]
        return np.sqrt(squares)

    def add(self, row: int) -> None:
        assert self._looked is not None  # they have been looked at
        c = self._looked
        self._first[c.arms[row]] += np.outer(c.back[row] ** 2, c.x[row] ** 2)
        self._hidden += c.hidden[row] ** 2
