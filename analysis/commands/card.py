"""The dataset card of a published archive: Markdown with the head in YAML that dataset hubs read.

Everything in it comes from the published copy: nothing that :func:`kerneltrack.archive.publish` took out can be in it.
Texts of an archive are strangers' texts: in the head they are quoted, in the body what Markdown would act on is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kerneltrack.archive import Archive, Column
from kerneltrack.formatting import format_bytes

from ..text import Table, count, markdown, quoted
from .show import overview, tables

TAGS = ("kerneltrack", "neural-tangent-kernel", "training-dynamics", "hdf5", "netcdf")
#: What of the run's provenance says how the network was trained, in this order.
_TRAINING = (
    "model",
    "loss",
    "optimizers",
    "clipping",
    "seed",
    "precision",
    "device",
    "strategy",
    "world_size",
    "schedule",
)
#: The classes by which hubs sort data sets: the first bound above the number of rows.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST_ROWS = 300


def card(archive: Archive, name: str, size: int) -> str:
    """The card's text.

    Args:
        archive: the published copy, with its licence, authors and contact.
        name: what the file will be called.
        size: its bytes.
    """
    parts = [
        _head(archive),
        *_about(archive, name, size),
        *_contents(archive, name),
        *_making(archive),
        *_reading(archive, name),
    ]
    return "\n".join([*parts, *_citing(archive)]) + "\n"


def title(archive: Archive) -> str:
    """What the data set is called: the archive's own title, or what it holds."""
    given = str(archive.attrs.get("title") or "").strip()
    return given or f"Snapshots of a tangent kernel while a network trains, run {archive.attrs['run_id']}"


def is_identifier(licence: str) -> bool:
    """Whether a licence is one identifier of SPDX: neither a name of one's own nor an expression of several."""
    return re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.+-]+", licence) is not None


def _head(archive: Archive) -> str:
    """What hubs read. A licence that is no single identifier of SPDX is called other, with its name."""
    licence = str(archive.attrs["license"])
    licences = (
        [f"license: {licence.lower()}"]
        if is_identifier(licence)
        else ["license: other", f"license_name: {quoted(licence)}"]
    )
    rows = len(archive)
    category = next((name for bound, name in _SIZES if rows < bound), "1M<n<10M")
    lines = ["---", f"pretty_name: {quoted(title(archive))}", *licences, "tags:", *(f"- {tag}" for tag in TAGS)]
    return "\n".join([*lines, "size_categories:", f"- {category}", "viewer: false", "---", ""])


def _about(archive: Archive, name: str, size: int) -> Iterator[str]:
    attrs = archive.attrs
    yield f"# {markdown(title(archive))}\n"
    yield (
        f"{count(len(archive))} snapshots of a network's tangent kernel, taken while it trained, in one file of "
        f"{format_bytes(size)}: {markdown(name)}. It is an archive of the format kerneltrack "
        f"{markdown(attrs['format_version'])}, an HDF5 file that is also a netCDF-4 file, and is read without kerneltrack.\n"
    )
    yield f"- Licence: {markdown(attrs['license'])}"
    yield f"- Authors: {markdown(attrs['creator_name'])}"
    yield f"- Contact: {markdown(attrs['creator_email'])}"
    yield f"- Begun: {markdown(attrs['date_created'])}; written by {markdown(attrs['source'])}"
    yield "- Left out: the names of host and user, the command and absolute paths.\n"


def _contents(archive: Archive, name: str) -> Iterator[str]:
    yield "## What is in it\n"
    for table in tables(overview(archive, name)):
        yield _table(table)
    for probe, record in archive.probes.items():
        stored = "stored" if record.inputs else "left out"
        targets = "stored" if record.targets is not None else "left out"
        yield f"The inputs of probe {markdown(probe)} are {stored}, its targets {targets}.\n"
    yield _table(Table("", ("dataset", "dimensions", "type", "meaning"), list(_datasets(archive.columns))))


def _datasets(columns: Mapping[str, Column]) -> Iterator[Sequence[str]]:
    """One row for each of the first columns, and one that says how many more there are."""
    for path, column in list(columns.items())[:_MOST_ROWS]:
        sizes = ", ".join(map(str, ("T", *column.shape)))
        yield path, f"{' '.join(column.field.dims)}: ({sizes})", column.field.dtype, column.field.long_name
    if len(columns) > _MOST_ROWS:
        yield f"and {len(columns) - _MOST_ROWS} more", "", "", ""


def _making(archive: Archive) -> Iterator[str]:
    """How the run was made, as its provenance says."""
    run = archive.provenance.run
    yield "## How it was made\n"
    yield from _list({key: run[key] for key in _TRAINING if run.get(key) not in (None, "", {}, [])})
    yield from _list(
        {"versions": run.get("versions") or "not stored", "parameters": f"{len(archive.provenance.parameters)} tensors"}
    )
    for probe, record in archive.probes.items():
        yield from _list(
            {f"probe {probe}, measured": record.settings, f"probe {probe}, samples": record.identity or "not said"}
        )
    yield ""


def _list(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        yield f"- {markdown(key)}: {markdown(said, limit=2000)}"


def _reading(archive: Archive, name: str) -> Iterator[str]:
    """Code that runs as it stands. Names of probes are letters, digits and ``_.-``; the file's may be any."""
    file, probe = repr(name), next(iter(archive.probes), "train")
    yield "## How to read it\n"
    yield f"""With h5py alone:

```python
import json
import h5py

with h5py.File({file}, "r") as file:
    step = file["step"][:]
    settings = json.loads(file["probes/{probe}/settings"][()].tobytes())
    measured = {{name: data[()] for name, data in file["probes/{probe}"].items() if data.attrs.get("units") is not None}}
```

With xarray and h5netcdf, labelled by step:

```python
import xarray

rows = xarray.open_dataset({file}, engine="h5netcdf")
probe = xarray.open_dataset({file}, engine="h5netcdf", group="/probes/{probe}")
data = probe.assign_coords(step=rows.step).swap_dims(snapshot="step")
```

With kerneltrack, which leaves out what a resumed run superseded:

```python
import kerneltrack

data = kerneltrack.open_archive({file}).to_xarray(probe="{probe}")
```

Whether the files are those that were published: `sha256sum -c SHA256SUMS`, on macOS `shasum -a 256 -c SHA256SUMS`.
"""


def _citing(archive: Archive) -> Iterator[str]:
    yield "## How to cite it\n"
    yield f"{markdown(archive.attrs['creator_name'])}: {markdown(title(archive))}."
    yield "[CITATION.cff](CITATION.cff) has it for programs."


def _table(table: Table) -> str:
    """A table of Markdown; each cell is one line, and nothing in it acts."""
    rows = [table.columns, ["---"] * len(table.columns)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"| {' | '.join(markdown(cell) for cell in row)} |" for row in table.rows]
    head = [f"**{markdown(table.title)}**", ""] if table.title else []
    return "\n".join([*head, *lines, "", *(f"{markdown(note, limit=2000)}\n" for note in table.notes)])
