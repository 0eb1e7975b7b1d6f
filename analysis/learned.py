"""What each part of an update took off the residual: the function-space ledger as shares, by cause, layer and mode."""

from __future__ import annotations

import numpy as np

from kerneltrack.observables import Ledger

from .trajectory import Floats, Run


def ledger_of(run: Run, row: int) -> tuple[Ledger, Floats]:
    """The stored ledger of the update that leaves a row, and the residual's coefficients (mode, C) there."""
    flow, remainder = (run.at(f"ledger_{part}", row) for part in ("kernel_flow", "remainder"))
    curvature = run.at("ledger_curvature", row)
    layers = tuple(str(i) for i in range(flow.shape[1]))
    total = flow.sum(axis=1) + remainder.sum(axis=1) + curvature
    return Ledger(layers, flow, remainder, curvature, total), run.at("residual_coefficients", row)


def learned_modes(run: Run, row: int) -> Floats:
    """−⟨part, m⟩/‖m‖² (3, mode): kernel flow, remainder, curvature; see :meth:`kerneltrack.observables.Ledger.learned`."""
    ledger, residual = ledger_of(run, row)
    return ledger.learned(residual)


def learned_shares(run: Run) -> tuple[Floats, Floats]:
    """The same summed over modes, (S, 3), and of kernel flow by layer, (S, layers); NaN where there is no ledger."""
    layers = int(run.dataset["ledger_kernel_flow"].shape[2])
    parts, by_layer = np.full((len(run), 3), np.nan), np.full((len(run), layers), np.nan)
    for row in np.flatnonzero(run.measured):
        ledger, residual = ledger_of(run, int(row))
        if not np.isfinite(ledger.total).all():
            continue
        parts[row] = ledger.learned(residual).sum(axis=1)
        by_layer[row] = -np.einsum("ilc,ic->l", ledger.kernel_flow, residual) / np.vdot(residual, residual)
    return parts, by_layer
