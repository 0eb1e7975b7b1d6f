"""Figures to files: the format by the ending, written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..lr_decay import SeedEffects
from ..output import FIGURE, may_write, whole
from .style import STYLES, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..comparison import Comparison, Sweep
    from ..lr_decay import RunsEffects


def save_figure(figure: Figure, path: str | os.PathLike[str], style: Style) -> Path:
    """Write a figure as PNG, PDF or SVG.

    Raises:
        AnalysisError: another ending, or numbers that cannot be drawn.
        OSError: the file cannot be written.
    """
    kind = format_of(path)
    # Dates would make the same figure differ from itself.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    drawn = io.BytesIO()  # matplotlib's writers stumble over a disk that is full
    with style.drawing("the figure"):
        figure.savefig(drawn, format=kind, metadata=metadata)
    with whole(path, FIGURE) as partial:
        partial.write_bytes(drawn.getvalue())
    return Path(path)


def save_runs(comparison: Comparison, path: str | os.PathLike[str], style: str, *, group: str | None = None) -> Path:
    """Draw several runs in a named style and write the figure.

    Raises:
        AnalysisError: another ending, or a run without the metadata key.
        OSError: the file cannot be written.
    """
    from .gallery import runs_figure

    return _drawn(lambda look: runs_figure(comparison, look, group=group), path, style)


def save_sweep(found: Sequence[Sweep], path: str | os.PathLike[str], style: str) -> Path:
    """Draw a sweep in a named style and write the figure.

    Raises:
        AnalysisError: another ending.
        OSError: the file cannot be written.
    """
    from .gallery import sweep_figure

    return _drawn(lambda look: sweep_figure(found, look), path, style)


def _drawn(draw: Callable[[Style], Figure], path: str | os.PathLike[str], style: str) -> Path:
    look = STYLES[style]
    format_of(path)
    with look.drawing("the figure"):
        figure = draw(look)
    return save_figure(figure, path, look)


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's ending means.

    Raises:
        OutputError: another ending, or nothing may be written there.
    """
    may_write(path, FIGURE)
    return Path(path).suffix.casefold().removeprefix(".")


def _over_seeds(effects: SeedEffects, energy_k: tuple[int, ...], style: Style) -> Figure:
    from .gallery import seeds_figure

    with style.drawing("the figure"):
        return seeds_figure(effects, energy_k, style)


def save(found: RunsEffects, path: str | os.PathLike[str], style: str) -> Path:
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
        return save_figure(_over_seeds(found.seeds[0], effects.energy_k, scene.style), path, scene.style)
    return save_figure(choose("lr-decay" if effects.changes else "lr-trend")(scene), path, scene.style)
