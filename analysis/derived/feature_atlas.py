"""Feature atlas: how much of named functions lies in the kernel's leading eigenspaces, over time, beside what chance gives.

A dictionary of functions on the probe's points (labels, Fourier modes, nuisances) is the user's; z says by how many standard
deviations a function's energy is above that of the same values at permuted points. Features of this kind: arXiv 2510.00468.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import pair_kernel, permuted_squares
from kerneltrack.spectrum import across_clusters, eigensystem

from ..trajectory import Floats, Ints, Run
from .kernels import stored_modes
from .permuted_energy import mode_squares

#: Permutations for the spread of the null; its mean is exact.
DRAWS = 200
#: How many modes the archive's own functions are told in.
_MODES = 10
#: z from which a function stands out.
STANDS_OUT = 5.0
#: A spread below this share of ‖φ‖² is rounding: no permutation changes the energy.
_EQUAL = 1e-7


@dataclass(frozen=True)
class FeatureAtlas:
    """Energies E(φ_j, k) = Σ_{i≤k} ‖⟨v_i, φ_j⟩‖²/‖φ_j‖² of F functions at R moments.

    Attributes:
        names: (F,) of the functions.
        steps: (R,) of the moments.
        k: how many modes.
        energy: (F, R) E(φ_j, k), linear in k inside a cluster of equal eigenvalues.
        null: (F, R) its exact mean over permutations of the points.
        score: (F, R) z = (E − null)/sd, sd over random permutations; NaN where no permutation changes E (a constant function).
    """

    names: tuple[str, ...]
    steps: Ints
    k: int
    energy: Floats
    null: Floats
    score: Floats

    def first(self, level: float = STANDS_OUT) -> dict[str, int | None]:
        """The first of the moments at which each function's z is above a level; None: at none."""
        passed = self.score > level
        return {
            name: int(self.steps[np.argmax(row)]) if row.any() else None
            for name, row in zip(self.names, passed, strict=True)
        }


