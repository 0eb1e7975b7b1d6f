"""Readings: how each number of the catalogue is read. What a higher value means, a typical range, what to look at beside it.

One table a family. Ranges are of ordinary networks in ordinary training, not bounds, unless they say so. M is the number of modes.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerneltrack.observables.readings import motion, spectrum, training
from kerneltrack.observables.readings.text import reading

__all__ = ["READINGS", "reading"]

READINGS: Mapping[str, str] = {**spectrum.READINGS, **motion.READINGS, **training.READINGS}
