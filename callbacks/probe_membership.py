"""Whether a probe's points are trained on: handed on from :mod:`kerneltrack.tracking`, which asks it for every loop."""

from __future__ import annotations

from kerneltrack.tracking import in_training

__all__ = ["in_training"]
