"""Aligned? Whether the leading modes hold more of the target than they would of the same labels at other points."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ...derived import DRAWS, PermutedEnergy, permuted_energy
from ...statements import UNDECIDED, Verdict
from ...text import count, number
from ...trajectory import Run
from ..findings import alignment
from .reason import reason

ALIGNED = "Aligned with the target?"
#: The share of permutations that may reach the target's energy; one in a hundred, for it stands alone.
REACHED = 0.01
#: Modes that are looked at; of few points at most a quarter, for all of them hold everything.
MODES = 20
_THRESHOLD = (
    f"aligned where fewer than {100 * REACHED:g} % of {DRAWS} permutations of the labels reach E(y, k); not aligned where "
    "E(y, k) is not above their mean"
)
_SOURCE = (
    f"E(y, k): Kopitkov and Indelman 2020 (arXiv 1910.08720); a permutation test, exact at every level (Fisher 1935); "
    f"{100 * REACHED:g} %: convention of this package"
)


def aligned(run: Run) -> Verdict:
    """Whether the target lies in the first modes at the last snapshot."""
    try:
        row, found = _permuted(run)
    except AnalysisError as error:
        return Verdict(ALIGNED, UNDECIDED, reason(error), _THRESHOLD, _SOURCE)
    mean = float(found.null.mean())
    told = f"At step {count(run.steps[row])} E(y, {found.k}) = {number(found.energy, 2)}"
    null = f"{number(mean, 2)} with permuted labels on average; at most {number(100 * found.reached, 2)} % of them reach it."
    finding = alignment(run)
    numbers = {"k": float(found.k), "target_energy": found.energy, "permuted_mean": mean, "reached": found.reached}
    answer, because = _answer(found, mean, told)
    return Verdict(ALIGNED, answer, because, _THRESHOLD, _SOURCE, null, numbers, () if finding is None else (finding,))


def _permuted(run: Run) -> tuple[int, PermutedEnergy]:
    run.require("eigenvectors", "targets", why="the answer")
    held = run.dataset["eigenvectors"].shape[-1]
    rows = np.flatnonzero(run.measured)
    latest = rows[np.argsort(run.steps[rows], kind="stable")][::-1]
    row = next((int(i) for i in latest if np.isfinite(run.at("eigenvectors", int(i))).all()), None)
    if row is None:
        raise AnalysisError("no snapshot holds whole eigenvectors", where=run.path or None)
    return row, permuted_energy(run, row, min(MODES, max(run.dimension // 4, 1), held))


def _answer(found: PermutedEnergy, mean: float, told: str) -> tuple[str, str]:
    if found.constant:
        return UNDECIDED, f"{told}, and no permutation of these labels changes it."
    if found.reached < REACHED:
        return "aligned", f"{told}, more than permuted labels have."
    if found.energy <= mean:
        return "not aligned", f"{told}, no more than permuted labels have on average."
    return UNDECIDED, f"{told}, and permuted labels reach that too often."
