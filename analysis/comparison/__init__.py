"""Runs side by side: aligned, averaged, swept over a number."""

from __future__ import annotations

from .comparison import Comparison, compare, defaults, group_tables, grouped, tables
from .sweep import Sweep, slope_text, sweep, sweep_table

__all__ = [
    "Comparison",
    "Sweep",
    "compare",
    "defaults",
    "group_tables",
    "grouped",
    "slope_text",
    "sweep",
    "sweep_table",
    "tables",
]
