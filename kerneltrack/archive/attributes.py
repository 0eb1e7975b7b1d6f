"""Attributes of an archive's own objects.

Texts are written with a fixed length: they then lie in the object's header, which is checksummed. Text of variable
length lies in a heap that is not, but is read as well.
"""

from __future__ import annotations

from functools import lru_cache

import h5py
import numpy as np
from h5py import h5a, h5s, h5t

_SCALAR = h5s.create(h5s.SCALAR)


def put(item: h5py.Group | h5py.Dataset, name: str, value: str | int) -> None:
    """Give an object an attribute that it does not have yet: a text or an integer."""
    if isinstance(value, str):
        data = value.encode() or b"\0"
        kind, stored = _text(len(data)), np.array(data, f"S{len(data)}")
    else:
        kind, stored = h5t.NATIVE_INT64, np.array(value, np.int64)
    h5a.create(item.id, name.encode(), kind, _SCALAR).write(stored, mtype=kind)


@lru_cache(maxsize=1024)
def _text(size: int) -> h5t.TypeID:
    """UTF-8 text of so many bytes."""
    return h5t.py_create(h5py.string_dtype("utf-8", size))