def feature_atlas(
    run: Run,
    features: Mapping[str, Any],
    *,
    k: int = 10,
    layer: str | None = None,
    steps: Collection[int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> FeatureAtlas:
    """E(φ_j, k) of every function at every snapshot that has eigenvectors, with its null; O(F · draws · N k) each.

    Args:
        run: with eigenvectors; with ``layer``, with the observable ``layer_kernel``.
        features: name → values on the probe's points, (N,) or (N, C). A full kernel with O outputs takes (N, O).
        k: how many modes, at least 1.
        layer: of this layer's kernel Θ_l, summed over outputs, instead of the whole one.
        steps: of the snapshots at these steps; None: of all.
        draws: permutations of the points for the standard deviation, the same at every moment.
        seed: of the permutations.

    Raises:
        AnalysisError: a function does not fit the probe, is zero or not finite; fewer than k modes are stored; the archive has no
            kernel of that layer, or nothing at those steps.
    """
    if k < 1 or draws < 2 or not features:
        raise AnalysisError("a feature atlas needs a function, k ≥ 1 and two draws", got=(len(features), k, draws))
    orders = [np.random.default_rng(seed + draw).permutation(run.count) for draw in range(draws)]
    kept = run.measured if steps is None else run.measured & np.isin(run.steps, list(steps))
    found, at = [], []
    for step, vectors, ends in _layers(run, layer, kept) if layer else _stored(run, kept):
        if vectors.shape[1] < k:
            raise AnalysisError(
                "too few modes for a feature atlas", expected=k, got=vectors.shape[1], where=run.path or None
            )
        reduction = "trace" if len(vectors) == run.count else "full"
        columns = [_column(run, name, values, len(vectors)) for name, values in features.items()]
        at.append(step)
        found.append([_told(vectors, ends, phi, k, reduction, orders) for phi in columns])
    if not found:
        raise AnalysisError("no such snapshot has eigenvectors", where=run.path or None)
    energy, null, score = np.array(found).transpose(2, 1, 0)
    return FeatureAtlas(tuple(features), np.array(at), k, energy, null, score)


def own_features(run: Run) -> dict[str, Floats]:
    """The functions that every archive has: each column of the targets, and of stored inputs mean and norm, as nuisances.

    Where the kernel has several outputs, a column of the targets is at its own output, zero at the others, and a nuisance is at all
    of them alike, which softmax does not see. Of a callable's outputs there are no targets.
    """
    targets = run.values("targets") if "targets" in run.dataset else np.zeros((run.count, 0))
    found = {f"target {o + 1}" if targets.shape[1] > 1 else "target": targets[:, [o]] for o in range(targets.shape[1])}
    if "inputs" in run.dataset:
        inputs = np.asarray(run.dataset["inputs"].values, dtype=np.float64).reshape(run.count, -1)
        found |= {"mean of x": inputs.mean(axis=1, keepdims=True), "norm of x": np.linalg.norm(inputs, axis=1)[:, None]}
    known = {name: values for name, values in found.items() if np.isfinite(values).all() and np.ptp(values) > 0}
    return known if run.dimension == run.count else _placed(run, known)


def _placed(run: Run, functions: Mapping[str, Floats]) -> dict[str, Floats]:
    """Functions (N, 1) as a kernel of several outputs meets them, (N, K)."""
    kept, whole = run.dimension // run.count, run.settings.get("output") != "callable"
    found = {}
    for name, values in functions.items():
        if not name.startswith("target"):
            if run.gauge == "raw":
                found[name] = np.repeat(values, kept, axis=1)
        elif whole:
            own = np.arange(run.outputs) == int(name.split()[-1]) - 1
            found[name] = run.seen(values * own)
    return found


def leading_modes(run: Run) -> int:
    """How many modes the archive's own functions are told in: ten, or half of the points, or what is stored."""
    return min(_MODES, int(run.dataset.sizes.get("vector", 0)), max(1, run.count // 2))


def _stored(run: Run, kept: NDArray[np.bool_]) -> Iterator[tuple[int, Floats, Ints]]:
    """(step, (M, modes) eigenvectors, ends of clusters) of each measured snapshot."""
    run.require("eigenvectors", "eigenvalues", why="a feature atlas")
    for row in map(int, np.flatnonzero(kept)):
        vectors, ends = stored_modes(run, row)
        if np.isfinite(vectors).all():
            yield int(run.steps[row]), vectors, ends


def _layers(run: Run, layer: str, kept: NDArray[np.bool_]) -> Iterator[tuple[int, Floats, Ints]]:
    run.require("layer_kernel", why="a feature atlas of a layer")
    layers = [str(name) for name in run.dataset["layer"].values]
    if layer not in layers:
        raise AnalysisError("no such layer", expected=", ".join(layers), got=layer, where=run.path or None)
    for row in map(int, np.flatnonzero(kept)):
        kernel = run.at("layer_kernel", row)[layers.index(layer)]
        if np.isfinite(kernel).all():
            pairs = eigensystem(pair_kernel(kernel))
            yield int(run.steps[row]), np.asarray(pairs.vectors), pairs.cluster_ends


def _column(run: Run, name: str, values: Any, rows: int) -> Floats:
    """A function as (N, C), checked."""
    phi = np.asarray(values, dtype=np.float64)
    phi = phi[:, None] if phi.ndim == 1 else phi
    if phi.ndim != 2 or len(phi) != run.count or (rows != run.count and phi.size != rows):
        expected = f"({run.count},) or ({run.count}, C)" if rows == run.count else f"({run.count}, {rows // run.count})"
        raise AnalysisError(
            f"the function {name!r} does not fit the probe and its kernel", expected=expected, got=np.shape(values),
            where=run.path or None,
        )  # fmt: skip
    if not np.isfinite(phi).all() or not np.any(phi):
        raise AnalysisError(
            f"the function {name!r} is zero or not finite, so it has no direction", where=run.path or None
        )
    return phi


def _told(
    vectors: Floats, ends: Ints, phi: Floats, k: int, reduction: str, orders: list[Any]
) -> tuple[float, float, float]:
    """(E, exact null, z) of one function at one moment."""
    size, upto = float(np.sum(phi**2)), int(ends[np.searchsorted(ends, k)])  # whole clusters decide a part of one
    leading, inside = vectors[:, :upto], ends[ends <= upto]

    def energies(squares: Floats) -> Floats:
        return np.asarray(across_clusters(np.cumsum(squares, axis=0), inside)[k - 1]) / size

    null, own = (float(energies(s)) for s in (permuted_squares(leading, phi, reduction), mode_squares(leading, phi)))
    drawn = np.stack([mode_squares(leading, phi[order]) for order in orders], axis=1)
    spread = float(np.std(energies(drawn), ddof=1))
    return own, null, (own - null) / spread if spread > _EQUAL else float("nan")
