"""The text of a reading: what a higher value means, a typical range, what to look at beside it."""

from __future__ import annotations


def reading(higher: str, typical: str, beside: str) -> str:
    """The three parts as text.

    >>> reading("more classes", "1 to 10", "`trace`")
    'Higher: more classes. Typical: 1 to 10. Beside it: `trace`.'
    """
    return f"Higher: {higher}. Typical: {typical}. Beside it: {beside}."


#: What several readings say.
OWN_NULL = "its `_null`, the mean over permuted targets, and its value at step 0"
ENERGY = "0 to 1; k/M for a random direction"
ALIGNED = "0 to 1; what permuted targets give is often a third of it"
IN_SAMPLE = "`probe_in_training`: on points that were trained on it is in-sample"
