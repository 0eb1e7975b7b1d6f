"""What a reader must know of a foreign HDF5 file before it touches any data.

HDF5 follows external links, reads raw data from other files, assembles virtual datasets and loads filter plug-ins
without a word, and a file of a kilobyte can declare terabytes. So the whole tree is walked with the low-level interface
first; links are looked at before they are followed, layouts and filters before data spaces are asked for.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o, h5s, h5t, h5z

from kerneltrack.archive.contents import Contents, Data
from kerneltrack.archive.printable import printable
from kerneltrack.errors import UnsafeArchiveError

MAX_OBJECTS = 20_000
MAX_DEPTH = 4
MAX_RANK = 8
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_BYTES = 1 << 16
MAX_CHUNK_BYTES = 1 << 26
MAX_ROW_BYTES = 1 << 33
MAX_AT_ONCE_BYTES = 1 << 28  # what any machine can spare, however small the file
AMPLIFICATION = 8  # bytes in memory for a byte on the disk, beyond that
MAX_SPARSE_BYTES = 1 << 32  # of a column with rows that were never written; they are NaN in memory, nothing on the disk
DEFLATE_RATIO = 1100  # deflate cannot do better than 1032:1

_FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32})
_NUMBERS = frozenset({h5t.INTEGER, h5t.FLOAT})
_SCALE_ATTRIBUTES = frozenset({b"DIMENSION_LIST", b"REFERENCE_LIST"})  # netCDF-4's; they hold references, never read


def admit(file: h5py.File, held: int) -> Contents:
    """Walk a file and return what is in it, if nothing in it can lead out of it or exhaust the machine.

    Args:
        file: the file.
        held: bytes that it takes on the disk.

    Raises:
        UnsafeArchiveError: what it is, and where.
    """
    walk = _Walk()
    found = walk.group(Contents(file.id), depth=0)
    if walk.row_bytes > allowance(held):
        raise _unsafe("the rows are larger than the file", "/", got=f"{walk.row_bytes} bytes in one row")
    return found


def allowance(held: int) -> int:
    """Bytes that may be read at once out of files that take so many on the disk.

    What is deflated, never written or a hole in the file declares more than it holds; an honest file stays far below.
    """
    return max(MAX_AT_ONCE_BYTES, AMPLIFICATION * held)


class _Walk:
    """One walk over a file: which objects were met, the bytes of one row of all columns, and of all long texts."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self._text_bytes = 0
        self.row_bytes = 0

    def group(self, found: Contents, depth: int) -> Contents:
        group, path = found.id, found.name
        self._object(group, path)
        if depth > MAX_DEPTH:
            raise _unsafe("groups are nested too deeply", path, expected=f"at most {MAX_DEPTH} levels")
        if len(self._seen) + group.get_num_objs() > MAX_OBJECTS:
            raise _unsafe("there are too many objects", path, expected=f"at most {MAX_OBJECTS}")
        for name in list(group):
            found[name.decode()] = self._link(group, name, found.path(name), depth)
        return found

    def _link(self, group: h5g.GroupID, name: bytes, path: str, depth: int) -> Contents | Data:
        if printable(path, limit=1000) != path:
            raise _unsafe("a name holds control characters", path)
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise _unsafe("a soft, external or user-defined link", path, expected="only the archive's own objects")
        item = h5o.open(group, name)
        if isinstance(item, h5g.GroupID):
            return self.group(Contents(item, path), depth + 1)
        if not isinstance(item, h5d.DatasetID):
            raise _unsafe("an object that is neither a group nor a dataset", path)
        self._dataset(item, path)
        return Data(item)

    def _object(self, item: h5g.GroupID | h5d.DatasetID, path: str) -> None:
        info = h5o.get_info(item)
        address = (info.fileno, info.addr)
        if address in self._seen:
            raise _unsafe("an object has two names, or a group contains itself", path)
        self._seen.add(address)
        count = h5a.get_num_attrs(item)
        if count > MAX_ATTRIBUTES:
            raise _unsafe("too many attributes", path, expected=f"at most {MAX_ATTRIBUTES}", got=count)
        for index in range(count):
            self._text_bytes += _attribute(h5a.open(item, index=index), path)
            if self._text_bytes > MAX_AT_ONCE_BYTES:
                raise _unsafe(
                    "the attributes are too large", path, expected=f"at most {MAX_AT_ONCE_BYTES} bytes in all"
                )

    def _dataset(self, data: h5d.DatasetID, path: str) -> None:
        self._object(data, path)
        creation = data.get_create_plist()
        if creation.get_layout() == h5d.VIRTUAL:  # before the data space, which would open the source files
            raise _unsafe("a virtual dataset", path, expected="data that lie in the file")
        if creation.get_external_count():
            raise _unsafe("raw data in another file", path, expected="data that lie in the file")
        filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
        if not _FILTERS.issuperset(filters):
            raise _unsafe("an unknown filter", path, expected="deflate, shuffle, fletcher32", got=sorted(filters))
        self.row_bytes += _extent(data, creation, path, deflated=h5z.FILTER_DEFLATE in filters)


