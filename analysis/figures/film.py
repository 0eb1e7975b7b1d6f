"""Film: a figure that moves. It is drawn once; from moment to moment only what it shows changes. Written as a GIF."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .style import Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Milliseconds that a moment stands, and the last one, before all begins again.
_MOMENT, _LAST = 240, 1600
#: Dots per inch of a GIF: twice a screen's 72 is legible, and 60 frames of the demo stay near 2 MB.
_DPI = 110


@dataclass(frozen=True, eq=False)
class Film:
    """A figure and its moments.

    Attributes:
        figure: with all that its moments show, so that the layout has room for it.
        moments: how many there are.
        show: changes the figure to moment 0, …, moments − 1.
    """

    figure: Figure
    moments: int
    show: Callable[[int], None]

    def last(self) -> Figure:
        """The figure at its last moment."""
        self.show(self.moments - 1)
        return self.figure


def gif(film: Film, style: Style) -> bytes:
    """The moments one after the other, without end.

    Raises:
        AnalysisError: its numbers cannot be drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    film.figure.set_dpi(_DPI)
    canvas, frames = FigureCanvasAgg(film.figure), []
    with style.drawing("the film"):
        canvas.draw()  # type: ignore[no-untyped-call]
        film.figure.set_layout_engine(None)  # axes stay where they are
        for moment in range(film.moments):
            film.show(moment)
            canvas.draw()  # type: ignore[no-untyped-call]
            shown = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
            frames.append(Image.fromarray(shown).convert("RGB").quantize(256))
    written = io.BytesIO()
    times = [_MOMENT] * (len(frames) - 1) + [_LAST]
    frames[0].save(written, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return written.getvalue()
