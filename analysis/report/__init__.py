"""What a run says: one self-contained HTML page, and the same findings as a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import loader

if TYPE_CHECKING:
    from .page import write_report
    from .summarised import summary_of

__all__ = ["summary_of", "write_report"]

_HOME = {"summary_of": "summarised", "write_report": "page"}


__getattr__ = loader(__name__, _HOME)
