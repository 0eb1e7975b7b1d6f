"""A figure that a notebook shows whatever its matplotlib backend is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from kerneltrack.errors import AnalysisError

from ..trajectory import Run
from .catalogue import choose
from .registry import Scene
from .style import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(
    run: Run, name: str, *, control: Run | None = None, x: Literal["linear", "log"] | None = None, style: str = "paper"
) -> Figure:
    """The figure of that name.

    Args:
        run: the run.
        name: as of ``kerneltrack plot --list``.
        control: the run that did not change the learning rate.
        x: the time axis.
        style: "paper", "slide" or "dark".

    Raises:
        AnalysisError: no such figure or style, or the archive does not hold what the figure needs.
    """
    if style not in (known := [each for each in STYLES if each != "page"]):  # whose colours are the report's variables
        raise AnalysisError("style", expected=f"one of {', '.join(known)}", got=repr(style))
    scene = Scene(run, control, STYLES[style], x)
    figure = choose(name)(scene)

    def png() -> bytes:
        buffer = io.BytesIO()
        with scene.style.drawing(f"the figure {name!r}"):
            figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
        return buffer.getvalue()

    # IPython asks the object itself where no inline backend speaks for all figures: ours are not pyplot's.
    vars(figure)["_repr_png_"] = png
    return figure
