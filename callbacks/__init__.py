"""Lightning callbacks: :class:`NTKTracker`; and :func:`run_control`, which goes on from its forks."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from .control import run_control
from .tracker import NTKTracker

__all__ = ["NTKTracker", "run_control"]
