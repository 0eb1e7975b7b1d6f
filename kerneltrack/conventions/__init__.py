"""What rooms share without torch: the gauge of softmax, the gain of momentum, fingerprints, and the message of a row."""

from __future__ import annotations

from kerneltrack.conventions.fingerprint import fingerprint
from kerneltrack.conventions.gauge import Gauge, GaugeChoice, by_output, helmert, measured
from kerneltrack.conventions.message import message
from kerneltrack.conventions.momentum import Momentum, alternating_gain, groups, no_plain_descent

__all__ = [
    "Gauge",
    "GaugeChoice",
    "Momentum",
    "alternating_gain",
    "by_output",
    "fingerprint",
    "groups",
    "helmert",
    "measured",
    "message",
    "no_plain_descent",
]
