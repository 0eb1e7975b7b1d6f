"""The IDX format of MNIST and its family: a magic number, the lengths of the axes, then bytes. Nothing in it is executed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from kerneltrack.errors import ProbeError
from kerneltrack.snapshot import Array

#: The third byte of the magic number where entries are unsigned bytes.
_UNSIGNED_BYTES = 0x08


def idx_array(path: Path, shape: tuple[int, ...]) -> Array:
    """The unsigned bytes of an IDX file, plain or gzipped, of a known shape: no more is read than that.

    Raises:
        ProbeError: it cannot be read, or is not of that shape.
    """
    head = bytes([0, 0, _UNSIGNED_BYTES, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    size = len(head) + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ProbeError(
            "cannot read a file of images or labels",
            got=str(error),
            where=str(path),
            remedy="Give root= the folder of an unchanged copy.",
        ) from error
    if not data.startswith(head) or len(data) != size:
        raise ProbeError(
            "a file of images or labels",
            expected=f"the IDX format, unsigned bytes of shape {shape}",
            got=f"{len(data) if len(data) <= size else 'more'} bytes that begin with {data[:4].hex() or 'nothing'}",
            where=str(path),
            remedy="Give root= the folder of an unchanged copy.",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=len(head)).reshape(shape)
