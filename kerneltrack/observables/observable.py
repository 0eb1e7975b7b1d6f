"""Observable: what one named number is, where it comes from, and what must have been measured for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kerneltrack.errors import ObservableError
from kerneltrack.observables.need import in_order
from kerneltrack.observables.readings import READINGS


@dataclass(frozen=True)
class Observable:
    """One named number (or array) computed from a measured state.

    Attributes:
        name: the name in the catalogue, the archive, an export and the logger.
        formula: its definition in the notation of ``docs/notation.md``.
        units: "1" where it is dimensionless.
        source: paper and section, or "derived".
        needs: what must have been measured, names of ``NEEDS`` ("spectrum": every eigenpair, not only the leading ones).
        compute: the pure function State → float or array; it raises ObservableError where the number does not exist.
        dims: the dimensions of the result beyond ``snapshot`` (names of the archive's schema); () for a scalar.
        long_name: one clause for axes and tables.
        default: whether it belongs to the set "default".
        reading: what a higher value means, a typical range, and what to look at beside it; in a few words each.
        definition: from 1; one more where numbers of the same name no longer mean exactly the same. An archive says
            which one its numbers follow, and a run is not resumed across two.
        anywhere: whether ``compute`` takes eigenvectors and kernels that live on a device, as those of the package do by
            :mod:`kerneltrack.linear_algebra`; else it is given NumPy's.
        spectrum_of: the kernel beside the archive's own whose spectrum it is of; "" where it is of none. One archive holds the
            spectra of two kernels at most, its own and one beside it.

    Raises:
        ObservableError: a need that no measurement offers, or an empty reading.
    """

    name: str
    formula: str
    units: str
    source: str
    needs: frozenset[str]
    compute: Callable[..., Any]
    dims: tuple[str, ...] = ()
    long_name: str = ""
    default: bool = False
    definition: int = 1
    anywhere: bool = field(default=False, kw_only=True)
    spectrum_of: str = field(default="", kw_only=True)
    reading: str = field(kw_only=True)

    def __post_init__(self) -> None:
        in_order(self.needs)  # refuses what is unknown
        if not self.reading.strip():
            raise ObservableError(
                f"the observable {self.name!r} does not say how it is read",
                expected="what a higher value means, a typical range, and what to look at beside it",
                remedy='For example reading="Higher: more classes. Typical: 1 to 10. Beside it: trace."',
            )


def observable(
    name: str,
    compute: Callable[..., Any],
    formula: str,
    *needs: str,
    source: str = "derived",
    units: str = "1",
    dims: tuple[str, ...] = (),
    long_name: str = "",
    default: bool = True,
    definition: int = 1,
    reading: str = "",
    spectrum_of: str = "",
) -> Observable:
    """An Observable of the package, written in one line; it belongs to the default set unless it says otherwise.

    Raises:
        ObservableError: neither ``reading`` nor ``readings`` says how it is read.
    """
    return Observable(
        name, formula, units, source, frozenset(needs), compute, dims, long_name, default, definition,
        anywhere=True, reading=reading or READINGS.get(name, ""), spectrum_of=spectrum_of,
    )  # fmt: skip
