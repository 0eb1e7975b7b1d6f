"""Whether two archives say the same: every dataset, shape, dtype, attribute and byte, but what differs from run to run.

    python tests/archive/same.py A.h5 B.h5

Prints one line for each difference; exit 1 if there is one. What is left out: the clock (``wall_time``,
``train_seconds``, ``snapshot_seconds``, ``segments/started``), identifiers, creation dates and the hash over all of it,
and the provenance. Both archives are to come from one machine with the same number of threads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: Datasets of the clock, identifiers and their hash: values may differ, dtype and dimensions may not.
CLOCKS = {"wall_time", "train_seconds", "snapshot_seconds", "segments/started", "content_sha256", "snapshot_id"}
#: Groups that may differ altogether.
APART = {"provenance"}
#: Attributes that name a file or a moment.
IDENTIFIERS = {"archive_id", "run_id", "date_created", "history", "source"}
#: References of netCDF-4 to its dimension scales: addresses in the file.
REFERENCES = {"DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Coordinates", "_Netcdf4Dimid", "_NCProperties"}


def differences(a: Path, b: Path) -> list[str]:
    """One line for each place where the archives differ."""
    with h5py.File(a) as left, h5py.File(b) as right:
        ours, theirs = _members(left), _members(right)
        found = [f"{name}: only in {a}" for name in sorted(ours.keys() - theirs.keys())]
        found += [f"{name}: only in {b}" for name in sorted(theirs.keys() - ours.keys())]
        for name in sorted(ours.keys() & theirs.keys()):
            found += [f"{name or '/'}: {what}" for what in _member(name, ours[name], theirs[name])]
    return found


def _members(file: h5py.File) -> dict[str, h5py.HLObject]:
    found: dict[str, h5py.HLObject] = {"": file}
    file.visititems(lambda name, member: found.__setitem__(name, member))
    return {name: member for name, member in found.items() if name.partition("/")[0] not in APART}


def _member(name: str, ours: h5py.HLObject, theirs: h5py.HLObject) -> Iterator[str]:
    yield from _attributes(ours, theirs)
    if type(ours) is not type(theirs):
        yield "a group in one, a dataset in the other"
    elif isinstance(ours, h5py.Dataset):
        for what in ("dtype", "shape", "maxshape", "chunks", "compression", "shuffle", "fletcher32", "fillvalue"):
            mine, other = getattr(ours, what), getattr(theirs, what)
            if repr(mine) != repr(other):  # a NaN is like a NaN
                yield f"{what} {mine} and {other}"
        if ours.shape == theirs.shape and ours.dtype == theirs.dtype and name not in CLOCKS:
            mine, other = ours[()], theirs[()]
            if np.asarray(mine).tobytes() != np.asarray(other).tobytes():
                yield "the values differ"


def _attributes(ours: h5py.HLObject, theirs: h5py.HLObject) -> Iterator[str]:
    names = (set(ours.attrs) | set(theirs.attrs)) - REFERENCES - IDENTIFIERS
    for name in sorted(names):
        if (name in ours.attrs) != (name in theirs.attrs):
            yield f"the attribute {name} is in one only"
        elif not _same(ours.attrs[name], theirs.attrs[name]):
            yield f"the attribute {name} is {ours.attrs[name]!r} and {theirs.attrs[name]!r}"


def _same(ours: Any, theirs: Any) -> bool:
    mine, other = np.asarray(ours), np.asarray(theirs)
    return mine.dtype == other.dtype and mine.shape == other.shape and mine.tobytes() == other.tobytes()


if __name__ == "__main__":
    lines = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(lines) or "the same")
    sys.exit(bool(lines))
