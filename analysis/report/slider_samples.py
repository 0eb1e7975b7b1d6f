"""Thumbnails for the page's slider: the samples at which each function is greatest and least, from one sheet for all moments."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..figures import extremes, image_inputs, moving_functions
from ..trajectory import Floats, Run

#: Functions, and samples at either end of each.
FUNCTIONS, ENDS = 6, 3
#: Thumbnails side by side in the sheet.
_COLUMNS = 32
#: Larger images are shown by every second, third, … pixel: a thumbnail is some thirty wide on the page.
_PIXELS = 48


@dataclass(frozen=True)
class Samples:
    """A sheet of thumbnails, and which of them each function has at each moment.

    Attributes:
        sheet: a PNG as a data URI.
        columns: thumbnails side by side in it.
        rows: over each other.
        aspect: width over height of one.
        names: of the functions, by moment.
        places: by moment and function: where in the sheet, row by row, stand the greatest, descending, then the least, ascending.
    """

    sheet: str
    columns: int
    rows: int
    aspect: float
    names: tuple[tuple[str, ...], ...]
    places: tuple[tuple[tuple[int, ...], ...], ...]


def samples(run: Run, rows: Sequence[int]) -> Samples:
    """The extreme samples at ``rows``, for a probe of images.

    Raises:
        AnalysisError: the archive holds no images, no eigenvectors, or not at each of these rows.
    """
    images = image_inputs(run)
    run.require("eigenvectors", why="the slider over eigenfunctions")
    moving = moving_functions(run, min(FUNCTIONS, int(run.dataset.sizes["vector"])), rows)
    if len(moving) < len(rows):
        raise AnalysisError(
            "the slider over samples",
            expected=f"eigenvectors at each of its {len(rows)} moments",
            got=len(moving),
            remedy="Take moments at which they were measured.",
        )
    ends = min(ENDS, len(images) // 2)
    found = [[_ends(values, ends) for values in moving.at(moment).T] for moment in range(len(rows))]
    used = sorted({sample for functions in found for shown in functions for sample in shown})
    place = {sample: i for i, sample in enumerate(used)}
    columns = min(_COLUMNS, len(used))
    return Samples(
        _sheet(images[used], columns),
        columns,
        -(-len(used) // columns),
        images.shape[2] / images.shape[1],
        tuple(tuple(moving.names(moment)) for moment in range(len(rows))),
        tuple(tuple(tuple(place[sample] for sample in shown) for shown in functions) for functions in found),
    )


def _ends(values: Floats, ends: int) -> list[int]:
    ordered = extremes(values, ends).tolist()
    return [*reversed(ordered[ends:]), *ordered[:ends]]


def _sheet(images: Floats, columns: int) -> str:
    """Images (n, rows, columns) or (n, rows, columns, 3) from 0 to 1, row by row as one PNG."""
    from PIL import Image

    every = -(-max(images.shape[1:3]) // _PIXELS)
    small = images[:, ::every, ::every]
    rows = -(-len(small) // columns)
    padded = np.concatenate([small, np.zeros((rows * columns - len(small), *small.shape[1:]))])
    height, width = padded.shape[1:3]
    sheet = padded.reshape(rows, columns, height, width, -1).swapaxes(1, 2).reshape(rows * height, columns * width, -1)
    pixels = (np.clip(np.nan_to_num(sheet), 0, 1) * 255).round().astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(written, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
