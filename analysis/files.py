"""Figures to files: the format by the ending, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerneltrack.errors import AnalysisError

from .style import STYLES, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .compare import Comparison
    from .sweep import Sweep

FORMATS = ("png", "pdf", "svg")


def save_figure(figure: Figure, path: str | os.PathLike[str], style: Style) -> Path:
    """Write a figure as PNG, PDF or SVG.

    Raises:
        AnalysisError: another ending, or numbers that cannot be drawn.
        OSError: the file cannot be written.
    """
    target, kind = Path(path), format_of(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    # Dates would make the same figure differ from itself.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    try:
        with style.drawing("the figure"):
            figure.savefig(partial, format=kind, metadata=metadata)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def save_runs(comparison: Comparison, path: str | os.PathLike[str], style: str, *, group: str | None = None) -> Path:
    """Draw several runs in a named style and write the figure.

    Raises:
        AnalysisError: another ending, or a run without the metadata key.
        OSError: the file cannot be written.
    """
    from .gallery.runs import runs_figure

    return _drawn(lambda look: runs_figure(comparison, look, group=group), path, style)


def save_sweep(found: Sequence[Sweep], path: str | os.PathLike[str], style: str) -> Path:
    """Draw a sweep in a named style and write the figure.

    Raises:
        AnalysisError: another ending.
        OSError: the file cannot be written.
    """
    from .gallery.runs import sweep_figure

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
        AnalysisError: another ending.
    """
    target = Path(path)
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise AnalysisError(
            f"figure file {target.name}", expected="an ending of .png, .pdf or .svg", got=target.suffix or "none"
        )
    return kind
