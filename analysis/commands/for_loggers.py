"""``python -m kerneltrack.analysis.commands.for_loggers``: a run's figures and its report, as a training's loggers take them.

A tracker asks for them at the end of a training. Drawing happens in a process of its own, so that the training's keeps its
generators, its Matplotlib and its memory; what is passed between the two are files.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kerneltrack.errors import AnalysisError, one_line

from ..figures import STYLES, Scene, choose, save_figure
from ..report import write_report
from ..trajectory import Run, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The name that asks for the report.
REPORT = "report"


def main(arguments: list[str]) -> int:
    """Draw.

    Args:
        arguments: the archive, a folder, and names of figures, or "report".

    Returns:
        0. On standard output stands a JSON object: for each name {"picture": PNG, "figure": a pickled Figure that shows it},
        {"page": HTML}, or {"error": why it was not drawn}.
    """
    archive, folder, *names = arguments
    run = load([Path(archive)]).only
    print(json.dumps({name: _made(name, run, Path(archive), Path(folder)) for name in names}))  # noqa: T201 — the answer
    return 0


def _made(name: str, run: Run, archive: Path, folder: Path) -> dict[str, str]:
    try:
        return _page(archive, folder) if name == REPORT else _picture(name, run, folder)
    except AnalysisError as error:  # what the archive does not hold
        return {"error": one_line(error)}


def _page(archive: Path, folder: Path) -> dict[str, str]:
    path = folder / f"{archive.stem}.html"
    write_report([archive], path)
    return {"page": str(path)}


def _picture(name: str, run: Run, folder: Path) -> dict[str, str]:
    style = STYLES["paper"]
    path, pickled = folder / f"{name}.png", folder / f"{name}.pickle"
    save_figure(choose(name)(Scene(run, style=style)), path, style)
    pickled.write_bytes(pickle.dumps(_showing(path)))
    return {"picture": str(path), "figure": str(pickled)}


def _showing(path: Path) -> Figure:
    """A figure of nothing but this picture, pixel for pixel: those that are drawn hold functions, and do not pickle."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    pixels = imread(path)
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    figure.figimage(pixels)
    return figure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
