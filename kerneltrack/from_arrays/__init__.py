"""A snapshot from arrays: a kernel that any other code has computed, with the observables of this one. No torch here."""

from __future__ import annotations

from kerneltrack.from_arrays.snapshot import ArraySnapshot, snapshot_from_arrays

__all__ = ["ArraySnapshot", "snapshot_from_arrays"]
