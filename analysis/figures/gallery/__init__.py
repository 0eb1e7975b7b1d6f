"""The built-in figures, one file per question. Importing this package registers them, in the order of the report."""

from __future__ import annotations

import importlib

from .overlay import overlay_figure
from .runs import runs_figure, seeds_figure, sweep_figure

__all__ = ["overlay_figure", "runs_figure", "seeds_figure", "sweep_figure"]

for _name in (
    "overview",
    "pictures",
    "functions",
    "features",
    "alignment",
    "spectrum",
    "metrics",
    "decay",
    "freeze",
    "motion",
    "classes",
    "dials",
    "estimates",
    "uncertainty",
    "learning",
    "tasks",
):
    importlib.import_module(f".{_name}", __name__)
