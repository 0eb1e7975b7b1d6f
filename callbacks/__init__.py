"""Lightning callbacks: :class:`NTKTracker`."""

from __future__ import annotations

from .tracker import NTKTracker

__all__ = ["NTKTracker"]
