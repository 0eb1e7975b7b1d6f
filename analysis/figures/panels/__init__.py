"""Panels: functions that draw given numbers on a given Axes and return it. They compute nothing and know no archive."""

from __future__ import annotations

from .courses import Scale, Series, band, decade, line_plot, logarithmic, mark_changes, spread, stacked, time_axis
from .maps import CELLS, block_map, heat_map, mode_time_map, named_map
from .pictures import COLOUR_MAPS, pictures
from .profiles import bars, below, functions, learning, profiles, ranked, scatter_factors, slopes
from .told import Cells, Marks, Spot, Told, told

__all__ = [
    "CELLS",
    "COLOUR_MAPS",
    "Cells",
    "Marks",
    "Scale",
    "Series",
    "Spot",
    "Told",
    "band",
    "bars",
    "below",
    "block_map",
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
    "told",
]
