"""The page: one self-contained HTML file about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import loader

if TYPE_CHECKING:
    from .page import write_report

__all__ = ["write_report"]

_HOME = {"write_report": "page"}


__getattr__ = loader(__name__, _HOME)
