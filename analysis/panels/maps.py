"""Maps: a quantity between all pairs of moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..style import Style
from ..trajectory import Floats


def heat_map(ax: Axes, values: Floats, style: Style, *, labels: Sequence[str], title: str) -> Axes:
    """A symmetric matrix of values between 0 and 1 with the moments' labels on both axes; returns ``ax``."""
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, origin="lower", interpolation="none")
    ticks = np.unique(np.linspace(0, len(labels) - 1, min(6, len(labels))).round().astype(int))
    ax.set_xticks(ticks, [labels[i] for i in ticks])
    ax.set_yticks(ticks, [labels[i] for i in ticks])
    ax.grid(visible=False)
    ax.set_xlabel("training step")
    ax.set_ylabel("training step")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02)
    ax.set_title(title, fontweight="normal")
    bar.outline.set_edgecolor(style.muted)
    ax.set_label("map")
    return ax
