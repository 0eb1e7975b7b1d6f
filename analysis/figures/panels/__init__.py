"""Panels: functions that draw given numbers on a given Axes and return it. They compute nothing and know no archive."""

from __future__ import annotations

from .courses import Scale, Series, band, decade, line_plot, logarithmic, mark_changes, spread, stacked, time_axis
from .maps import block_map, cell_names, heat_map, mode_time_map, named_map
from .pictures import COLOUR_MAPS, pictures
from .profiles import bars, below, functions, learning, profiles, ranked, scatter_factors, slopes

__all__ = [
    "COLOUR_MAPS",
    "Scale",
    "Series",
    "band",
    "bars",
    "below",
    "block_map",
    "cell_names",
    "decade",
    "functions",
    "heat_map",
    "learning",
    "line_plot",
    "logarithmic",
    "mark_changes",
    "mode_time_map",
    "named_map",
    "pictures",
    "profiles",
    "ranked",
    "scatter_factors",
    "slopes",
    "spread",
    "stacked",
    "time_axis",
]
