"""Runs side by side: aligned, averaged, swept over a number."""

from __future__ import annotations

from .comparison import Comparison, compare, defaults, group_tables, grouped, tables
from .overlay import Course, Key, Overlay, as_dict, mean_course, overlay
from .sweep import Sweep, slope_text, sweep, sweep_table

__all__ = [
    "Comparison",
    "Course",
    "Key",
    "Overlay",
    "Sweep",
    "as_dict",
    "compare",
    "defaults",
    "group_tables",
    "grouped",
    "mean_course",
    "overlay",
    "slope_text",
    "sweep",
    "sweep_table",
    "tables",
]
