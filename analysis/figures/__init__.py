"""Figures by name, the sheets and panels that draw them, and the files they are written to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .canvas import Canvas, oriented_eigenvectors
    from .files import save, save_figure, save_runs, save_sweep
    from .panels import COLOUR_MAPS, cell_names, decade
    from .registry import Scene, choose, registered
    from .style import DARK, PAGE, PAPER, STYLES

__all__ = [
    "COLOUR_MAPS",
    "DARK",
    "PAGE",
    "PAPER",
    "STYLES",
    "Canvas",
    "Scene",
    "cell_names",
    "choose",
    "decade",
    "oriented_eigenvectors",
    "registered",
    "save",
    "save_figure",
    "save_runs",
    "save_sweep",
]

_HOME = {
    "COLOUR_MAPS": "panels",
    "Canvas": "canvas",
    "DARK": "style",
    "PAGE": "style",
    "PAPER": "style",
    "STYLES": "style",
    "Scene": "registry",
    "cell_names": "panels",
    "choose": "registry",
    "decade": "panels",
    "oriented_eigenvectors": "canvas",
    "registered": "registry",
    "save": "files",
    "save_figure": "files",
    "save_runs": "files",
    "save_sweep": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
