"""A snapshot as one row of columns, and back: the only place that knows how each attribute of a Snapshot is stored.

A column is named by its path in the file: ``step`` at the root, ``probes/train/eigenvalues`` for a measurement.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kerneltrack import schema
from kerneltrack.archive import fields
from kerneltrack.errors import ArchiveError
from kerneltrack.schema import Field
from kerneltrack.snapshot import Array, Snapshot

Row = dict[str, tuple[Field, Array]]  # column path -> its field and the row's value, without the snapshot dimension

_APPLIED = {True: 1, False: 0, None: -1}
_STATUS = {"ok": 0, "failed": 1}


def encode(snapshot: Snapshot, *, index: int, segment: int) -> Row:
    """The columns of one snapshot, in arrays of their own: what the caller does to its arrays later is not seen.

    Raises:
        ArchiveError: a name that is neither the schema's nor an observable's, or a value that its dtype cannot hold.
    """
    values: dict[str, Any] = {
        "snapshot": index,
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "batch": snapshot.batch,
        "samples_seen": snapshot.samples_seen,
        "wall_time": snapshot.wall_time,
        "train_seconds": snapshot.train_seconds,
        "snapshot_seconds": snapshot.snapshot_seconds,
        "learning_rate": snapshot.learning_rates or (np.nan,),
        "training_loss": snapshot.training_loss,
        "trigger": text(snapshot.trigger, schema.FIXED_SIZES["trigger_length"]),
        "window": snapshot.window,
        "lag": snapshot.lag or np.nan,
        "update_applied": _APPLIED[snapshot.update_applied],
        "status": _STATUS[snapshot.status],
        "message": text(snapshot.message, schema.FIXED_SIZES["message_length"]),
        "segment": segment,
        "snapshot_id": np.frombuffer(uuid.uuid4().bytes, "u1"),
    }
    row = {name: (schema.ROOT[name], np.array(value, schema.ROOT[name].dtype)) for name, value in values.items()}
    for probe, measurements in snapshot.probes.items():
        for name, value in measurements.items():
            if np.size(value):  # with top_k = 0 there are eigenvectors, none of them
                field = fields.measurement_field(name)
                row[f"probes/{probe}/{name}"] = stored(field, value, where=f"probe {probe!r}, step {snapshot.step}")
    field = schema.ROOT["content_sha256"]
    return row | {field.name: (field, digest({path: value for path, (_, value) in row.items()}))}


def digest(values: Mapping[str, Array]) -> Array:
    """SHA-256 of a row, by column path: the same in a part, a joined file and a copy.

    Columns that hold only NaN are left out, as are the rates of parameter groups that are not there, and this column.
    Of each other one, in the order of the paths' bytes, the path, dtype and shape are hashed, then the values.
    """
    hashed = hashlib.sha256()
    for path in sorted(values, key=str.encode):
        value = without_padding(values[path]) if path == "learning_rate" else values[path]
        if path != "content_sha256" and not is_missing(value):
            hashed.update(f"{path} {value.dtype.str[1:]} {list(value.shape)}\n".encode())
            hashed.update(np.ascontiguousarray(value).data)
    return np.frombuffer(hashed.digest(), "u1")


def is_missing(value: Array) -> bool:
    """Whether a value holds only NaN: it was not measured."""
    return value.dtype.kind == "f" and bool(np.isnan(value).all())


def without_padding(rates: Array) -> Array:
    """Learning rates without the NaN of parameter groups that are not there."""
    present = np.flatnonzero(~np.isnan(rates))
    return rates[: present[-1] + 1] if present.size else rates[:0]


def stored(field: Field, value: Any, *, where: str) -> tuple[Field, Array]:
    """A value in the dtype that its field has on disk; where two are allowed, the value's own.

    Raises:
        ArchiveError: another number of dimensions, or not real numbers.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ArchiveError(
            f"{field.name!r} does not hold real numbers", expected=field.dtype, got=str(array.dtype), where=where
        )
    if array.ndim != len(field.dims) - 1:
        raise ArchiveError(
            f"{field.name!r} has the wrong number of dimensions",
            expected=f"({', '.join(field.dims[1:])})",
            got=f"shape {array.shape}",
            where=where,
        )
    own = array.dtype.str[1:]
    dtype = own if own in field.dtypes else field.dtypes[-1]
    return replace(field, dtype=dtype), array.astype(np.dtype(dtype).newbyteorder("<"))


def decode(root: Mapping[str, Array], probes: Mapping[str, Mapping[str, Array]]) -> Snapshot:
    """The snapshot of one row; entries of ``probes`` that hold only NaN were not measured and are left out."""
    measured = {
        probe: kept
        for probe, values in probes.items()
        if (kept := {name: value for name, value in values.items() if not is_missing(value)})
    }
    return Snapshot(
        step=int(root["step"]),
        epoch=int(root["epoch"]),
        batch=int(root["batch"]),
        samples_seen=int(root["samples_seen"]),
        wall_time=float(root["wall_time"]),
        train_seconds=float(root["train_seconds"]),
        snapshot_seconds=float(root["snapshot_seconds"]),
        learning_rates=tuple(without_padding(root["learning_rate"]).tolist()),
        training_loss=float(root["training_loss"]),
        trigger=untext(root["trigger"]),
        window=int(root["window"]),
        lag=int(np.nan_to_num(root.get("lag", np.nan))),
        update_applied={1: True, 0: False}.get(int(root["update_applied"])),
        status="failed" if int(root["status"]) else "ok",
        message=untext(root["message"]),
        probes=measured,
    )


def text(value: str, size: int) -> Array:
    """UTF-8 bytes padded with zeros; what does not fit is cut between characters, and ends with "…"."""
    data = value.replace("\0", "").encode("utf-8", "replace")
    if len(data) > size:
        mark = "…".encode()
        data = data[: size - len(mark)].decode("utf-8", "ignore").encode() + mark
    return np.frombuffer(data.ljust(size, b"\0"), "S1")


def untext(value: Array) -> str:
    """The text of such bytes."""
    return value.tobytes().rstrip(b"\0").decode("utf-8", "replace")
