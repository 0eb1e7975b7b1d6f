"""The sizes of a probe's dimensions: bound by the first row that carries them, and the same ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.rows import Row
from kerneltrack.errors import ArchiveError, ArchiveSizeError
from kerneltrack.schema import Field
from kerneltrack.snapshot import ProbeRecord


@dataclass(frozen=True)
class Sizes:
    """What is bound so far.

    Attributes:
        dimensions: probe name to dimension name to size.
        dtypes: column path to dtype, for fields that allow two.
    """

    dimensions: Mapping[str, Mapping[str, int]]
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, probes: Mapping[str, ProbeRecord], found: Sequence[Piece]) -> Sizes:
        """What the probes' records and the rows that are there already bind."""
        dimensions = {name: _declared(record) for name, record in probes.items()}
        dtypes: dict[str, str] = {}
        for piece in found:
            for path, column in piece.columns.items():
                if path.startswith("probes/"):
                    dimensions[path.split("/")[1]].update(zip(column.field.dims[1:], column.shape, strict=True))
                    dtypes[path] = column.field.dtype
        return cls(dimensions, dtypes)

    def bound(self, row: Row, *, where: str) -> Sizes:
        """The sizes once this row is in.

        Raises:
            ArchiveSizeError: the row disagrees with what is bound.
            ArchiveError: it is of a probe that the archive does not have.
        """
        dimensions = {name: dict(sizes) for name, sizes in self.dimensions.items()}
        dtypes = dict(self.dtypes)
        for path, (column, value) in row.items():
            if not path.startswith("probes/"):
                continue
            probe = path.split("/")[1]
            if probe not in dimensions:
                raise ArchiveError(
                    "the snapshot has a probe that the archive does not have",
                    got=repr(probe),
                    expected=", ".join(dimensions) or "no probe",
                    where=where,
                )
            _agree(dimensions[probe], column, value.shape, f"probe {probe!r}, {where}")
            if dtypes.setdefault(path, column.dtype) != column.dtype:
                raise ArchiveSizeError(
                    f"{column.name!r} changed its dtype",
                    expected=dtypes[path],
                    got=column.dtype,
                    where=f"probe {probe!r}, {where}",
                )
        return Sizes(dimensions, dtypes)

    def misfits(self, row: Row) -> dict[str, str]:
        """The columns of a row that disagree with what is bound, or with those before them, by path: how."""
        dimensions = {name: dict(sizes) for name, sizes in self.dimensions.items()}
        found: dict[str, str] = {}
        for path, (column, value) in row.items():
            if not path.startswith("probes/"):
                continue
            known = dimensions.setdefault(path.split("/")[1], {})
            sizes = dict(zip(column.dims[1:], value.shape, strict=True))
            other = [
                f"{size} along {dim!r} for {known[dim]}" for dim, size in sizes.items() if known.get(dim, size) != size
            ]
            if self.dtypes.get(path, column.dtype) != column.dtype:
                other.append(f"{column.dtype} for {self.dtypes[path]}")
            if other:
                found[path] = ", ".join(other)
            else:
                known.update(sizes)
        return found


def _declared(record: ProbeRecord) -> dict[str, int]:
    sizes = {"sample": record.count}
    if record.targets is not None:
        sizes["output"] = int(np.shape(record.targets)[1])
    if "energy_k" in record.settings:
        sizes["energy_k"] = len(record.settings["energy_k"])
    return sizes


def _agree(known: dict[str, int], column: Field, shape: tuple[int, ...], where: str) -> None:
    for dim, size in zip(column.dims[1:], shape, strict=True):
        if known.setdefault(dim, size) != size:
            raise ArchiveSizeError(
                f"{column.name!r} has another number of {dim!r} than the archive",
                expected=known[dim],
                got=size,
                where=where,
                remedy="Sizes are bound by the first snapshot that carries them.",
            )
