"""Thumbnails: a probe's inputs where they are images, small enough to stand beside a number."""

from __future__ import annotations

import math

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Run
from ..withheld import missing

_COLOURS = (1, 3)


def image_inputs(run: Run) -> Floats:
    """The probe's inputs as images (N, rows, columns), or (N, rows, columns, 3), on one scale from 0 to 1.

    Images are (N, rows, columns) or (N, channels, rows, columns) with one channel or three. Flat inputs (N, D) are images only if
    the probe's identity says so, ``image_shape`` of D numbers: D alone does not tell a picture from a table.

    Raises:
        AnalysisError: the archive does not hold the inputs, or they are no images.
    """
    if "inputs" not in run.dataset:
        raise missing("inputs", "drawing samples as images", run.path)
    values = np.asarray(run.dataset["inputs"].values, dtype=np.float64)
    shape = _shape(run, values.shape[1:])
    if shape is None:
        raise AnalysisError(
            "samples are drawn as images over image-like inputs",
            expected="inputs (N, rows, columns) or (N, 1 or 3, rows, columns), or flat ones with their shape",
            got=values.shape,
            where=run.path or None,
            remedy="Of flat ones tell it: Probe(…, identity={'image_shape': [8, 8]}).",
        )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    images = (values.reshape(len(values), *shape) - low) / ((high - low) or 1.0)
    if len(shape) == 2:
        return images
    return images[:, 0] if shape[0] == 1 else np.moveaxis(images, 1, -1)


def _shape(run: Run, own: tuple[int, ...]) -> tuple[int, ...] | None:
    """(rows, columns) or (channels, rows, columns); None where these are no images."""
    if len(own) == 1:
        told = (run.identity or {}).get("image_shape")
        whole = isinstance(told, list) and all(isinstance(n, int) and n > 0 for n in told)
        own = tuple(told) if whole and isinstance(told, list) and math.prod(told) == own[0] else ()
    if len(own) == 2 and min(own) > 1:
        return own
    return own if len(own) == 3 and own[0] in _COLOURS else None


def extremes(values: Floats, ends: int) -> np.ndarray:
    """Indices of the least ``ends`` values, ascending, then of the greatest, ascending."""
    order = np.argsort(values, kind="stable")
    return np.concatenate([order[:ends], order[len(order) - ends :]])
