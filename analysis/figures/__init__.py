"""Figures by name, the sheets and panels that draw them, and the files they are written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import loader

if TYPE_CHECKING:
    from .canvas import Canvas, oriented_eigenvectors
    from .catalogue import choose, registered
    from .files import Format, format_of, is_film, save, save_figure, save_film, save_runs, save_sweep
    from .gallery import overlay_figure
    from .layout import over_time, sheet
    from .moving import MovingFunctions, moving_functions
    from .notebook import drawn
    from .panels import CELLS, COLOUR_MAPS, Cells, Marks, Series, Spot, decade, told
    from .registry import Scene, figure
    from .style import DARK, PAGE, PAPER, STYLES
    from .thumbnails import extremes, image_inputs

__all__ = [
    "CELLS",
    "COLOUR_MAPS",
    "DARK",
    "PAGE",
    "PAPER",
    "STYLES",
    "Canvas",
    "Cells",
    "Format",
    "Marks",
    "MovingFunctions",
    "Scene",
    "Series",
    "Spot",
    "choose",
    "decade",
    "drawn",
    "extremes",
    "figure",
    "format_of",
    "image_inputs",
    "is_film",
    "moving_functions",
    "oriented_eigenvectors",
    "over_time",
    "overlay_figure",
    "registered",
    "save",
    "save_figure",
    "save_film",
    "save_runs",
    "save_sweep",
    "sheet",
    "told",
]

_HOME = {
    "CELLS": "panels",
    "COLOUR_MAPS": "panels",
    "Canvas": "canvas",
    "DARK": "style",
    "PAGE": "style",
    "PAPER": "style",
    "STYLES": "style",
    "Scene": "registry",
    "Series": "panels",
    "figure": "registry",
    "over_time": "layout",
    "overlay_figure": "gallery",
    "sheet": "layout",
    "Cells": "panels",
    "Marks": "panels",
    "Spot": "panels",
    "told": "panels",
    "choose": "catalogue",
    "extremes": "thumbnails",
    "image_inputs": "thumbnails",
    "decade": "panels",
    "drawn": "notebook",
    "oriented_eigenvectors": "canvas",
    "registered": "catalogue",
    "Format": "files",
    "format_of": "files",
    "is_film": "files",
    "MovingFunctions": "moving",
    "moving_functions": "moving",
    "save_film": "files",
    "save": "files",
    "save_figure": "files",
    "save_runs": "files",
    "save_sweep": "files",
}


__getattr__ = loader(__name__, _HOME)
