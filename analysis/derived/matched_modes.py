"""Eigenfunctions followed over time: which eigenvector of one moment goes on as which of the next, and with which sign.

Eigenvectors come in the order of their eigenvalues and with free signs. Where two eigenvalues cross, their functions swap numbers;
inside a cluster of equal eigenvalues every orthonormal basis is one. So functions w_i are followed instead of numbers: from one
moment to the next each goes to the eigenspace that holds most of it, all of them together, and inside the eigenspace to the basis
that is nearest to what came before, which for a simple eigenvalue is the vector's sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError
from kerneltrack.spectrum import cluster_ends

from ..trajectory import Floats, Ints, Run
from .profiles import rounding

#: Part of w_i that must lie on its match. Σ_j ⟨u_j, w_i⟩² ≤ 1: no other eigenvector can have as much as more than one half.
CERTAIN = 0.5


@dataclass(frozen=True, eq=False)
class MatchedModes:
    """The first eigenfunctions of the last moment, followed back to the first.

    Attributes:
        rows: (S,) of the run's dataset, ascending in steps.
        steps: (S,) t of each.
        index: (S, k) which eigenvector each function is at each moment, from 0 for the largest eigenvalue.
        overlap: (S, k) ⟨w_i(s), w_i(s+1)⟩ with the moment after, in [0, 1]; 1 at the last.
        identified: (S, k) whether it is that eigenvector without doubt: a simple eigenvalue, and overlap² above one half from here
            to the last moment. Elsewhere it is one choice among others.
        values: (S, k) λ of each.
        turns: for each moment (K, k) R with w = V R, V the K stored eigenvectors: signs, places and, in clusters, rotations.
    """

    rows: Ints
    steps: Ints
    index: Ints
    overlap: Floats
    identified: NDArray[np.bool_]
    values: Floats
    turns: tuple[Floats, ...]
    run: Run = field(repr=False)

    def functions(self, moment: int) -> Floats:
        """w_i at the s-th of the moments, (N, kept outputs, k), orthonormal over both."""
        vectors = self.run.at("eigenvectors", int(self.rows[moment]))
        return np.asarray(vectors @ self.turns[moment])


def matched_modes(run: Run, k: int | None = None, rows: Sequence[int] | None = None) -> MatchedModes:
    """Follow the first ``k`` eigenfunctions of the last moment back through the run.

    From each moment to the one before it the eigenvectors u_j are given to the functions w_i so that Σ_i ‖U_C(i)ᵀ w_i‖ is largest,
    C(i) the eigenspace of the eigenvector that w_i gets (linear assignment); for simple eigenvalues that is Σ|⟨u_j, w_i⟩|. In an
    eigenspace of several the functions are U_C Q with QᵀQ = 1 and ‖U_C Q − W‖_F least (orthogonal Procrustes, Schönemann 1966).
    Eigenvalues are equal where they differ by no more than the noise floor and both solver residuals.

    Args:
        run: it must hold eigenvectors.
        k: how many functions; None: all that are stored.
        rows: of the dataset, in any order; None: every one that holds eigenvectors.

    Raises:
        AnalysisError: no eigenvectors, fewer than k of them, or rows without any.
    """
    run.require("eigenvectors", "eigenvalues", why="following eigenfunctions")
    held = int(run.dataset.sizes["vector"])
    if (k := held if k is None else k) < 1 or k > held:
        raise AnalysisError(
            "following eigenfunctions",
            expected=f"1 ≤ k ≤ {held}, the stored eigenvectors",
            got=k,
            remedy="Take another k.",
        )
    chosen = _ascending(run, np.flatnonzero(run.measured) if rows is None else np.asarray(rows, dtype=np.int64))
    places, overlaps, simple, turns = _followed(run, chosen, k)
    certain = np.logical_and.accumulate((overlaps**2 > CERTAIN)[::-1])[::-1]
    values = np.take_along_axis(run.values("eigenvalues")[chosen], places, axis=1)
    return MatchedModes(chosen, run.steps[chosen], places, overlaps, certain & simple, values, turns, run)


def _ascending(run: Run, rows: Ints) -> Ints:
    known = np.array([bool(np.isfinite(run.at("eigenvectors", int(row))).all()) for row in rows], dtype=bool)
    if not known.any() or not run.measured[rows].any():
        raise AnalysisError(
            "no eigenvectors at these moments",
            got=rows.tolist(),
            where=run.path or None,
            remedy="Take moments of run.measured.",
        )
    rows = rows[known]
    return np.asarray(rows[np.lexsort((rows, run.steps[rows]))], dtype=np.int64)


def _followed(run: Run, rows: Ints, k: int) -> tuple[Ints, Floats, NDArray[np.bool_], tuple[Floats, ...]]:
    """Places, overlaps, whether eigenvalues are simple, and turns, from the last moment back."""
    places, overlaps, turns = np.empty((len(rows), k), np.int64), np.ones((len(rows), k)), []
    simple, after = np.empty((len(rows), k), dtype=bool), None
    for moment in range(len(rows) - 1, -1, -1):
        vectors = run.at("eigenvectors", int(rows[moment]))
        vectors = vectors.reshape(-1, vectors.shape[-1])
        ends = _ends(run, int(rows[moment]))
        if after is None:
            turn = np.eye(vectors.shape[1], k)
            places[moment] = np.arange(k)
        else:
            places[moment], turn, overlaps[moment] = matched(vectors, after, ends)
        simple[moment] = np.isin(places[moment], ends) & np.isin(places[moment] + 1, ends)
        after = vectors @ turn
        turns.append(turn)
    return places, overlaps, simple, tuple(turns[::-1])


def _ends(run: Run, row: int) -> Ints:
    """The numbers of leading eigenvalues that cut no cluster, from 0 on."""
    return np.append(0, cluster_ends(run.values("eigenvalues")[row], rounding(run, row)))


def matched(vectors: Floats, others: Floats, ends: Ints) -> tuple[Ints, Floats, Floats]:
    """Which of ``vectors`` go on as ``others``.

    Args:
        vectors: (M, K) orthonormal U, in the order of their eigenvalues.
        others: (M, k) orthonormal W, k ≤ K.
        ends: ascending from 0: where eigenspaces end; beyond K it does not matter.

    Returns:
        (k,) places j(i) in U, each once; (K, k) the turn R; (k,) the overlaps ⟨(U R)_i, w_i⟩.
    """
    from scipy.optimize import linear_sum_assignment

    products = vectors.T @ others
    edges = np.unique(np.append(ends[ends < len(products)], len(products)))
    spaces = [slice(*pair) for pair in pairwise(edges)]
    held = np.empty_like(products)
    for space in spaces:
        held[space] = np.linalg.norm(products[space], axis=0)
    found, of = linear_sum_assignment(held, maximize=True)
    places, turn = np.empty(others.shape[1], dtype=np.int64), np.zeros_like(products)
    places[of] = found
    for space in spaces:
        members = np.flatnonzero((places >= space.start) & (places < space.stop))
        if members.size:
            turn[space, members] = _nearest_basis(products[space, members])
    return places, turn, np.sum(turn * products, axis=0)


def _nearest_basis(products: Floats) -> Floats:
    """Q (d, m) with orthonormal columns, m ≤ d, for which ‖U Q − W‖_F is least: the polar factor of UᵀW."""
    left, _, right = np.linalg.svd(products, full_matrices=False)
    return np.asarray(left @ right)
