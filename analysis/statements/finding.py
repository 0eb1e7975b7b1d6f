"""Finding: one statement on a run, with its numbers, its null, what it is held against, and the figure that shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

#: A share this near to one is one: float64 sums of thousands of squares are off by less.
ALL = 1e-9

#: How surprising a finding is, from the most: see :attr:`Finding.tier`.
TIERS = ("against the theory", "beyond chance", "as expected", "nothing to hold it against")


@dataclass(frozen=True)
class Held:
    """What a finding is held against.

    Attributes:
        against: "theory": of a kernel that stands still, of first order, below the edge; "chance": random directions, permuted
            labels, other batches, a control.
        measured: the number that carries the finding.
        limit: of the same unit, above zero: up to where the theory's rule holds, or what chance gives (five of its standard
            deviations where they are known).
    """

    against: Literal["theory", "chance"]
    measured: float
    limit: float

    @property
    def ratio(self) -> float:
        """Measured over limit; NaN where either is not known."""
        return self.measured / self.limit if self.limit > 0 else math.nan


@dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        title: what it is about, two or three words.
        value: the number that carries it, for reading.
        sentence: the statement with its numbers.
        null: what chance or the start would give; "" where there is none.
        figure: the figure that shows it; "" where none does.
        held: what it is held against; None where there is nothing.
        course: (step, value) of the number over the run; empty where it has no course.
    """

    title: str
    value: str
    sentence: str
    null: str = ""
    figure: str = ""
    held: Held | None = None
    course: tuple[tuple[int, float], ...] = field(default=(), repr=False)

    @property
    def tier(self) -> str:
        """Of :data:`TIERS`: whether it passes the limit of the theory, or that of chance, or neither, or has none."""
        if self.held is None or not math.isfinite(self.held.ratio):
            return TIERS[3]
        if self.held.ratio < 1:
            return TIERS[2]
        return TIERS[0] if self.held.against == "theory" else TIERS[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the course stays in the archive."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("held", "course")}
        known = self.held is not None and math.isfinite(self.held.ratio)
        return {**told, "tier": self.tier, "held": asdict(self.held) if known and self.held is not None else None}


def by_surprise(findings: Iterable[Finding]) -> list[Finding]:
    """Tier by tier, in a tier the one first that is farthest beyond its own limit, measured over limit; else as they came.

    Ratios of different quantities have no common unit: inside a tier the order says which is farther beyond its own limit, and no
    more than that.
    """

    def key(finding: Finding) -> tuple[int, float]:
        ratio = finding.held.ratio if finding.held is not None and finding.tier != TIERS[3] else 0.0
        return TIERS.index(finding.tier), -ratio

    return sorted(findings, key=key)


def percent(share: float) -> str:
    """A share in words."""
    # Between 99.5 % and 100 % a whole number would claim "all"; what rounding leaves of 1 is all.
    if 0.995 <= share < 1 - ALL:
        return f"{math.floor(1000 * share) / 10:.1f} %"
    return f"{100 * float(share):.0f} %"
