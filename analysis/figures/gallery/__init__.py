"""The built-in figures, one file per question. Importing this package registers them, in the order of the report."""

from __future__ import annotations

from .runs import runs_figure, seeds_figure, sweep_figure

__all__ = ["runs_figure", "seeds_figure", "sweep_figure"]
