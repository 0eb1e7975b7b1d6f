"""Trajectory: what the archives of one or many runs say about a kernel in motion. Reads and checks; interprets nothing.

A :class:`Run` is one archive seen through one probe, as an xarray Dataset that is read on first use. A
:class:`Trajectory` is a sequence of runs. Comparisons between runs ask :meth:`Trajectory.comparable` first: kernels of
different output reductions or on different probes are different quantities, and no figure may put them side by side.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import measured
from kerneltrack.errors import AnalysisError

from .groups import Groups
from .withheld import Rows, Withheld, missing, off_lag, withheld

if TYPE_CHECKING:
    import xarray as xr

    from kerneltrack.archive import Archive
    from kerneltrack.snapshot import InTraining

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PathLike = str | os.PathLike[str]
#: What a row says of its taking, and not of the network.
_OF_ROWS = frozenset({"wall_time", "train_seconds", "snapshot_seconds", "lag"})


@dataclass(frozen=True, eq=False)
class Run:
    """One archive seen through one probe.

    Attributes:
        dataset: the canonical rows (those that a resume superseded are dropped), dims ``snapshot``, ``mode``, ….
        probe: the probe's name.
        probes: the names of all probes in the archive.
        path: where the archive lies, as given.
        fingerprint: of the probe's bytes.
        identity: where the probe's samples come from, as the user gave it, or None.
        in_training: whether the probe is trained on, as the archive says; None where it does not (format 1.0).
        input_shapes: of the probe's inputs, whether they are stored or not.
        software: that wrote the archive.
        stored_count: N as the archive says it; 0: told from its arrays.
        off_lag: of a window: the rows that the whole run has at another lag than its own; None: found from this run.
    """

    dataset: xr.Dataset
    probe: str
    probes: tuple[str, ...] = ()
    path: str = ""
    fingerprint: str = ""
    identity: Mapping[str, Any] | None = None
    in_training: InTraining | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    software: str = ""
    stored_count: int = 0
    off_lag: Rows | None = field(default=None, repr=False)
    _read: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)
    _withheld: dict[str, Withheld] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return int(self.dataset.sizes["snapshot"])

    @property
    def name(self) -> str:
        """The archive's file name without its ending: what legends and tables call the run."""
        return Path(self.path).stem or "run"

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What was measured and how: output reduction, loss, dtype, stability scope, …."""
        return self._json("settings")

    @cached_property
    def provenance(self) -> Mapping[str, Mapping[str, Any]]:
        """The sections run, metadata, parameters, private."""
        return self._json("provenance")

    @property
    def optimizers(self) -> object:
        """What the provenance tells of the optimizers, see :mod:`kerneltrack.conventions`; None where it tells nothing."""
        told = self.provenance.get("run")
        return (told.get("optimizers") or told.get("optimizer")) if isinstance(told, Mapping) else None

    @property
    def steps(self) -> Ints:
        """Optimizer updates before each snapshot, (S,)."""
        return np.asarray(self.dataset["step"].values, dtype=np.int64)

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Which rows hold a measurement of this probe: status ok and a finite first eigenvalue (or trace), (S,)."""
        ok = np.ones(len(self), dtype=bool)
        if "status" in self.dataset:
            ok &= np.asarray(self.dataset["status"].values) == 0
        for name in ("eigenvalues", "trace"):
            if name in self.dataset:
                return ok & np.isfinite(self.values(name).reshape(len(self), -1)[:, :1]).any(axis=1)
        return ok

    @cached_property
    def taken(self) -> NDArray[np.bool_]:
        """Which rows hold anything of this probe: those measured, and the light states of a group, (S,)."""
        found = self.measured.copy()
        for name in ("outputs", "trace"):
            if name in self.dataset:
                stored = self.dataset.variables[name]  # one number a row is enough, and outputs may be many
                found |= np.isfinite(
                    np.asarray(stored.isel(dict.fromkeys(stored.dims[1:], 0)).values, dtype=np.float64)
                )
        if "status" in self.dataset:
            found &= np.asarray(self.dataset["status"].values) == 0
        return found

    @cached_property
    def gaps(self) -> Floats:
        """Updates since the state of this probe that was taken before each row; NaN where there was none, (S,)."""
        rows = np.flatnonzero(self.taken)
        rows = rows[np.argsort(self.steps[rows], kind="stable")]
        gaps = np.full(len(self), np.nan)
        gaps[rows[1:]] = np.diff(self.steps[rows])
        gaps[gaps == 0] = np.nan
        return gaps

    @property
    def count(self) -> int:
        """N, the number of probe samples."""
        return self.stored_count or self._size("sample", "targets", "outputs")

    @property
    def outputs(self) -> int:
        """O, the number of network outputs."""
        return self._size("output", "targets", "outputs")

    @property
    def dimension(self) -> int:
        """The number of modes of the whole kernel: N times the outputs that its reduction keeps."""
        if "kernel_output" in self.dataset.sizes:
            return self.count * int(self.dataset.sizes["kernel_output"])
        if self.settings.get("output") == "full":
            return self.count * (self.outputs - (self.gauge == "softmax"))
        return self.count * (self.outputs if self.settings.get("output") == "diagonal" else 1)

    @property
    def gauge(self) -> str:
        """Whether kernel and coefficients are without what softmax does not see, "softmax", or "raw"."""
        return str(self.settings.get("gauge", "raw"))

    def seen(self, phi: Floats) -> Floats:
        """A stored function (…, O) of the network's outputs as the kernel meets it; see :mod:`kerneltrack.conventions`."""
        return measured(phi, self.gauge, str(self.settings.get("output")))

    @property
    def learning_rates(self) -> Floats:
        """Learning rates of the update that leaves each state, (S, groups)."""
        return self.values("learning_rate").reshape(len(self), -1)

    def has(self, *names: str) -> bool:
        """Whether every one of ``names`` is stored with at least one finite number in a row that holds this probe."""
        return all(name in self.dataset and self._any_finite(name) for name in names)

    def values(self, name: str, *, why: str = "this analysis") -> Floats:
        """A stored array as float64, read once. Arrays over samples are large: take those row by row with :meth:`at`.

        Numbers that mislead are NaN, see :mod:`.withheld`.

        Raises:
            AnalysisError: the archive does not hold it; the message says how to get it.
        """
        if name not in self.dataset:
            raise missing(name, why, self.path)
        if name not in self._read:
            values = np.asarray(self.dataset.variables[name].values, dtype=np.float64)
            if (rows := self.withheld(name).rows).any():
                values = values.copy()
                values[rows] = np.nan
            self._read[name] = values
            self._read[name].flags.writeable = False
        return self._read[name]

    def at(self, name: str, row: int, *, why: str = "this analysis") -> Floats:
        """One row of an array along snapshots, as float64; NaN where it misleads.

        Raises:
            AnalysisError: the archive does not hold it.
        """
        values = self.stored_at(name, row, why=why)
        return np.full_like(values, np.nan) if self.withheld(name).rows[row] else values

    def stored_at(self, name: str, row: int, *, why: str = "this analysis") -> Floats:
        """One row of an array as it stands in the file, as float64.

        Raises:
            AnalysisError: the archive does not hold it.
        """
        if name not in self.dataset:
            raise missing(name, why, self.path)
        # The bare variable: a DataArray would index every coordinate too, at ten times the cost of reading one row.
        return np.asarray(self.dataset.variables[name].isel(snapshot=row).values, dtype=np.float64)

    def withheld(self, name: str) -> Withheld:
        """Which numbers of a stored array mislead, and why."""
        if name not in self._withheld:
            self._withheld[name] = withheld(self, name)
        return self._withheld[name]

    def require(self, *names: str, why: str) -> None:
        """Refuse unless every one of ``names`` is stored with at least one finite number that may be read.

        Raises:
            AnalysisError: naming the first that is missing and how to get it, or withheld and why.
        """
        for name in names:
            if not self.has(name):
                raise missing(name, why, self.path, self.withheld(name))

    def row(self, step: int) -> int | None:
        """The last measured row at exactly ``step``, or None."""
        rows = np.flatnonzero((self.steps == step) & self.measured)
        return int(rows[-1]) if rows.size else None

    def window(self, first: int | None = None, last: int | None = None) -> Run:
        """The same run between two steps, both included; None leaves that side open.

        Raises:
            AnalysisError: no snapshot lies there.
        """
        low, high = (-1 if first is None else first), (np.iinfo(np.int64).max if last is None else last)
        rows = np.flatnonzero((self.steps >= low) & (self.steps <= high))
        if not rows.size:
            raise AnalysisError(
                f"no snapshot between steps {low} and {high}",
                got=f"steps {self.steps[0]} to {self.steps[-1]}",
                where=self.path or None,
            )
        # a window does not know which state was measured before its first one
        lag = off_lag(self)[rows] if "kernel_velocity" in self.dataset and self.off_lag is None else None
        lag = self.off_lag[rows] if self.off_lag is not None else lag
        return replace(self, dataset=self.dataset.isel(snapshot=rows), off_lag=lag)

    @cached_property
    def groups(self) -> Groups:
        """The pairs and triples of consecutive states."""
        if "window" not in self.dataset:
            return Groups.of(self.steps, np.zeros(len(self), np.int64), np.full(len(self), np.nan), self.taken)
        lag = self.values("lag") if "lag" in self.dataset else np.full(len(self), np.nan)
        return Groups.of(self.steps, np.asarray(self.dataset["window"].values, dtype=np.int64), lag, self.taken)

    def pairs(self, values: Floats) -> tuple[Ints, Floats, Floats]:
        """Mean and half-difference over each pair or triple: steps t (Q,) of their first states, and both along the first axis.

        At the edge of stability what oscillates has period 2: the mean is the course, half the difference (second less
        first) its amplitude with the sign of the phase. Pairs come from ``schedule="log"``, triples from ``window=3``.

        Args:
            values: (S, …) one entry per snapshot.

        Raises:
            AnalysisError: the archive holds no pair.
        """
        if not len(self.groups):
            raise AnalysisError(
                "the archive holds no pairs of snapshots",
                where=self.path or None,
                remedy="Measure pairs: NTKTracker(schedule=kt.schedule.Every(n, window=2)).",
            )
        return self.steps[self.groups.first], *self.groups.mean_and_half_difference(
            np.asarray(values, dtype=np.float64)
        )

    @property
    def scalars(self) -> tuple[str, ...]:
        """The names of what is one number a snapshot of this probe."""
        found = (str(name) for name, data in self.dataset.data_vars.items() if data.dims == ("snapshot",))
        return tuple(sorted(n for n in found if self.dataset[n].dtype.kind == "f" and n not in _OF_ROWS))

    def _any_finite(self, name: str) -> bool:
        data = self.dataset.variables[name]
        if data.dtype.kind not in "fc" or "snapshot" not in data.dims:
            return True
        if data.ndim <= 2:
            return bool(np.isfinite(self.values(name)[self.taken]).any())
        return any(bool(np.isfinite(self.at(name, int(row))).any()) for row in np.flatnonzero(self.taken))

    def _json(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.dataset.attrs.get(name, "{}"))
        return found

    def _size(self, dim: str, *fallbacks: str) -> int:
        if dim in self.dataset.sizes:
            return int(self.dataset.sizes[dim])
        raise missing(fallbacks[0], f"the size of the dimension {dim!r}", self.path)


