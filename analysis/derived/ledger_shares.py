"""What each part of an update took off the residual: the function-space ledger as shares, by cause, layer and mode."""

from __future__ import annotations

import numpy as np

from kerneltrack.observables import Ledger

from ..trajectory import Floats, Run

_BLOCK = 64


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
    """The same summed over modes, (S, 3), and of kernel flow by layer, (S, layers); NaN where there is no ledger.

    Read in blocks of rows: one by one a thousand snapshots take seconds, all at once their memory.
    """
    layers = int(run.dataset["ledger_kernel_flow"].shape[2])
    parts, by_layer = np.full((len(run), 3), np.nan), np.full((len(run), layers), np.nan)
    for start in range(0, len(run), _BLOCK):
        rows = slice(start, start + _BLOCK)
        flow, remainder, curvature, residual = (
            _block(run, name, rows)
            for name in ("ledger_kernel_flow", "ledger_remainder", "ledger_curvature", "residual_coefficients")
        )
        norm = np.einsum("sic,sic->s", residual, residual)
        causes = (flow.sum(axis=2), remainder.sum(axis=2), curvature)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts[rows] = -np.stack([np.einsum("sic,sic->s", c, residual) / norm for c in causes], axis=1)
            by_layer[rows] = -np.einsum("silc,sic->sl", flow, residual) / norm[:, None]
    parts[~run.measured], by_layer[~run.measured] = np.nan, np.nan
    return parts, by_layer


def _block(run: Run, name: str, rows: slice) -> Floats:
    """A few rows of an array as float64, NaN where it misleads."""
    block = np.array(run.dataset[name][rows].values, dtype=np.float64)
    block[run.withheld(name).rows[rows]] = np.nan
    return block
