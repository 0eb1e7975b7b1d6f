"""What an archive says once: who it is, where it comes from, on which probes, and how often the run was started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast, get_args

import h5py
import numpy as np

from kerneltrack import schema
from kerneltrack.archive import attributes, layout
from kerneltrack.archive.contents import Contents
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import Array, InTraining, ProbeRecord, Provenance


@dataclass(frozen=True)
class Segment:
    """One start of the run: its number, the step of the checkpoint that it continues (-1 for the first), and when."""

    number: int
    resumed_from_step: int
    started: float


@dataclass(frozen=True)
class Header:
    """Everything in a main file that is not a row. A part has the attributes and, at a resume, one segment."""

    attrs: Mapping[str, Any]
    segments: Sequence[Segment] = ()
    probes: Mapping[str, ProbeRecord] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)


def write(file: h5py.File, header: Header) -> None:
    """Write a header into an empty file: the same bytes, whether it was read from a file or is this process's own."""
    for name, value in sorted(header.attrs.items()):
        attributes.put(file, name, value)
    if header.segments:
        table = file.create_group("segments")
        for column in schema.SEGMENT_FIELDS:
            values = [getattr(segment, column.name) for segment in header.segments]
            layout.fixed(table, column, np.array(values))
    if header.attrs["role"] == "part":
        return
    provenance = file.create_group("provenance")
    for name, value in asdict(header.provenance).items():
        layout.put_text(provenance, name, value, schema.PROVENANCE_TEXTS[name])
    for record in header.probes.values():
        _write_probe(file.create_group(f"probes/{record.name}"), record)


def read(file: Contents) -> Header:
    """The header of a main file or a part."""
    segments: list[Segment] = []
    if "segments" in file:
        columns = [file["segments"][column.name][()].tolist() for column in schema.SEGMENT_FIELDS]
        segments = [Segment(*values) for values in zip(*columns, strict=True)]
    attrs = file.attributes()
    if attrs["role"] == "part":
        return Header(attrs, segments)
    texts = {name: layout.get_text(file["provenance"], name) for name in schema.PROVENANCE_TEXTS}
    probes = {name: _read_probe(group, name) for name, group in file.get("probes", {}).items()}
    return Header(attrs, segments, probes, Provenance(**texts))


def _write_probe(group: h5py.Group, record: ProbeRecord) -> None:
    attributes.put(group, "fingerprint", record.fingerprint)
    attributes.put(group, "count", record.count)
    attributes.put(group, "target_encoding", record.target_encoding)
    attributes.put(group, "inputs_stored", int(record.inputs is not None))
    if record.in_training is not None:
        attributes.put(group, "probe_in_training", record.in_training)
    if isinstance(gauge := record.settings.get("gauge"), str):
        attributes.put(group, "gauge", gauge)
    for name, meaning in schema.PROBE_TEXTS.items():
        layout.put_text(group, name, getattr(record, name), meaning)
    fields = {f.name: f for f in schema.PROBE_FIELDS}
    if record.targets is not None:
        layout.fixed(group, fields["targets"], record.targets)
    if "energy_k" in record.settings:
        layout.fixed(group, fields["energy_k"], np.asarray(record.settings["energy_k"]))
    for key, value in (record.inputs or {}).items():
        home = group.require_group("inputs") if key else group
        _write_input(home, key or "inputs", value)


def _write_input(home: h5py.Group, name: str, value: Array) -> None:
    value = np.asarray(value)
    if value.dtype.kind not in "biuf" or "/" in name:
        raise ArchiveError(
            f"the probe's input {name!r} cannot be stored",
            expected="real numbers under a key without '/'",
            got=str(value.dtype),
            remedy="Leave the inputs out of the probe's record.",
        )
    stored = value.astype("u1") if value.dtype.kind == "b" else value.astype("f4") if value.dtype == "f2" else value
    prefix = "input" if name == "inputs" else f"input_{name}"
    dims = ("sample", *(f"{prefix}_axis_{axis}" for axis in range(1, value.ndim)))
    layout.fixed(home, schema.Field(name, dims, stored.dtype.str[1:], "1", "input of the probe"), stored)


def _read_probe(group: Contents, name: str) -> ProbeRecord:
    texts = {text: layout.get_text(group, text) for text in schema.PROBE_TEXTS}
    shapes = _input_shapes(texts["input_shapes"])
    return ProbeRecord(
        name=name,
        fingerprint=group.text("fingerprint"),
        count=int(group.attribute("count")),
        targets=group["targets"][()] if "targets" in group and "dimensions" in group["targets"].attrs else None,
        target_encoding=group.attribute("target_encoding"),
        input_shapes=shapes,
        inputs=_read_inputs(group, shapes),
        identity=texts["identity"],
        settings=texts["settings"],
        in_training=_in_training(group.attribute("probe_in_training")),
    )


def _in_training(said: Any) -> InTraining | None:
    """What the archive says; a word that this reader does not know says nothing of the probe."""
    if said is None:
        return None
    return cast(InTraining, said) if said in get_args(InTraining) else "unknown"


def _input_shapes(value: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each input; a ValueError where the text is something else."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for key, (dtype, shape) in value.items():
        if not isinstance(dtype, str) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError("input_shapes does not give a dtype and a shape of each input")
        shapes[key] = (dtype, tuple(shape))
    return shapes


def _read_inputs(group: Contents, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Array] | None:
    if "inputs" not in group:
        return None
    item = group["inputs"]
    stored = (
        {"": item}
        if isinstance(item, h5py.Dataset)
        else {key: data for key, data in item.items() if "dimensions" in data.attrs}
    )
    return {key: _restored(data[()], shapes.get(key, ("", ()))[0]) for key, data in stored.items()}


def _restored(value: Array, dtype: str) -> Array:
    """Undo the widening of what netCDF cannot hold."""
    return value.astype({"bool": "?", "float16": "f2"}.get(dtype.removeprefix("torch."), value.dtype))
