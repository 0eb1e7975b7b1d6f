"""What archives say of a kernel in motion: a run, and the trajectory of one or many."""

from __future__ import annotations

from .controls import controls_beside, controls_of, placebos_beside
from .opening import load, run_of
from .run import Floats, Ints, PathLike, Run
from .trajectory import Trajectory

__all__ = [
    "Floats",
    "Ints",
    "PathLike",
    "Run",
    "Trajectory",
    "controls_beside",
    "controls_of",
    "load",
    "placebos_beside",
    "run_of",
]
