"""Pictures: functions of a two-dimensional input as images, already interpolated to a grid."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from ...trajectory import Floats
from ..style import Style

#: Sign matters for eigenfunctions and residuals (a diverging map about 0), not for a picture's grey values.
COLOUR_MAPS = {"picture": "gray", "signed": "RdBu_r"}


def pictures(
    ax: Axes,
    image: Floats,
    style: Style,
    *,
    title: str = "",
    kind: Literal["picture", "signed"] = "picture",
    limits: tuple[float, float] | None = None,
) -> Axes:
    """One image (rows downwards, columns to the right) without axes; returns ``ax``.

    Args:
        ax: where to draw.
        image: (rows, columns), NaN outside the samples; or (rows, columns, 3), colours in [0, 1].
        style: the look.
        title: above the image.
        kind: grey values, or signed values about 0.
        limits: of the colour map; None: the image's own, symmetric for "signed".
    """
    low, high = limits if limits is not None else _limits(image, kind)
    ax.imshow(
        image,
        cmap=COLOUR_MAPS[kind],
        vmin=low,
        vmax=high,
        origin="upper",
        interpolation=style.interpolation,
        extent=(0, image.shape[1], 0, image.shape[0]),
        aspect="equal",
    )
    ax.set_axis_off()
    ax.set_title(title, fontsize="medium", fontweight="normal", loc="center", pad=3)
    ax.set_label("picture")
    return ax


def _limits(image: Floats, kind: str) -> tuple[float, float]:
    known = image[np.isfinite(image)]
    if not known.size:
        return 0.0, 1.0
    if kind == "signed":
        # The 99th percentile: one extreme sample would bleach the rest.
        top = float(np.percentile(np.abs(known), 99)) or 1.0
        return -top, top
    return float(known.min()), float(known.max()) if known.max() > known.min() else float(known.min()) + 1.0
