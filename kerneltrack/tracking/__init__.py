"""Tracking a training, whatever runs its loop: the arguments, the run, and what is asked of the loop."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from kerneltrack.tracking import given
from kerneltrack.tracking.announcements import say, scalars
from kerneltrack.tracking.facts import Facts, has_gradient
from kerneltrack.tracking.foreign_weights import FOREIGN
from kerneltrack.tracking.gradient_clipping import UNTOLD, Bound, clipped
from kerneltrack.tracking.loop import check_parameters, model_of, optimizers_of
from kerneltrack.tracking.measured import Measured
from kerneltrack.tracking.options import Options
from kerneltrack.tracking.probe_membership import Drawn, in_training
from kerneltrack.tracking.probe_sources import ProbeSources
from kerneltrack.tracking.stepped_run import SteppedRun
from kerneltrack.tracking.tracked_run import TrackedRun
from kerneltrack.tracking.tracker import Tracker, Update

__all__ = [
    "FOREIGN",
    "UNTOLD",
    "Bound",
    "Drawn",
    "Facts",
    "Measured",
    "Options",
    "ProbeSources",
    "SteppedRun",
    "TrackedRun",
    "Tracker",
    "Update",
    "check_parameters",
    "clipped",
    "given",
    "has_gradient",
    "in_training",
    "model_of",
    "optimizers_of",
    "say",
    "scalars",
]
