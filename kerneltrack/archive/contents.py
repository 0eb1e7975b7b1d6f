"""What is in an open file: every object is opened once, every attribute read once, and both handed on to who asks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5g, h5o, h5t


class _Described:
    """What has attributes, which do not change while it is looked at."""

    id: h5py.h5o.ObjectID
    attrs: h5py.AttributeManager

    @cached_property
    def _read(self) -> dict[str, Any]:
        return {}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as text, number or array."""
        if name not in self._read:
            if not h5a.exists(self.id, name.encode()):
                return default
            self._read[name] = _value(self, name)
        return self._read[name]

    def text(self, name: str) -> str:
        """An attribute as text; empty if there is none."""
        return str(self.attribute(name, ""))

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """The names of its dimensions; none where it has no such attribute."""
        return tuple(self.text("dimensions").split())


class Data(_Described, h5py.Dataset):  # type: ignore[misc]  # h5py has no types
    """A dataset."""


class Contents(_Described, dict[str, Any]):
    """A group and what is in it by name, each Data or again Contents; at the top, a whole file.

    It is looked into as h5py's own groups are. These open an object anew each time that it is asked for, which took
    most of the time of opening an archive.

    Attributes:
        id: h5py's identifier of the group.
        name: its path in the file.
        attrs: its attributes as h5py gives them.
    """

    def __init__(self, group: h5g.GroupID, name: str = "/") -> None:
        super().__init__()
        self.id, self.name, self.attrs = group, name, h5py.Group(group).attrs

    def path(self, name: bytes) -> str:
        """The path of what has this name in the group."""
        return f"{self.name.rstrip('/')}/{name.decode('utf-8', 'backslashreplace')}"

    def attributes(self) -> dict[str, Any]:
        """All attributes by name."""
        return {name: self.attribute(name) for name in self.attrs}

    def datasets(self) -> Iterator[Data]:
        """Every dataset in the group and in the groups in it, in the order of names."""
        for item in self.values():
            if isinstance(item, Contents):
                yield from item.datasets()
            else:
                yield item


def contents(group: h5g.GroupID, name: str = "/") -> Contents:
    """What is in a group of a file that can be trusted; of a stranger's, :func:`safety.admit` says it."""
    found = Contents(group, name)
    for key in group:
        item = h5o.open(group, key)
        inner = isinstance(item, h5g.GroupID)
        found[key.decode()] = contents(item, found.path(key)) if inner else Data(item)
    return found


def _value(item: _Described, name: str) -> Any:
    attribute = h5a.open(item.id, name.encode())
    kind = attribute.get_type()
    dtype = _plain(kind) if attribute.shape == () else None
    if dtype is None:
        value = item.attrs[name]
    else:  # most are; h5py takes three times as long
        stored = np.empty((), dtype)
        attribute.read(stored, mtype=kind)
        value = stored[()]
    if isinstance(value, bytes):  # NumPy's too
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _plain(kind: h5t.TypeID) -> str | None:
    """NumPy's name of a type that an archive's own attributes have: their bytes in the file are those in memory."""
    if kind.get_class() != h5t.STRING:
        return "i8" if kind == h5t.NATIVE_INT64 else None
    fixed = not kind.is_variable_str() and kind.get_strpad() == h5t.STR_NULLPAD
    return f"S{kind.get_size()}" if fixed else None
