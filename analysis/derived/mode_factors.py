"""ModeFactors: by how much one update shrinks the residual along each eigenvector, predicted and measured.

For the mean of ½(f − y)² and gradient descent at one learning rate η the residual obeys, while the kernel stands still,

    ⟨v_i, m_{t+1}⟩ = (1 − s η λ_i / N) ⟨v_i, m_t⟩,        s = 1 (half_mse), 2/O (mse)

(Kopitkov & Indelman 2020, §3). The measured factor projects both residuals on the *same* eigenvectors, those of t. The
prediction is refused where it would not be that one formula: another loss, another update rule, several learning rates,
or an output reduction whose eigenvectors are not those of the whole kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.conventions import no_plain_descent
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import loss_curvature, predicted_factor

from ..trajectory import Floats, Run
from ..withheld import ROUNDING, is_rounding


@dataclass(frozen=True)
class ModeFactors:
    """Factors of one update along the leading modes of the state it left.

    Attributes:
        predicted: |1 − s η λ_i / N| with the rate of the update, (k,).
        predicted_old: the same with the rate before the change, (k,).
        measured: |⟨v_i, m_{t+1}⟩ / ⟨v_i, m_t⟩|, (k,); NaN where ⟨v_i, m_t⟩ = 0.
        energy: share of ‖m_t‖² along each mode before the update, (k,).
        not_measured: why ``measured`` is NaN throughout, or "".
    """

    predicted: Floats
    predicted_old: Floats
    measured: Floats
    energy: Floats
    not_measured: str = ""


def mode_factors(run: Run, row: int, following: int, *, old: tuple[float, ...], new: tuple[float, ...]) -> ModeFactors:
    """Factors of the one update between two rows.

    Raises:
        AnalysisError: the rows are not one update apart, or the prediction does not hold for this run.
    """
    if run.steps[following] - run.steps[row] != 1:
        raise AnalysisError(
            "the factor of one update needs the states before and after it",
            got=f"snapshots at steps {run.steps[row]} and {run.steps[following]}",
            remedy="Measure with schedule=... | OnLearningRateChange(after=(0, 1, 10, 100)).",
        )
    curvature = residual_curvature(run, old, new)
    why = "the factor of one update"
    run.require("eigenvalues", "eigenvectors", "residual", why=why)
    vectors = run.at("eigenvectors", row)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    residual, next_residual = run.at("residual", row).ravel(), run.at("residual", following).ravel()
    if len(vectors) != residual.size:
        raise AnalysisError(
            "the eigenvectors and the residual live in different spaces",
            expected=f"{residual.size} components",
            got=len(vectors),
        )
    before, after = vectors.T @ residual, vectors.T @ next_residual
    values = run.values("eigenvalues")[row, : before.size]
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = np.where(before != 0, np.abs(after / before), np.nan)
        energy = before**2 / float(residual @ residual)
    predicted, predicted_old = (predicted_factor(values, rates[0], run.count, curvature) for rates in (new, old))
    if _is_rounding(run, residual / curvature, next_residual / curvature):
        finer = run.at("measured_factor", row)[: measured.size] if run.has("measured_factor") else np.empty(0)
        if np.isfinite(finer).any():  # of outputs that the tracker compared in float64
            return ModeFactors(predicted, predicted_old, finer, energy)
        return ModeFactors(predicted, predicted_old, np.full_like(measured, np.nan), energy, ROUNDING)
    return ModeFactors(predicted, predicted_old, measured, energy)


def _is_rounding(run: Run, before: Floats, after: Floats) -> bool:
    """Whether the outputs f = (f − y) + y differ by their rounding only."""
    targets = run.values("targets").ravel() if "targets" in run.dataset else np.zeros_like(before)
    return is_rounding(run, before + targets, after + targets)


def residual_curvature(run: Run, *rates: tuple[float, ...]) -> float:
    """s of the module docstring.

    Raises:
        AnalysisError: the modes do not decay one by one, and why.
    """
    reason = _reason(run, rates)
    if reason:
        raise AnalysisError(f"the predicted factor 1 − ηλ_i/N does not hold here: {reason}")
    return loss_curvature(run.settings.get("loss"), run.outputs)


def _reason(run: Run, rates: tuple[tuple[float, ...], ...]) -> str:
    return no_single_modes(run, *rates) or no_plain_descent(run.optimizers)


def no_single_modes(run: Run, *rates: tuple[float, ...]) -> str:
    """Why the modes of the residual do not go on one by one, whatever momentum does; "" where they do."""
    loss, reduction = run.settings.get("loss"), run.settings.get("output")
    if loss not in ("half_mse", "mse"):
        return f"the loss is {loss or 'not known'}, not the mean of squares"
    if reduction not in ("full", None) and run.outputs > 1:
        return f"the kernel is the {reduction!r} reduction of {run.outputs} outputs, which the dynamics mix"
    if run.settings.get("parameters") not in (None, "all that require grad"):
        return "the kernel is of some of the parameters"
    if any(len(set(group)) > 1 for group in rates):
        return "parameter groups have different learning rates"
    return ""
