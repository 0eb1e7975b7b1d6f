"""Whether a file has the form that the schema demands: names, dtypes, dimensions, sizes. Contents are not read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import h5py

from kerneltrack import schema
from kerneltrack.archive import safety
from kerneltrack.archive.contents import Contents
from kerneltrack.archive.printable import printable
from kerneltrack.errors import ArchiveFormatError, UnsafeArchiveError
from kerneltrack.schema import Field

MAX_RESTARTS = 100_000
_MAY_BE_EMPTY = frozenset({"snapshot", "energy_k"})  # before the first row; where no energies are asked for
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

_MAJOR = int(schema.FORMAT_VERSION.partition(".")[0])


def require_version(file: Contents, filename: str) -> None:
    """Refuse what is not an archive, or is of a newer major version.

    Raises:
        ArchiveFormatError: which of the two.
    """
    if file.attribute("format") != schema.FORMAT:
        raise ArchiveFormatError("this HDF5 file is not a kerneltrack archive", where=filename)
    version = file.text("format_version")
    major = version.partition(".")[0]
    if not re.fullmatch("[0-9]{1,6}", major) or int(major) > _MAJOR:
        raise ArchiveFormatError(
            "the archive is of a newer format than this reader knows",
            expected=f"format {_MAJOR}.x",
            got=printable(version),
            remedy="Install a newer kerneltrack.",
        )


def structure(file: Contents) -> Iterator[str]:
    """Every departure from the schema, one line each; nothing for a file that conforms."""
    yield from _attributes(file, schema.ROOT_ATTRIBUTES)
    role = file.attribute("role")
    if role not in ("main", "part"):
        yield "/@role is neither 'main' nor 'part'"
    rows = file["snapshot"].shape[0] if _is_array(file, "snapshot") and file["snapshot"].ndim else 0
    if role == "main" or rows:
        yield from _table(file, schema.ROOT_FIELDS, {"snapshot": rows})
    if role == "main" or "segments" in file:
        yield from _segments(file)
    if role == "main":
        yield from _texts(file.get("provenance"), "/provenance", schema.PROVENANCE_TEXTS)
    probes = file.get("probes") or {}
    if isinstance(probes, h5py.Dataset):
        yield "/probes is not a group"
        return
    for name, probe in probes.items():
        if not isinstance(probe, Contents) or not schema.PROBE_NAME.fullmatch(name):
            yield f"{printable(f'/probes/{name}')} is not a probe"
        else:
            yield from _probe(probe, rows, whole=role == "main")


def _segments(file: Contents) -> Iterator[str]:
    group = file.get("segments")
    if not isinstance(group, Contents) or not _is_array(group, "number") or not group["number"].shape[0]:
        yield "/segments is missing or empty"
    elif group["number"].shape[0] > MAX_RESTARTS:
        yield f"/segments has more than {MAX_RESTARTS} restarts"
    else:
        yield from _table(group, schema.SEGMENT_FIELDS, {"restart": group["number"].shape[0]})


def _probe(probe: Contents, rows: int, *, whole: bool) -> Iterator[str]:
    sizes = {"snapshot": rows}
    if whole:
        yield from _attributes(probe, schema.PROBE_ATTRIBUTES)
        yield from _texts(probe, probe.name, schema.PROBE_TEXTS)
        sizes["sample"] = int(probe.attribute("count", 0))
        if sizes["sample"] < 1:
            yield f"{printable(probe.name)}@count is not a number of samples"
    for field in schema.PROBE_FIELDS:
        if _is_described(probe, field.name):  # else it is netCDF's bare dimension of that name
            yield from _array(probe, field, sizes)
    for data in _inputs(probe) if whole else []:
        if data.shape[:1] != (sizes["sample"],):
            yield f"{printable(data.name)} does not have one entry for each of {sizes['sample']} samples"
    for name, data in probe.items():
        if isinstance(data, h5py.Dataset) and "dimensions" in data.attrs:
            dims = data.dimensions
            if dims[:1] == ("snapshot",):
                yield from _names(data, name, dims)
                if not isinstance(data.attribute("definition", 1), int):
                    yield f"{printable(data.name)}@definition is not an integer"
                yield from _array(probe, schema.MEASUREMENTS.get(name, Field(name, dims, "f8", "", "")), sizes)


def _names(data: h5py.Dataset, name: str, dims: tuple[str, ...]) -> Iterator[str]:
    """What a measurement is called must not mean something else, and its dimensions must be dimensions."""
    if name not in schema.MEASUREMENTS and (name in schema.RESERVED or not _NAME.fullmatch(name)):
        yield f"{printable(data.name)} has a name that an observable cannot have"
    for dim in dims[1:]:
        if not _NAME.fullmatch(dim) or (dim in schema.RESERVED and dim not in schema.DIMENSIONS) or dims.count(dim) > 1:
            yield f"{printable(data.name)} has a dimension {printable(dim)!r} that it cannot have"


def _attributes(group: Contents, demanded: Mapping[str, tuple[str, str, str]]) -> Iterator[str]:
    for name, (kind, need, _) in demanded.items():
        value = group.attribute(name)
        if value is None:
            if need == "MUST":
                yield f"{group.name}@{name} is missing"
        elif not isinstance(value, str if kind == "string" else int):
            yield f"{group.name}@{name} is not a {kind}"


def _texts(group: Contents | h5py.Dataset | None, path: str, demanded: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(group, Contents):
        yield f"{path} is missing"
        return
    for text in demanded:
        if not _is_array(group, text):
            yield f"{path}/{text} is missing"
        elif group[text].dtype != "S1" or group[text].ndim != 1:
            yield f"{path}/{text} is not a row of bytes"


def _table(group: Contents, fields: tuple[Field, ...], sizes: dict[str, int]) -> Iterator[str]:
    for field in fields:
        if _is_array(group, field.name):
            yield from _array(group, field, sizes)
        elif field.required or field.name in group:
            yield f"{group.name.rstrip('/')}/{field.name} is missing"


def _array(group: Contents, field: Field, sizes: dict[str, int]) -> Iterator[str]:
    data = group[field.name]
    if not isinstance(data, h5py.Dataset):
        yield f"{data.name} is not a dataset"
        return
    dims = data.dimensions
    if data.dtype.str[1:] not in field.dtypes or data.dtype.byteorder == ">":
        yield f"{data.name} is {printable(data.dtype)}, not {' or '.join(field.dtypes)} (little endian)"
    if dims != field.dims or len(dims) != data.ndim:
        yield f"{data.name} has dimensions {printable(dims)} in {data.ndim} axes, not {field.dims}"
        return
    for dim, size in zip(dims, data.shape, strict=True):
        expected = sizes.setdefault(dim, schema.FIXED_SIZES.get(dim, size))
        if not size and dim not in _MAY_BE_EMPTY:
            yield f"{data.name} has nothing along {printable(dim)}"
        if size != expected:
            yield f"{data.name} has {size} along {printable(dim)}, not {expected}"


def _is_array(group: Contents, name: str) -> bool:
    return isinstance(group.get(name), h5py.Dataset)


def _is_described(group: Contents, name: str) -> bool:
    return name in group and "dimensions" in group[name].attrs


def require_stored(file: Contents, held: int) -> None:
    """Refuse what would be read whole but is declared larger than it is.

    Args:
        file: what is in a file of the right form.
        held: bytes that it takes on the disk.

    Raises:
        UnsafeArchiveError: the dataset.
    """
    digests = file.get("content_sha256")
    if digests is not None and 10 * digests.id.get_storage_size() < 9 * digests.nbytes:  # no filter makes it smaller
        raise UnsafeArchiveError("more rows are declared than the file holds", got=f"{digests.shape[0]} rows")
    whole = [item for name in ("segments", "provenance") for item in _datasets(file.get(name))]
    whole += [file[name] for name in ("snapshot", "snapshot_id", "segment", "step") if name in file]
    for probe in file.get("probes", {}).values():
        names = (*schema.PROBE_TEXTS, *(field.name for field in schema.PROBE_FIELDS))
        whole += [probe[name] for name in names if _is_described(probe, name)]
        for data in _inputs(probe):
            safety.require_present(data)
    for data in whole:
        safety.require_present(data)
        if data.dtype == "S1" and data.nbytes > schema.MAX_TEXT_BYTES:
            raise UnsafeArchiveError("a text is too long", got=f"{data.nbytes} bytes", where=printable(data.name))
    safety.require_room(sum(data.nbytes for data in whole), held, "all that is read when the archive is opened")


def _inputs(probe: Contents) -> list[h5py.Dataset]:
    return [probe["inputs"]] if _is_array(probe, "inputs") else _datasets(probe.get("inputs"))


def _datasets(group: Contents | None) -> list[h5py.Dataset]:
    found = [] if group is None else group.values()
    return [item for item in found if isinstance(item, h5py.Dataset) and "dimensions" in item.attrs]
