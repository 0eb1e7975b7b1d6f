"""What a forecast is asked for: another learning rate, and after how many updates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Ints

#: What stands before a factor: the sign itself, and what a keyboard has.
_TIMES = ("×", "x", "X", "*")
#: How many numbers of updates are told, evenly in log k.
_MOMENTS = 60
#: Each update of a cross-entropy is one product with the kernel: a million is an evening.
_MOST = 1_000_000


def rate_of(asked: str | float, kept: float) -> float:
    """The learning rate that is meant: a factor of the one that is kept ("×0.5", "x0.5", "*0.5"), or η itself.

    >>> rate_of("×0.5", 0.2), rate_of("x2", 0.2), rate_of("0.05", 0.2), rate_of(0.05, 0.2)
    (0.1, 0.4, 0.05, 0.05)

    Raises:
        AnalysisError: it is neither, or not above 0.
    """
    text = str(asked).strip()
    factor = text.startswith(_TIMES)
    try:
        value = float(text[factor:])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise AnalysisError(
            "the rate of a forecast", expected="a factor, ×0.5 or x0.5, or a learning rate above 0", got=repr(asked)
        )
    return kept * value if factor else value


def updates_of(steps: int | Sequence[int]) -> Ints:
    """The numbers of updates that are told, (K,) ascending from 0: evenly in log k up to ``steps``, or up to the last of them.

    Raises:
        AnalysisError: none, below 1 or beyond a million.
    """
    wanted = [steps] if isinstance(steps, int | np.integer) else [int(k) for k in steps]
    if not wanted or min(wanted) < 1 or max(wanted) > _MOST:
        raise AnalysisError("the updates of a forecast", expected=f"from 1 to {_MOST:,}", got=steps)
    grid = np.geomspace(1, max(wanted), _MOMENTS).round().astype(np.int64)
    return np.unique(np.concatenate([[0], grid, np.array(wanted, dtype=np.int64)]))
