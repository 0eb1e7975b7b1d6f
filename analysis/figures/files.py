"""Figures to files: the format by the ending, written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ..lr_decay import SeedEffects
from ..output import FIGURE, FILM, is_stream, may_write, write
from .film import Film, gif
from .style import STYLES, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..comparison import Comparison, Sweep
    from ..lr_decay import RunsEffects

#: What a figure can be written as.
Format = Literal["png", "pdf", "svg"]


def save_figure(figure: Figure, path: str | os.PathLike[str], style: Style, kind: Format | None = None) -> Path:
    """Write a figure as PNG, PDF or SVG.

    Args:
        figure: it.
        path: the file, or "-" for standard output; a device or a pipe is written into.
        style: the look.
        kind: the format of what goes to a stream; PNG by default. The ending of a file says what it is.

    Raises:
        AnalysisError: another ending, or numbers that cannot be drawn.
        OSError: the file cannot be written.
    """
    kind = format_of(path, kind)
    # Dates would make the same figure differ from itself.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    drawn = io.BytesIO()  # matplotlib's writers stumble over a disk that is full
    with style.drawing("the figure"):
        figure.savefig(drawn, format=kind, metadata=metadata)
    write(path, FIGURE, drawn.getvalue())
    return Path(path)


def is_film(path: str | os.PathLike[str]) -> bool:
    """Whether a file's ending asks for a figure that moves."""
    return not is_stream(path) and Path(path).suffix.casefold() in FILM.endings


def save_film(film: Film, path: str | os.PathLike[str], style: Style) -> Path:
    """Write a figure that moves as a GIF.

    Raises:
        AnalysisError: another ending, or numbers that cannot be drawn.
        OSError: the file cannot be written.
    """
    may_write(path, FILM)  # before the drawing, which takes seconds
    write(path, FILM, gif(film, style))
    return Path(path)


def save_runs(
    comparison: Comparison,
    path: str | os.PathLike[str],
    style: str,
    *,
    group: str | None = None,
    kind: Format | None = None,
) -> Path:
    """Draw several runs in a named style and write the figure.

    Raises:
        AnalysisError: another ending, or a run without the metadata key.
        OSError: the file cannot be written.
    """
    from .gallery import runs_figure

    return _drawn(lambda look: runs_figure(comparison, look, group=group), path, style, kind)


def save_sweep(found: Sequence[Sweep], path: str | os.PathLike[str], style: str, *, kind: Format | None = None) -> Path:
    """Draw a sweep in a named style and write the figure.

    Raises:
        AnalysisError: another ending.
        OSError: the file cannot be written.
    """
    from .gallery import sweep_figure

    return _drawn(lambda look: sweep_figure(found, look), path, style, kind)


def _drawn(
    draw: Callable[[Style], Figure], path: str | os.PathLike[str], style: str, kind: Format | None = None
) -> Path:
    look = STYLES[style]
    format_of(path, kind)
    with look.drawing("the figure"):
        figure = draw(look)
    return save_figure(figure, path, look, kind)


def format_of(path: str | os.PathLike[str], kind: Format | None = None) -> Format:
    """The format that a file's ending means; of a stream the one that is asked for, then its name's, then PNG.

    Raises:
        OutputError: another ending, or nothing may be written there.
    """
    may_write(path, FIGURE)
    ending = Path(path).suffix.casefold()
    if kind is not None and is_stream(path):
        return kind
    return cast(Format, ending.removeprefix(".")) if ending in FIGURE.endings else "png"


def _over_seeds(effects: SeedEffects, energy_k: tuple[int, ...], style: Style) -> Figure:
    from .gallery import seeds_figure

    with style.drawing("the figure"):
        return seeds_figure(effects, energy_k, style)


def save(found: RunsEffects, path: str | os.PathLike[str], style: str, *, kind: Format | None = None) -> Path:
    """Draw the paired differences over seeds, or of a single run the first change (or trend), and write the figure.

    Raises:
        AnalysisError: another ending than PNG, PDF or SVG.
        OSError: the file cannot be written.
    """
    from .catalogue import choose
    from .registry import Scene
    from .style import STYLES

    run, control, effects = found.runs[0]
    scene = Scene(run, control, STYLES[style])
    if found.seeds:
        return save_figure(_over_seeds(found.seeds[0], effects.energy_k, scene.style), path, scene.style, kind)
    return save_figure(choose("lr-decay" if effects.changes else "lr-trend")(scene), path, scene.style, kind)
