"""Run: what one archive says of a kernel in motion, seen through one probe: an xarray Dataset that is read on first use."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import measured
from kerneltrack.errors import AnalysisError
from kerneltrack.standard_probes import standard_name

from ..groups import Groups
from ..statements import Drawing, Forecast, Summary, forecasting, summarising
from ..withheld import Rows, Withheld, missing, off_lag, withheld
from .notebook import run_html

if TYPE_CHECKING:
    import xarray as xr

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

    def __repr__(self) -> str:
        return f"<Run {self.name!r} on probe {self.probe!r}: {len(self)} snapshots, steps {self.steps[0]} to {self.steps[-1]}>"

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def name(self) -> str:
        """The archive's file name without its ending: what legends and tables call the run."""
        return Path(self.path).stem or "run"

    @property
    def archive_id(self) -> str:
        """The archive's own identifier."""
        return str(self.dataset.attrs.get("archive_id", ""))

    @property
    def control_of(self) -> str:
        """The archive_id of the run that this one is a control of, as the archive says; "" where it says nothing."""
        return str(self.dataset.attrs.get("control_of", ""))

    @property
    def placebo_of(self) -> str:
        """The same of a placebo."""
        return str(self.dataset.attrs.get("placebo_of", ""))

    @property
    def fork_step(self) -> int | None:
        """The step of the other run's state that a control or placebo goes on from."""
        found = self.dataset.attrs.get("fork_step")
        return None if found is None else int(found)

    @property
    def batches(self) -> str:
        """Of a control: "same_batches", "other_batches" or "unverified"; "" where the archive does not say."""
        return str(self.dataset.attrs.get("batches", ""))

    @property
    def other_batches(self) -> str:
        """The word for every figure and table that shows a control whose batches are not known to be its run's; else ""."""
        if not self.control_of or self.batches == "same_batches":
            return ""
        return "unverified" if self.batches == "unverified" else "other_batches"

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
    def standard_probe(self) -> str:
        """The name of the standard probe that has these very bytes, or ""."""
        return standard_name(self.fingerprint)

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

        Numbers that mislead are NaN, see :mod:`..withheld`.

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

    def summary(self, control: Run | None = None) -> Summary:
        """Lazy or rich, at the edge or below it, aligned or not, what each change of the rate did; then every other finding.

        Args:
            control: the run that did not change the learning rate: only with it anything is called an effect. None: what lies
                beside the archive and says that it is its control.

        Raises:
            AnalysisError: nothing was measured, or the control is not comparable.
        """
        return summarising(self, control)

    @property
    def plot(self) -> Drawing:
        """Its figures: ``run.plot("stability")`` or ``run.plot.stability()``; all names by ``dir(run.plot)``."""
        return Drawing(self)

    def forecast(
        self, rate: str | float, *, steps: int | Sequence[int] = 500, at: int | None = None, kept: float | None = None
    ) -> Forecast:
        """Loss and residual per mode from a state on, at the rate that it had and at another one, while the kernel stands still.

        Of the mean of squares r_i ← (1 − sηλ_i/N) r_i (Kopitkov and Indelman 2020, section 3), with the recursion of momentum;
        of a cross-entropy the network linearised there. NaN beyond the horizon, where √e/‖Δf‖ of ``linearization_error`` e (or
        of ``anchored_linearization_error``, if larger) times the forecast way ‖f_{t+k} − f_t‖ is more than one half.

        Args:
            rate: the other rate: a factor of the one that is kept, "×0.5" ("x0.5", "*0.5"), or η itself.
            steps: how many updates; or the numbers of updates to be among those that are told.
            at: t of a measured state; None: the last one whose errors are stored.
            kept: the rate that is kept; None: that of the update which leaves the state.

        Raises:
            AnalysisError: a rate or a step that cannot be; or what the archive holds decides no forecast: another loss or
                optimizer, a reduction of several outputs, a held-out probe, no coefficients, …; the message says which argument
                of the tracker brings what is missing.
        """
        return forecasting(self, rate, steps, at, kept)

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