def _extent(data: h5d.DatasetID, creation: Any, path: str, *, deflated: bool) -> int:
    """Bytes of one row of a dataset of which anything is stored."""
    itemsize = _element(data.get_type(), path)
    space = data.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise _unsafe("a dataset without extent", path)
    shape = space.get_simple_extent_dims()
    if len(shape) > MAX_RANK:
        raise _unsafe("too many dimensions", path, expected=f"at most {MAX_RANK}", got=len(shape))
    chunked = creation.get_layout() == h5d.CHUNKED
    chunk = _product(creation.get_chunk()) * itemsize if chunked else 0
    if chunk > MAX_CHUNK_BYTES:
        raise _unsafe("a chunk is too large", path, expected=f"at most {MAX_CHUNK_BYTES} bytes", got=f"{chunk} bytes")
    stored = data.get_storage_size()
    held = stored * (DEFLATE_RATIO if deflated else 1) + chunk
    row = _product(shape[1:]) * itemsize
    if row > MAX_ROW_BYTES or (row > MAX_CHUNK_BYTES and stored and row > held):
        raise _unsafe("one row is larger than the data that are there", path, got=f"{row} bytes")
    if not chunked and _product(shape) * itemsize > (stored or MAX_AT_ONCE_BYTES):  # a bare dimension is never stored
        raise _unsafe("a dataset declares more than the file holds", path, got=f"{_product(shape) * itemsize} bytes")
    return row if stored and len(shape) > 1 else 0


def _element(kind: h5t.TypeID, path: str) -> int:
    """Bytes of one element: an integer, a float, or one byte of text."""
    if kind.committed():
        raise _unsafe("a named data type", path)
    size: int = kind.get_size()
    text = kind.get_class() == h5t.STRING and not kind.is_variable_str() and size == 1
    if not text and (kind.get_class() not in _NUMBERS or size > 8):
        raise _unsafe("elements that are neither numbers nor bytes of text", path, got=_class_name(kind))
    return size


def _attribute(attribute: h5a.AttrID, path: str) -> int:
    """Bytes of an attribute."""
    name = attribute.name
    where = f"{path}@{name.decode('utf-8', 'backslashreplace')}"
    if printable(where, limit=1000) != where:
        raise _unsafe("a name holds control characters", where)
    if name in _SCALE_ATTRIBUTES:
        return 0
    kind = attribute.get_type()
    if kind.get_class() not in _NUMBERS and kind.get_class() != h5t.STRING:
        raise _unsafe("an attribute that is neither numbers nor text", where, got=_class_name(kind))
    size: int = _product(attribute.shape) * kind.get_size()
    if size <= MAX_ATTRIBUTE_BYTES and kind.get_class() == h5t.STRING and kind.is_variable_str():
        values = np.empty(attribute.shape, object)
        attribute.read(values)
        size = int(sum(len(value or b"") for value in values.flat))
    if size > MAX_ATTRIBUTE_BYTES:
        raise _unsafe("an attribute is too large", where, expected=f"at most {MAX_ATTRIBUTE_BYTES} bytes", got=size)
    return size


def root_text(file: h5py.File, name: str) -> str:
    """One root attribute as text, "" if there is none; the file need not be admitted.

    Raises:
        UnsafeArchiveError: it is too large, or neither numbers nor text.
    """
    if not h5a.exists(file.id, name.encode()):
        return ""
    _attribute(h5a.open(file.id, name.encode()), "/")
    return Contents(file.id).text(name)


def require_present(data: h5py.Dataset) -> None:
    """Refuse to read the whole of a dataset that declares more than is stored.

    Raises:
        UnsafeArchiveError: most of it was never written.
    """
    ratio = DEFLATE_RATIO if data.compression else 1
    slack = _product(data.chunks or ()) * data.dtype.itemsize
    if data.nbytes > data.id.get_storage_size() * ratio + slack:
        raise _unsafe("a dataset declares more than the file holds", data.name, got=f"{data.nbytes} bytes")


def _class_name(kind: h5t.TypeID) -> str:
    names = {h5t.COMPOUND: "compound", h5t.VLEN: "variable length", h5t.REFERENCE: "reference", h5t.ENUM: "enumeration"}
    names |= {h5t.OPAQUE: "opaque", h5t.ARRAY: "array", h5t.BITFIELD: "bit field", h5t.STRING: "string"}
    return names.get(kind.get_class(), f"{kind.get_size()}-byte numbers")


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= int(size)
    return total


def _unsafe(problem: str, path: str, *, expected: object = None, got: object = None) -> UnsafeArchiveError:
    return UnsafeArchiveError(problem, expected=expected, got=got, where=printable(path))


def require_room(size: int, held: int, what: str, *, sparse: bool = False) -> None:
    """Refuse to read more at once than files of that size can honestly hold.

    Args:
        size: bytes in memory.
        held: bytes that the files take on the disk.
        what: is read, for the message.
        sparse: it is a column of which one whole row is known to lie on the disk, so that the size of a row is no mere
            claim; the number of rows is none either, for each has a digest that is there. A run that keeps its kernel
            at both ends has forty rows of which two are written.

    Raises:
        UnsafeArchiveError: it is beyond :func:`allowance`, or beyond ``MAX_SPARSE_BYTES`` where that is more.
    """
    allowed = max(allowance(held), MAX_SPARSE_BYTES if sparse else 0)
    if size > allowed:
        raise UnsafeArchiveError(
            "more would be read at once than the archive holds",
            expected=f"at most {allowed} bytes",
            got=f"{size} bytes",
            where=printable(what),
            remedy="If the archive can be trusted, read fewer rows at a time.",
        )
