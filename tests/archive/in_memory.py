"""MemoryArchive: the archive without a file. It stores nothing in HDF5's way, so it can be the oracle of the file."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kerneltrack import schema
from kerneltrack.archive import fields
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import Array, ProbeRecord, Provenance, Snapshot

if TYPE_CHECKING:
    import xarray


class MemoryArchive(Sequence[Snapshot]):
    """Snapshots in a list, with the interface of both :class:`ArchiveWriter` and :class:`Archive`.

    Args:
        probes: what the snapshots are measured on.
        provenance: where they come from.
        all_segments: also show the rows that a resume superseded.
    """

    def __init__(
        self, *, probes: Iterable[ProbeRecord], provenance: Provenance | None = None, all_segments: bool = False
    ) -> None:
        self.probes = {record.name: record for record in probes}
        self.provenance = provenance or Provenance()
        self._all_segments = all_segments
        self._rows: list[tuple[int, Snapshot]] = []
        self._resumed: list[int] = []

    def append(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; what holds only NaN was not measured, and eigenvectors are float32."""
        measured = {probe: _stored(values) for probe, values in snapshot.probes.items()}
        kept = {probe: values for probe, values in measured.items() if values}
        self._rows.append((len(self._resumed), replace(snapshot, probes=kept)))

    def resume(self, *, resumed_from_step: int) -> None:
        """Start a new segment that continues a checkpoint at that step."""
        self._resumed.append(resumed_from_step)

    @property
    def rows(self) -> list[tuple[int, int, Snapshot]]:
        """Index, segment and snapshot of the rows that are shown."""
        numbered = [(index, segment, snapshot) for index, (segment, snapshot) in enumerate(self._rows)]
        return [row for row in numbered if self._all_segments or not self._superseded(row[1], row[2].step)]

    def _superseded(self, segment: int, step: int) -> bool:
        for number, start in enumerate(self._resumed, 1):
            again = any(s == number and row.step == start for s, row in self._rows)
            if segment < number and (step > start or (step == start and again)):
                return True
        return False

    @property
    def steps(self) -> Array:
        """(T,) int64: the step of every snapshot."""
        return np.array([snapshot.step for _, _, snapshot in self.rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """The snapshot at a position, or a list of those of a slice."""
        chosen = [snapshot for _, _, snapshot in self.rows]
        return chosen[index] if isinstance(index, slice) else chosen[operator.index(index)]

    def __iter__(self) -> Iterator[Snapshot]:
        return iter([snapshot for _, _, snapshot in self.rows])

    def to_xarray(self, probe: str | None = None) -> xarray.Dataset:
        """One probe's measurements as a labelled data set, all of it in memory.

        Raises:
            ArchiveError: several probes and none named, or no such probe.
        """
        import xarray

        if probe is None and len(self.probes) == 1:
            probe = next(iter(self.probes))
        if probe is None or probe not in self.probes:
            raise ArchiveError("no such probe", expected=", ".join(self.probes), got=repr(probe))
        record = self.probes[probe]
        coordinates, variables = self._root_variables()
        variables |= self._measured(probe)
        if record.targets is not None:
            variables["targets"] = (("sample", "output"), np.asarray(record.targets))
        if "energy_k" in record.settings:
            coordinates["energy_k"] = ("energy_k", np.asarray(record.settings["energy_k"], np.int64))
        for key, value in (record.inputs or {}).items():
            name = f"inputs_{key}" if key else "inputs"
            dims = ("sample", *(f"{name}_axis_{axis}" for axis in range(1, np.ndim(value))))
            variables[name] = (dims, np.asarray(value))
        texts = {"settings": dict(record.settings), "provenance": asdict(self.provenance)}
        attrs = {"probe": probe, **{key: json.dumps(value, ensure_ascii=False) for key, value in texts.items()}}
        return xarray.Dataset(variables, coords=coordinates, attrs=attrs)

    def _root_variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = [snapshot for _, _, snapshot in self.rows]
        coordinates: dict[str, Any] = {"snapshot": ("snapshot", np.array([i for i, _, _ in self.rows], np.int64))}
        for name in ("step", "epoch", "batch", "samples_seen", "wall_time", "train_seconds", "snapshot_seconds"):
            values = [getattr(snapshot, name) for snapshot in shown]
            coordinates[name] = ("snapshot", np.array(values, schema.ROOT[name].dtype))
        rates = np.full((len(shown), max([1, *(len(row.learning_rates) for _, row in self._rows)])), np.nan)
        for row, snapshot in enumerate(shown):
            rates[row, : len(snapshot.learning_rates)] = snapshot.learning_rates
        applied = {None: -1, False: 0, True: 1}
        columns: Mapping[str, Any] = {
            "training_loss": np.array([snapshot.training_loss for snapshot in shown], "f8"),
            "trigger": np.array([snapshot.trigger for snapshot in shown], object),
            "window": np.array([snapshot.window for snapshot in shown], "u1"),
            "lag": np.array([snapshot.lag or np.nan for snapshot in shown], "f8"),
            "update_applied": np.array([applied[snapshot.update_applied] for snapshot in shown], "i1"),
            "status": np.array([snapshot.status == "failed" for snapshot in shown], "u1"),
            "message": np.array([snapshot.message for snapshot in shown], object),
            "segment": np.array([segment for _, segment, _ in self.rows], "i4"),
        }
        variables: dict[str, Any] = {name: ("snapshot", values) for name, values in columns.items()}
        return coordinates, variables | {"learning_rate": (("snapshot", "param_group"), rates)}

    def _measured(self, probe: str) -> dict[str, Any]:
        shown = [snapshot.probes.get(probe, {}) for _, _, snapshot in self.rows]
        stored = [snapshot.probes.get(probe, {}) for _, snapshot in self._rows]
        found: dict[str, Array] = {name: value for values in stored for name, value in values.items()}
        variables: dict[str, Any] = {}
        for name, value in found.items():
            missing = np.full(value.shape, np.nan, value.dtype)
            stack = np.stack([values.get(name, missing) for values in shown]) if shown else missing[None][:0]
            variables[name] = (fields.measurement_field(name).dims, stack)
        return variables


def _stored(values: Mapping[str, Any]) -> dict[str, Array]:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name, value in arrays.items():
        dtypes = fields.measurement_field(name).dtypes
        arrays[name] = value.astype(value.dtype if value.dtype.str[1:] in dtypes else dtypes[-1])
    return {name: value for name, value in arrays.items() if not np.isnan(value).all()}
