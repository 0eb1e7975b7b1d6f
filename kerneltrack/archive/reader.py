"""open_archive: read an archive, also while a run writes it, snapshot by snapshot or as a labelled data set."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from kerneltrack.archive import joining, json_kinds, pieces, rows, safety
from kerneltrack.archive.canonical import is_canonical
from kerneltrack.archive.header import Segment
from kerneltrack.archive.layout import Column
from kerneltrack.archive.notebook import html_table
from kerneltrack.archive.printable import printable
from kerneltrack.errors import ArchiveError, ArchiveFormatError
from kerneltrack.snapshot import Array, ProbeRecord, Provenance, Snapshot

if TYPE_CHECKING:
    import pandas
    import xarray


def open_archive(path: str | os.PathLike[str], *, all_segments: bool = False) -> Archive:
    """Open an archive for reading; safe on a file from a stranger, and while a run is writing it.

    Args:
        path: the archive; parts that are not joined yet are found beside it.
        all_segments: also show the rows that a resumed run superseded.

    Raises:
        ArchiveError: there is no archive.
        UnsafeArchiveError: it holds something that must not be followed; nothing of it was read.
        ArchiveFormatError: it is damaged, not an archive, or of a newer major version.
    """
    return Archive(path, all_segments=all_segments)


class Archive(Sequence[Snapshot]):
    """The snapshots of one run, in the order of steps, as they were when the archive was opened.

    ``archive[i]`` reads one snapshot and no other. See :func:`open_archive`. Pickled, it is opened again by its path, as
    it was: what dask sends to other processes.
    """

    def __init__(self, path: str | os.PathLike[str], *, all_segments: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self._pieces = pieces.gather(self.path)
        try:
            self._header = joining.merged_header(self._pieces)
            self._columns = pieces.all_columns(self._pieces)
            for problem in json_kinds.departures(self._header, self._columns):
                raise ArchiveFormatError(
                    "a JSON text of the archive has the wrong type", got=problem, where=printable(path)
                )
            self._origin, self._place = pieces.row_map(self._pieces)
            self._appended, self._canonical = len(self._origin), not all_segments
            if self._canonical:
                self._drop_superseded()
        except BaseException:
            self.close()
            raise

    def _drop_superseded(self) -> None:
        kept = is_canonical(self.column("segment"), self.column("step"), self.segments)
        self._origin, self._place = self._origin[kept], self._place[kept]

    @property
    def attrs(self) -> dict[str, Any]:
        """The root attributes: format, format_version, archive_id, run_id, history, …"""
        return dict(self._header.attrs)

    @property
    def probes(self) -> dict[str, ProbeRecord]:
        """The probes by name: targets, settings, identity, and the inputs if they are stored."""
        return dict(self._header.probes)

    @property
    def provenance(self) -> Provenance:
        """Where the archive comes from."""
        return self._header.provenance

    @property
    def segments(self) -> Sequence[Segment]:
        """The starts of the run."""
        return self._header.segments

    @property
    def steps(self) -> Array:
        """(T,) int64: the step of every snapshot."""
        return self.column("step")

    @property
    def columns(self) -> Mapping[str, Column]:
        """Every column by its path in the file: its field and the shape of one row."""
        return dict(self._columns)

    def column(self, path: str, select: Any = slice(None)) -> Array:
        """Rows of a column: ``select`` is an index, a slice or an int array along the snapshots.

        Raises:
            ArchiveError: the archive was closed.
            UnsafeArchiveError: the rows that are asked for are far larger than the archive.
            KeyError: there is no such column.
        """
        self._check_open()
        column = self._columns[path]
        chosen = np.arange(len(self))[select]
        size, held = chosen.size * column.row_bytes, sum(piece.held for piece in self._pieces)
        safety.require_room(size, held, path, sparse=self._holds_a_row(path, column))
        values = np.empty((chosen.size, *column.shape), column.field.dtype)
        values[...] = np.nan if "f" in column.field.dtype else np.zeros((), column.field.dtype)
        for start, stop, number, first in joining.runs(self._origin[chosen.ravel()], self._place[chosen.ravel()]):
            if path in self._pieces[number].columns:
                joining.fill(values, column, path, joining.Stretch(self._pieces[number], first, start, stop))
        return values.reshape(chosen.shape + column.shape)

    def _holds_a_row(self, path: str, column: Column) -> bool:
        """Whether at least the bytes of one row of the column lie on the disk, not deflated, not a hole in the file."""
        return any(min(piece.stored(path), piece.held) >= column.row_bytes for piece in self._pieces)

    def __len__(self) -> int:
        return len(self._origin)

    def __getitem__(self, index: Any) -> Any:
        """The snapshot at a position (negative ones count from the end), or the snapshots of a slice as a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"snapshot {position} of an archive of {len(self)}")
        return self._snapshot(position % len(self))

    def __iter__(self) -> Iterator[Snapshot]:
        return (self._snapshot(position) for position in range(len(self)))

    def _snapshot(self, position: int) -> Snapshot:
        return _decoded(self._pieces[self._origin[position]].row(int(self._place[position])), position)

    def faults(self) -> Iterator[ArchiveError]:
        """What reading each snapshot would raise, in their order; many are read in one go, which takes a fraction of the time."""
        for start, stop, number, first in joining.runs(self._origin, self._place):
            piece = self._pieces[number]
            for begin in range(start, stop, size := piece.rows_in_a_block):
                places = range(first + begin - start, first + min(begin + size, stop) - start)
                block = _block(piece, places)
                for offset, place in enumerate(places):
                    try:
                        _decoded(piece.row(place) if block is None else block[offset], begin + offset)
                    except ArchiveError as error:
                        yield error

    def to_xarray(self, probe: str | None = None, *, by: Literal["snapshot", "step"] = "snapshot") -> xarray.Dataset:
        """One probe's measurements as a labelled data set that reads what is asked of it, when it is asked.

        Args:
            probe: the probe's name; may be left out if there is only one.
            by: what its rows are numbered by; "step" for ``sel(step=500)`` or ``sel(step=480, method="nearest")``. Data sets of two
                runs then have the rows in common that were measured at one step.

        Raises:
            ArchiveError: there is no such probe, or there are several and none was named.
        """
        from kerneltrack.archive.dataset import dataset

        found = dataset(self, self.probe_name(probe))
        return found if by == "snapshot" else found.swap_dims(snapshot="step")

    def to_datatree(self) -> xarray.DataTree:
        """Every probe's data set, as a tree with one child per probe."""
        import xarray

        return xarray.DataTree.from_dict({name: self.to_xarray(name) for name in self.probes})

    def to_dataframe(self, probe: str | None = None) -> pandas.DataFrame:
        """What is one number a snapshot of one probe, as a table of pandas: a row per snapshot, by its step.

        Args:
            probe: the probe's name; may be left out if there is only one.

        Raises:
            ArchiveError: as of :meth:`to_xarray`.
        """
        data = self.to_xarray(probe).reset_coords()
        scalars = [name for name, values in data.data_vars.items() if values.dims == ("snapshot",)]
        table: pandas.DataFrame = data[scalars].to_dataframe().set_index("step")
        return table

    def probe_name(self, probe: str | None) -> str:
        """The name of the probe that is meant.

        Raises:
            ArchiveError: there is no such probe, or there are several and none was named.
        """
        names = list(self._header.probes)
        if probe is None and len(names) == 1:
            return names[0]
        if probe is None or probe not in names:
            raise ArchiveError(
                "the archive has several probes" if probe is None else f"the archive has no probe {probe!r}",
                expected="one of " + ", ".join(names) if names else "an archive with a probe",
                where=str(self.path),
            )
        return probe

    def _check_open(self) -> None:
        if not self._pieces:
            raise ArchiveError("the archive is closed", where=str(self.path), remedy="Open it again.")

    def close(self) -> None:
        """Close the files; what was not read yet cannot be read any more."""
        pieces.close_all(self._pieces)
        self._pieces = []

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_open()
        known = (self._header.attrs["archive_id"], self._appended, len(self.segments))
        return _as_it_was, (self.path, self._canonical, *known)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Archive {self.path.name!r}: {len(self)} snapshots of {', '.join(self._header.probes) or 'no probe'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the run and its probes."""
        steps = self.steps if self._pieces else np.zeros(0, np.int64)
        rows: list[tuple[object, ...]] = [("snapshots", f"{len(self):,}")]
        rows += [("steps", f"{steps[0]:,} to {steps[-1]:,}")] if len(steps) else []
        rows += list(self.provenance.metadata.items())
        for name, record in self.probes.items():
            output = record.settings.get("output", "?")
            rows.append(
                (f"probe {name}", f"{record.count:,} points, output {output}, loss {record.settings.get('loss')}")
            )
        return html_table(self.path.name, (), rows)


def _as_it_was(path: Path, canonical: bool, archive_id: str, appended: int, starts: int) -> Archive:
    """An archive that was pickled: rows are only ever appended, so the first so many of them are those that it had."""
    archive = Archive(path, all_segments=True)
    if archive.attrs["archive_id"] != archive_id or len(archive) < appended or len(archive.segments) < starts:
        archive.close()
        raise ArchiveError("the file at this path is no longer the archive that was opened", where=printable(path))
    archive._header = replace(archive._header, segments=archive.segments[:starts])
    archive._origin, archive._place = archive._origin[:appended], archive._place[:appended]
    archive._appended, archive._canonical = appended, canonical
    if canonical:
        archive._drop_superseded()
    return archive


def _block(piece: pieces.Piece, places: range) -> list[dict[str, Array]] | None:
    """Rows of a piece; None where one of them cannot be read: then each is read by itself, which tells the damaged one."""
    try:
        return piece.block(places)
    except ArchiveError:
        return None


def _decoded(values: Mapping[str, Array], position: int) -> Snapshot:
    """The snapshot of a row.

    Raises:
        ArchiveFormatError: its digest is not that of its values.
    """
    if not np.array_equal(rows.digest(values), values["content_sha256"]):
        raise ArchiveFormatError("a snapshot is not what was written: the file is damaged", where=f"row {position}")
    measured: dict[str, dict[str, Array]] = {}
    for path, value in values.items():
        if path.startswith("probes/"):
            _, probe, name = path.split("/")
            measured.setdefault(probe, {})[name] = value
    return rows.decode(values, measured)
