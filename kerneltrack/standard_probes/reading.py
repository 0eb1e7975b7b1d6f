"""read(): the samples of a standard probe from a copy of its data set, as they come; who checks their bytes is the probe."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerneltrack.errors import ProbeError
from kerneltrack.snapshot import Array

from .entry import StandardProbe
from .idx import idx_array


def read(entry: StandardProbe, root: str | os.PathLike[str] | None = None) -> tuple[Array, Array | None]:
    """Inputs and targets of a standard probe.

    Pixels are float32 from 0 to 1, (N, 1, height, width); targets integer classes (N,). A grid is float32 (N, 2), the centres
    of its cells on the unit square, the last axis fastest, without targets.

    Args:
        entry: which.
        root: the folder of one's own copy; None for what needs none.

    Raises:
        ProbeError: a folder is needed, or of no use; a file is missing or of another kind; scikit-learn is not installed.
    """
    if (entry.reader == "idx") != (root is not None):
        raise ProbeError(
            f"standard probe {entry.name!r}",
            expected="root=, the folder of your own copy" if root is None else "no root=: it reads no folder",
            got=None if root is None else f"root={os.fspath(root)!r}",
            remedy=f"Its data are not part of kerneltrack: {entry.source}." if root is None else None,
        )
    if entry.reader == "grid":
        return _grid(*entry.shape), None
    if entry.reader == "digits":
        images, labels = _digits()
    else:
        images, labels = _files(entry, Path(os.fspath(root)) if root is not None else Path())
    chosen = list(entry.indices)
    scale = np.float32(16 if entry.reader == "digits" else 255)
    return images[chosen, None].astype(np.float32) / scale, labels[chosen].astype(np.int64)


def _grid(rows: int, columns: int) -> Array:
    """(rows·columns, 2): powers of two divide exactly, so that every machine has the same bytes."""
    first, second = ((np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(n) for n in (rows, columns))
    return np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)


def _digits() -> tuple[Array, Array]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ProbeError(
            "the digits come with scikit-learn, which is not installed", remedy="Install it: pip install scikit-learn."
        ) from error
    found = load_digits()
    return np.asarray(found.images), np.asarray(found.target)


def _files(entry: StandardProbe, root: Path) -> tuple[Array, Array]:
    images, labels = (_file(entry, root, name) for name in entry.files)
    return idx_array(images, entry.shape), idx_array(labels, entry.shape[:1])


def _file(entry: StandardProbe, root: Path, name: str) -> Path:
    places = [root / folder / (name + ending) for folder in ("", *entry.folders) for ending in ("", ".gz")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ProbeError(
            f"standard probe {entry.name!r} finds no {name} or {name}.gz",
            where=" or ".join(str(root / folder) for folder in ("", *entry.folders)),
            remedy=f"Give the folder of your own copy as root=; its data are not part of kerneltrack: {entry.source}.",
        )
    return found
