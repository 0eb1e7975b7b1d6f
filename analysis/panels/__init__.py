"""Panels: functions that draw given numbers on a given Axes and return it. They compute nothing and know no archive."""

from __future__ import annotations

from .courses import Series, band, line_plot, mark_changes, stacked, staircase, time_axis
from .maps import block_map, heat_map, mode_time_map
from .pictures import pictures
from .profiles import bars, functions, profiles, scatter_factors, slopes

__all__ = [
    "Series",
    "band",
    "bars",
    "block_map",
    "functions",
    "heat_map",
    "line_plot",
    "mark_changes",
    "mode_time_map",
    "pictures",
    "profiles",
    "scatter_factors",
    "slopes",
    "stacked",
    "staircase",
    "time_axis",
]
