"""The built-in figures, one file per question. Importing this package registers them, in the order of the report."""

from __future__ import annotations

from . import pictures  # noqa: I001 — the order of the report, not the alphabet
from . import alignment
from . import spectrum
from . import decay
from . import motion

__all__ = ["alignment", "decay", "motion", "pictures", "spectrum"]
