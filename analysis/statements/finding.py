"""Finding: one statement on a run, with its numbers, its null and the figure that shows it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: A share this near to one is one: float64 sums of thousands of squares are off by less.
ALL = 1e-9


@dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        title: what it is about, two or three words.
        value: the number that carries it, for reading.
        sentence: the statement with its numbers.
        null: what chance or the start would give; "" where there is none.
        figure: the figure that shows it; "" where none does.
    """

    title: str
    value: str
    sentence: str
    null: str = ""
    figure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def percent(share: float) -> str:
    """A share in words."""
    # Between 99.5 % and 100 % a whole number would claim "all"; what rounding leaves of 1 is all.
    if 0.995 <= share < 1 - ALL:
        return f"{math.floor(1000 * share) / 10:.1f} %"
    return f"{100 * float(share):.0f} %"
