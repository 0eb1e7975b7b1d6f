"""Two kernels of one archive: its own beside S^½ΘS^½, the metric of the loss, or beside J P Jᵀ, that of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Ints, Run

#: What an archive may hold beside its own spectrum → what it is called.
KERNELS = {"loss_weighted_eigenvalues": "the loss-weighted kernel", "optimizer_eigenvalues": "the optimizer's kernel"}
#: Spectra over their first eigenvalues that differ by less are one: two solves in float32 agree to that.
_EQUAL = 1e-4


@dataclass(frozen=True)
class WeightedSpectrum:
    """The spectra of two kernels of the same network at R moments.

    Attributes:
        kernel: what the other one is called.
        name: the observable that holds its eigenvalues.
        steps: (R,) of the moments.
        own: (R, M) λ_i(Θ), descending.
        other: (R, M) λ_i of the other kernel, descending.
    """

    kernel: str
    name: str
    steps: Ints
    own: Floats
    other: Floats

    @property
    def own_ratio(self) -> Floats:
        """(R,) participation ratio (Σλ)²/Σλ² of Θ, over the eigenvalues that are stored."""
        return _participation(self.own)

    @property
    def other_ratio(self) -> Floats:
        """(R,) the same of the other kernel."""
        return _participation(self.other)

    @property
    def proportional(self) -> bool:
        """Whether both are one spectrum up to a factor: a mean of squares, or an optimizer with one rate."""
        return bool(np.allclose(_scaled(self.own), _scaled(self.other), atol=_EQUAL, rtol=0))


def weighted_spectrum(run: Run) -> WeightedSpectrum:
    """Both spectra at every snapshot that has both.

    Raises:
        AnalysisError: the archive holds no second spectrum, or at no moment beside its own.
    """
    name = next((name for name in KERNELS if run.has(name)), None)
    if name is None:
        raise AnalysisError(
            f"comparing two kernels needs {' or '.join(map(repr, KERNELS))}",
            where=run.path or None,
            remedy="Measure one of them: NTKTracker(observables=['default', 'optimizer_eigenvalues']).",
        )
    run.require("eigenvalues", why="comparing two kernels")
    own, other = run.values("eigenvalues"), run.values(name)
    rows = np.flatnonzero(run.measured & np.isfinite(own).all(axis=1) & np.isfinite(other).all(axis=1))
    rows = rows[(own[rows, 0] > 0) & (other[rows, 0] > 0)]
    if not rows.size:
        raise AnalysisError(f"no snapshot has both 'eigenvalues' and {name!r}", where=run.path or None)
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    return WeightedSpectrum(KERNELS[name], name, run.steps[rows], own[rows], other[rows])


def _participation(values: Floats) -> Floats:
    return np.asarray(values.sum(axis=1) ** 2 / np.sum(values**2, axis=1))


def _scaled(values: Floats) -> Floats:
    return np.asarray(values / values[:, :1])
