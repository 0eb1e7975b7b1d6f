"""Lightning callbacks: :class:`NTKTracker`."""

from __future__ import annotations

from kerneltrack.errors import explaining_what_is_missing

with explaining_what_is_missing():
    from .tracker import NTKTracker

__all__ = ["NTKTracker"]