@dataclass(frozen=True, eq=False)
class Trajectory(Sequence[Run]):
    """One or many runs, in the order given."""

    runs: tuple[Run, ...]

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Trajectory: ...
    def __getitem__(self, index: int | slice) -> Run | Trajectory:
        return Trajectory(self.runs[index]) if isinstance(index, slice) else self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @property
    def only(self) -> Run:
        """The run, where there is exactly one.

        Raises:
            AnalysisError: there are several.
        """
        if len(self.runs) != 1:
            raise AnalysisError(
                "this analysis is of one run", expected="one archive", got=f"{len(self.runs)}: {_names(self)}"
            )
        return self.runs[0]

    @property
    def dataset(self) -> xr.Dataset:
        """The dataset of the only run."""
        return self.only.dataset

    def comparable(self) -> tuple[str, ...]:
        """Check that the runs measure the same quantity on the same probe, or on more points of the same data.

        Returns:
            Notes that a comparison must print: the same identity with other bytes, or another number of points of the
            same data, is compared, but not silently.

        Raises:
            AnalysisError: naming the runs and what differs.
        """
        for key in ("output", "loss", "parameters"):
            _same(self, f"settings[{key!r}]", [run.settings.get(key) for run in self])
        _same(
            self,
            "gauges",
            [run.gauge for run in self],
            "Measure both in one gauge: NTKTracker(gauge='raw' | 'softmax').",
        )
        notes: list[str] = []
        first = self[0]
        for run in self.runs[1:]:
            if run.fingerprint == first.fingerprint:
                continue
            if run.count != first.count and _source(run) and _source(run) == _source(first):
                notes.append(
                    f"{run.name}: {run.count} points of the data of which {first.name} has {first.count}; eigenvalues "
                    "are compared as λ_i/N"
                )
                continue
            if run.identity is None or run.identity != first.identity:
                _same(self, "probe fingerprints", [r.fingerprint for r in self])
            notes.append(
                f"{run.name}: the probe says it is the same as that of {first.name}, but its bytes differ "
                f"({run.fingerprint[:15]}… against {first.fingerprint[:15]}…)"
            )
        return tuple(notes)


