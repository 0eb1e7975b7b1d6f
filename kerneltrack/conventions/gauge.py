"""The gauge of softmax losses: what of the outputs is measured where one function added to all of them changes nothing.

softmax(f + u1) = softmax(f), so under cross-entropy the part of f along 1 = (1, …, 1) belongs to nobody, and every number
that depends on it depends on an arbitrary choice. In the gauge "softmax" functions φ (N, O) are measured as φB, B (O, O − 1)
an orthonormal basis of what is perpendicular to 1. No number depends on which one, but for single components (a kernel's
entries, a mode's, a coefficient's of the trace kernel): so B is fixed, here and in ``docs/format.md``.

The diagonal kernel keeps an output by itself, which no basis of that space leaves its own: there φC is measured,
C = BBᵀ = I − 11ᵀ/O, with all O columns.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Gauge = Literal["raw", "softmax"]
#: The argument: "auto" is "softmax" where the loss is a cross-entropy of several outputs, and "raw" everywhere else.
GaugeChoice = Literal["auto", "raw", "softmax"]


@cache
def helmert(outputs: int) -> Array:
    """B (O, O − 1), column j = (1, …, 1, −j, 0, …, 0)/√(j(j + 1)) with j ones, j = 1, …, O − 1; BᵀB = I and 1ᵀB = 0.

    >>> helmert(3).round(3).tolist()
    [[0.707, 0.408], [-0.707, 0.408], [0.0, -0.816]]
    """
    columns = np.arange(1, outputs)
    rows = np.arange(outputs)[:, None]
    basis = np.where(rows < columns, 1.0, np.where(rows == columns, -columns, 0.0)) / np.sqrt(columns * (columns + 1.0))
    basis.flags.writeable = False
    return np.asarray(basis)


def measured(phi: Array, gauge: str, reduction: str) -> Array:
    """A function φ (…, O) of the network's outputs as the kernel of that reduction meets it; in the gauge "raw" it is φ.

    "softmax": φB (…, O − 1), and φC (…, O) for the diagonal kernel.
    """
    if gauge != "softmax":
        return phi
    if reduction == "diagonal":
        return np.asarray(phi - phi.mean(axis=-1, keepdims=True))
    return np.asarray(phi @ helmert(phi.shape[-1]))


def by_output(phi: Array, gauge: str, reduction: str) -> Array:
    """What :func:`measured` gave, with one column for each of the network's outputs again: φC (…, O), or φ."""
    if gauge != "softmax" or reduction == "diagonal":
        return phi
    return np.asarray(phi @ helmert(phi.shape[-1] + 1).T)
