"""Which rows are current: after a resume, repeated steps supersede the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerneltrack.archive.header import Segment
from kerneltrack.snapshot import Array


def is_canonical(segment: Array, step: Array, segments: Sequence[Segment]) -> Array:
    """Whether each row belongs to the canonical view.

    A row of an earlier segment is superseded by a segment that was resumed from a step before it, or from its very
    step if that segment measured there itself.

    Args:
        segment: (T,) the segment of each row.
        step: (T,) the step of each row.
        segments: every start of the run.

    Returns:
        (T,) bool.
    """
    later = sorted({each.number: each for each in segments}.values(), key=lambda each: each.number)
    number = np.array([each.number for each in later], np.int64)
    start = np.array([each.resumed_from_step for each in later], np.int64)
    if not number.size:
        return np.ones(len(step), bool)
    own = np.searchsorted(number, segment).clip(max=number.size - 1)
    again = np.zeros(number.size, bool)
    again[own[(number[own] == segment) & (start[own] == step)]] = True
    # The last step that each segment leaves to those before it, and then the least of all later ones.
    left = start - (again & (start > np.iinfo(np.int64).min))
    least = np.append(np.minimum.accumulate(left[::-1])[::-1], np.iinfo(np.int64).max)
    return np.asarray(step <= least[np.searchsorted(number, segment, side="right")])
