"""One measurement, from what is asked to the row that is stored."""

from __future__ import annotations

from kerneltrack.measurement.eigenpairs import Eigenpairs
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.kernel_over_ranks import shared_ntk
from kerneltrack.measurement.moment import Moment, SnapshotCost
from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.recorder import KeepKernel, OnError, Recorder

__all__ = [
    "Eigenpairs",
    "Instrument",
    "KeepKernel",
    "Moment",
    "OnError",
    "Pace",
    "Recorder",
    "SnapshotCost",
    "shared_ntk",
]
