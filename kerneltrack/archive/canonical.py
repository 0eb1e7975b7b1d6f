"""Which rows count: after a resume the steps that were taken again replace what the abandoned branch had measured."""

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
    kept = np.ones(len(step), bool)
    for later in segments:
        earlier = segment < later.number
        measured_again = bool(np.any((segment == later.number) & (step == later.resumed_from_step)))
        kept &= ~earlier | (step < later.resumed_from_step) | ((step == later.resumed_from_step) & (not measured_again))
    return kept
