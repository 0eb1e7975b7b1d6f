"""One measurement, from what is asked to the row that is stored."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from kerneltrack.measurement.choice import Choice, OutputChoice, choose
from kerneltrack.measurement.eigenpairs import Eigenpairs
from kerneltrack.measurement.forecast import Forecast
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.kernel_over_ranks import shared_ntk
from kerneltrack.measurement.moment import Moment
from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.recorder import OnError, Recorder
from kerneltrack.measurement.run_probes import KeepKernel
from kerneltrack.measurement.snapshot_cost import SnapshotCost
from kerneltrack.measurement.trained_on import TrainedOn

__all__ = [
    "Choice",
    "Eigenpairs",
    "Forecast",
    "Instrument",
    "KeepKernel",
    "Moment",
    "OnError",
    "OutputChoice",
    "Pace",
    "Recorder",
    "SnapshotCost",
    "TrainedOn",
    "choose",
    "shared_ntk",
]
