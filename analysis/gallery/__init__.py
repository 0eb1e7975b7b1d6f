"""The built-in figures, one file per question. Importing this package registers them, in the order of the report."""

from __future__ import annotations

from . import (
    alignment,
    decay,
    motion,
    pictures,
    spectrum,
)

__all__ = ["alignment", "decay", "motion", "pictures", "spectrum"]
