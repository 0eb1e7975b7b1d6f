"""The field of each measured dataset: the schema's, or one made for an observable."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kerneltrack import schema
from kerneltrack.errors import ArchiveError
from kerneltrack.schema import Field

if TYPE_CHECKING:
    from kerneltrack.observables import Observable


def observable_field(observable: Observable) -> Field:
    """The dataset of an observable: float64 rows of its dimensions, NaN where it was not measured.

    Raises:
        ArchiveError: a dimension of the observable is not one of the schema's, or its name is taken.
    """
    if observable.name in schema.RESERVED or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", observable.name):
        raise ArchiveError(
            f"an observable cannot be stored under the name {observable.name!r}",
            expected="up to 64 letters, digits and underscores that are not a name of the format",
        )
    unknown = [d for d in observable.dims if d not in schema.DIMENSIONS or d in schema.ROOT_DIMENSIONS]
    if unknown:
        raise ArchiveError(
            f"the observable {observable.name!r} has a dimension that the archive does not know",
            expected="some of " + ", ".join(d for d in schema.DIMENSIONS if d not in schema.ROOT_DIMENSIONS),
            got=", ".join(unknown),
        )
    return Field(
        observable.name,
        ("snapshot", *observable.dims),
        "f8",
        observable.units,
        observable.long_name or observable.name.replace("_", " "),
        formula=observable.formula,
        source=observable.source,
        definition=observable.definition,
        reading=observable.reading,
    )


def measurement_field(name: str) -> Field:
    """The field under which a measurement of that name is stored: the schema's, or an observable's of the catalogue.

    Raises:
        ArchiveError: the name is neither.
    """
    if name in schema.MEASUREMENTS:
        return schema.MEASUREMENTS[name]
    from kerneltrack.observables import catalogue  # its needs (SciPy) are no reader's

    entry = catalogue().get(name)
    if entry is None:
        raise ArchiveError(
            f"nothing called {name!r} can be stored",
            expected="a dataset of the schema ("
            + ", ".join(schema.MEASUREMENTS)
            + ") or an observable of the catalogue",
            remedy=f"Register an Observable named {name!r} in kerneltrack.observables before the run.",
        )
    return observable_field(entry)
