"""Conventions that the engine, the observables and the analysis share: the gauge of softmax and the gain of momentum."""

from __future__ import annotations

from kerneltrack.conventions.gauge import Gauge, GaugeChoice, by_output, helmert, measured
from kerneltrack.conventions.momentum import Momentum, groups, no_plain_descent

__all__ = ["Gauge", "GaugeChoice", "Momentum", "by_output", "groups", "helmert", "measured", "no_plain_descent"]
