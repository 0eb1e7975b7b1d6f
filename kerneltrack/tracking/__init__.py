"""Tracking a training, whatever runs its loop: the arguments, the run, and what is asked of the loop."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from kerneltrack.tracking import arguments, continuation, given
from kerneltrack.tracking.announcements import say, scalars
from kerneltrack.tracking.control import control_run
from kerneltrack.tracking.facts import Facts, has_gradient
from kerneltrack.tracking.foreign_weights import FOREIGN
from kerneltrack.tracking.fork import Fork, copied
from kerneltrack.tracking.fork_keeper import ForkKeeper, LoopState
from kerneltrack.tracking.fork_limits import ForkLimits
from kerneltrack.tracking.gradient_clipping import UNTOLD, Bound, clipped
from kerneltrack.tracking.held_rates import put_back
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
    "Fork",
    "ForkKeeper",
    "ForkLimits",
    "LoopState",
    "Measured",
    "Options",
    "ProbeSources",
    "SteppedRun",
    "TrackedRun",
    "Tracker",
    "Update",
    "arguments",
    "check_parameters",
    "clipped",
    "continuation",
    "control_run",
    "copied",
    "given",
    "has_gradient",
    "in_training",
    "model_of",
    "optimizers_of",
    "put_back",
    "say",
    "scalars",
]
