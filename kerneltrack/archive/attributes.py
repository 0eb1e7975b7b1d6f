"""Attributes as plain Python values.

Texts are written with a fixed length: they then lie in the object's header, which is checksummed. Text of variable
length lies in a heap that is not, but is read as well.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np


def put(item: h5py.Group | h5py.Dataset, name: str, value: str | int) -> None:
    """Set an attribute to a text or an integer."""
    if isinstance(value, str):
        data = value.encode() or b"\0"
        item.attrs.create(name, np.array(data, h5py.string_dtype("utf-8", len(data))))
    else:
        item.attrs.create(name, np.int64(value))


def get(item: h5py.Group | h5py.Dataset, name: str, default: Any = None) -> Any:
    """An attribute as text, number or array."""
    value = item.attrs.get(name, default)
    if isinstance(value, bytes):  # NumPy's too
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def text(item: h5py.Group | h5py.Dataset, name: str) -> str:
    """An attribute as text; empty if there is none."""
    return str(get(item, name, ""))


def everything(group: h5py.Group) -> dict[str, Any]:
    """All attributes of a group by name."""
    return {name: get(group, name) for name in group.attrs}
