"""Lightning callbacks: :class:`NTKTracker`."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from .tracker import NTKTracker

__all__ = ["NTKTracker"]