def load(paths: PathLike | Iterable[PathLike], *, probe: str | None = None) -> Trajectory:
    """Open one archive or many as a trajectory.

    Args:
        paths: a path, or several.
        probe: which probe to look through; None: each archive's first.

    Raises:
        AnalysisError: no path, an archive without that probe, or without a snapshot.
        ArchiveError: a file that cannot be read as an archive.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise AnalysisError("load(paths)", expected="at least one archive", got="none")
    return Trajectory(tuple(_load(os.fspath(path), probe) for path in several))


def _load(path: str, probe: str | None) -> Run:
    from kerneltrack.archive import open_archive

    archive = open_archive(path)
    names = tuple(archive.probes)
    if not names:
        raise AnalysisError("the archive holds no probe", where=path)
    if probe is not None and probe not in names:
        raise AnalysisError(f"probe {probe!r}", expected=f"one of {', '.join(names)}", got="no such probe", where=path)
    if len(archive) == 0:
        raise AnalysisError(
            "the archive holds no snapshot yet", where=path, remedy="Wait for the run's first measurement."
        )
    return run_of(archive, probe or names[0], path)


def run_of(archive: Archive, probe: str, path: str) -> Run:
    """An open archive seen through ``probe``."""
    record = archive.probes[probe]
    return Run(
        dataset=archive.to_xarray(probe),
        probe=probe,
        probes=tuple(archive.probes),
        path=path,
        fingerprint=record.fingerprint,
        identity=record.identity,
        in_training=record.in_training,
        input_shapes=tuple(tuple(shape) for _, shape in record.input_shapes.values()),
        software=str(archive.attrs.get("source", "")),
        stored_count=record.count,
    )


def _same(
    trajectory: Trajectory,
    what: str,
    values: Sequence[Any],
    remedy: str = "Compare runs that were measured on the same probe with the same settings.",
) -> None:
    if any(value != values[0] for value in values):
        listed = "; ".join(f"{run.name}: {value}" for run, value in zip(trajectory, values, strict=True))
        raise AnalysisError(f"runs with different {what} are not comparable", got=listed, remedy=remedy)


def _source(run: Run) -> dict[str, Any]:
    """Where a probe's points come from, without which of them were drawn."""
    identity = run.identity or {}
    return {k: v for k, v in identity.items() if k not in ("indices", "seed", "n")} if "dataset" in identity else {}


def _names(trajectory: Trajectory) -> str:
    return ", ".join(run.name for run in trajectory)
