"""Cards: the findings of a run as a page has them: what surprises first, each with its course as a sparkline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..statements import TIERS, Finding, by_surprise
from ..text import Table, number
from .sparkline import Sparkline, sparkline


@dataclass(frozen=True)
class Card:
    """A finding on the page."""

    finding: Finding
    line: Sparkline | None

    @property
    def mark(self) -> str:
        """Its tier, and how far it is beyond its limit; "" where it is held against nothing."""
        held = self.finding.held
        if held is None or not math.isfinite(held.ratio):
            return ""
        return f"{self.finding.tier}, ×{number(held.ratio, 2)}"

    @property
    def strong(self) -> bool:
        """Whether it is of the first tier."""
        return self.finding.tier == TIERS[0]


def cards_of(found: Sequence[Finding]) -> list[Card]:
    """What surprises first."""
    return [Card(one, sparkline(one.title, one.course)) for one in by_surprise(found)]


_ORDER = (
    "Against the theory: the number passes the limit up to which a rule holds of a kernel that stands still, of first order, or of "
    "a run below the edge. Beyond chance: it passes what chance gives, the mean of its null, five of its standard deviations where "
    "they are known, or ×1.1 of a control. As expected: it passes neither. Nothing to hold it against: no null and no limit.",
    "Inside a group the one comes first that is farthest beyond its own limit: × is measured over limit. These ratios have no "
    "common unit: the order says that and no more. The small lines have one point a snapshot, in the order of steps and not evenly "
    "in time, between least and greatest, on a logarithm where all is above zero and spans two decades.",
)


def order_table(cards: Sequence[Card]) -> Table:
    """What each finding is held against."""
    held = [(card.finding, card.finding.held) for card in cards if card.mark]
    rows = [
        [f.title, f.tier, h.against, number(h.measured), number(h.limit), number(h.ratio)]
        for f, h in held
        if h is not None
    ]
    heads = ["finding", "group", "held against", "measured", "limit", "measured over limit"]
    return Table("How the findings are ordered", heads, rows, _ORDER, text=frozenset({1, 2}))
