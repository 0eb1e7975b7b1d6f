"""The catalogue: every observable's name, formula, unit, source and need, in one place.

One name means one number everywhere: here, in the archive, in an export and in the trainer's logger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Need = Literal[
    "eigenvalues", "eigenvectors", "kernel", "targets", "outputs", "loss", "initial", "previous", "update", "operator"
]


@dataclass(frozen=True)
class Observable:
    """One named number (or array) computed from a measured state.

    Attributes:
        name: the name in the catalogue, the archive, an export and the logger.
        formula: its definition in the notation of ``docs/notation.md``.
        units: "1" where it is dimensionless.
        source: paper and section, or "derived".
        needs: what must have been measured.
        compute: the pure function State → float or array.
        dims: the dimensions of the result beyond ``snapshot`` (names of the archive's schema); () for a scalar.
        long_name: one clause for axes and tables.
    """

    name: str
    formula: str
    units: str
    source: str
    needs: frozenset[Need]
    compute: Callable[..., Any]
    dims: tuple[str, ...] = ()
    long_name: str = ""
