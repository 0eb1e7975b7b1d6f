"""Dimension scales: what makes a joined file netCDF-4."""

from __future__ import annotations

import h5py
from h5py import h5ds

from kerneltrack import schema
from kerneltrack.archive.contents import contents

_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable. %9d"


def add(file: h5py.File) -> None:
    """Give every dimension of the file a dimension scale and attach it: what netCDF-4 and xarray look for."""
    scales: dict[tuple[str, str], h5py.Dataset] = {}
    for data in contents(file.id).datasets():
        for axis, dim in enumerate(data.dimensions):
            place = (_home(data.name, dim), dim)
            if place not in scales:
                scales[place] = _scale(file[place[0]], dim, data.shape[axis])
            if scales[place] != data:
                h5ds.attach_scale(data.id, scales[place].id, axis)


def _home(path: str, dim: str) -> str:
    """The group that owns a dimension of the dataset at a path: the file's, the probe's, or the section's."""
    parts = path.split("/")
    if dim in schema.ROOT_DIMENSIONS:
        return "/"
    return "/".join(parts[:3]) if parts[1] == "probes" else f"/{parts[1]}"


def _scale(home: h5py.Group, dim: str, size: int) -> h5py.Dataset:
    if dim not in home:
        scale = home.create_dataset(dim, shape=(size,), dtype=">f4")  # the type that netCDF-4 gives a bare dimension
        scale.make_scale((_NOT_A_VARIABLE % size).decode())
    elif not h5ds.is_scale(home[dim].id):
        home[dim].make_scale(dim)
    return home[dim]
