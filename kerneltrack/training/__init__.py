"""What a training run says of its updates: the update rule, the loss on the probe, the provenance."""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from kerneltrack.training.clipping import Clipping
from kerneltrack.training.loss import NAMES, LossName, MeanLoss, ProbeLoss
from kerneltrack.training.provenance import parameter_table, private_facts, public_facts
from kerneltrack.training.update_rule import GRADIENT_DESCENT_THRESHOLD, UpdateRule, learning_rates

__all__ = [
    "GRADIENT_DESCENT_THRESHOLD",
    "NAMES",
    "Clipping",
    "LossName",
    "MeanLoss",
    "ProbeLoss",
    "UpdateRule",
    "learning_rates",
    "parameter_table",
    "private_facts",
    "public_facts",
]
