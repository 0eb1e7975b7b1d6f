"""Superseded: names of observables that gave way to others because what they meant misled, and why.

A name is never used again for another meaning: archives of before hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Superseded:
    """What came after a name.

    Attributes:
        by: the names to ask for instead.
        reason: one clause, what was wrong.
    """

    by: tuple[str, ...]
    reason: str


SUPERSEDED: Mapping[str, Superseded] = {
    "class_block_share": Superseded(
        ("class_pair_r2", "class_three_level_share"), "it is near 1 for any flat kernel, whatever its classes"
    ),
    "kernel_velocity": Superseded(
        ("kernel_angular_velocity",), "1 − cosine over the gap grows with the gap: it measured how snapshots are spaced"
    ),
    "gap": Superseded(
        ("subspace_rotation_bound",), "divided by λ_1 it has no scale to which a change of the kernel could be compared"
    ),
}
