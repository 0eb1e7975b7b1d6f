"""Whether two snapshots say the same, bit for bit."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from kerneltrack.snapshot import Array, Snapshot


def same_measurement(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Whether two measurements hold the same names and, bit for bit, the same arrays (NaN equals NaN)."""
    return a.keys() == b.keys() and all(
        np.asarray(a[k]).dtype == np.asarray(b[k]).dtype and np.array_equal(a[k], b[k], equal_nan=True) for k in a
    )


def same(a: Snapshot, b: Snapshot) -> bool:
    """Equal bit for bit; NaN equals NaN."""
    for field in dataclasses.fields(Snapshot):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name != "probes" and x != y and not (isinstance(x, float) and np.isnan(x) and np.isnan(y)):
            return False
    return a.probes.keys() == b.probes.keys() and all(
        same_measurement(a.probes[name], b.probes[name]) for name in a.probes
    )
