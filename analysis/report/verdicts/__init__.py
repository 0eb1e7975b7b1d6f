"""The answers to what people ask of a run, each a word with its number, its null and the threshold that the word stands for."""

from __future__ import annotations

from .aligned import ALIGNED, aligned
from .edge import EDGE, edge
from .lazy_or_rich import LAZY_OR_RICH, lazy_or_rich
from .rate import RATE, rates

__all__ = ["ALIGNED", "EDGE", "LAZY_OR_RICH", "RATE", "aligned", "edge", "lazy_or_rich", "rates"]
