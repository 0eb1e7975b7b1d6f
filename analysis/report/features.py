"""What is said of named functions in the leading eigenspaces."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import STANDS_OUT, feature_atlas, leading_modes, own_features
from ..statements import Finding, Held
from ..text import count, number, plain
from ..trajectory import Run
from ..withheld import seen


def known_functions(run: Run) -> Finding | None:
    """How many of the archive's own functions stand out of the leading modes at the end, and which most; nothing without any."""
    try:
        functions = own_features(run)
        if not functions:
            return None  # every one is constant
        measured = run.steps[run.measured]
        found = feature_atlas(run, functions, k=leading_modes(run), steps=(measured.min(), measured.max()))
    except AnalysisError:
        return None  # no eigenvectors, or targets that have no projection on this kernel
    score = found.score[:, -1]
    if not np.isfinite(score).any():
        return None  # no permutation changes any of them
    first, last = (int(np.sum(found.score[:, column] > STANDS_OUT)) for column in (0, -1))
    best = int(np.nanargmax(score))
    told = "none" if not last else count(last)
    before = f"; at step {count(found.steps[0])} it was {count(first)}" if len(found.steps) > 1 else ""
    most = f", {plain(found.names[best])} most (z = {number(float(score[best]), 2)})" if last else ""
    in_sample = " In-sample: these points are trained on." if seen(run) == "yes" else ""
    return Finding(
        "Known functions",
        f"{count(last)} of {count(len(functions))}",
        f"At step {count(found.steps[-1])} {told} of {count(len(functions))} named functions stand out of the first "
        f"{count(found.k)} eigenfunctions{most}{before}.{in_sample}",
        f"Standing out: an energy {STANDS_OUT:g} standard deviations above that of the same values at permuted points.",
        "feature-atlas",
        Held("chance", float(score[best]), STANDS_OUT),
    )
