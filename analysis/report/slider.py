"""Frames of the page's slider: spectrum and energies of many snapshots, and where the inputs are a plane also pictures.

The pictures are the output and the top eigenfunctions as small palette images.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import learning_rate_changes, nearest_k, representative_rows
from ..figures import Canvas, MovingFunctions, moving_functions
from ..text import count, number
from ..trajectory import Floats, Run
from ..withheld import missing
from .slider_curves import MovingPanel, moving_panels
from .slider_samples import Samples, samples

#: Frames are kept to what a page can carry: 60 strips of seven tiles are about 2 MB.
MAX_FRAMES = 60
TILES = 6
_PIXELS = 72


@dataclass(frozen=True)
class Frame:
    """One snapshot.

    Attributes:
        step: for reading.
        strip: a PNG as a data URI: output, v_1, …, side by side; "" where there are no pictures.
        facts: label and value, for reading.
        curves: SVG paths by name of the curve.
        names: of the tiles at this moment; empty where there are no pictures.
        samples: of image-like inputs: by function, places in the explorer's sheet of its extreme samples.
    """

    step: str
    strip: str
    facts: tuple[tuple[str, str], ...]
    curves: Mapping[str, str]
    names: tuple[str, ...] = ()
    samples: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Explorer:
    """All frames and what their tiles show.

    Attributes:
        frames: in order of steps.
        panels: axes of the curves.
        labels: of the tiles at the last moment; empty where there are no pictures.
        target: a PNG of the target, or "".
        aspect: width over height of a tile, for CSS.
        no_pictures: "" or why there are none.
        samples: of image-like inputs: the sheet of thumbnails; None where the tiles are pictures, or there are none.
    """

    frames: tuple[Frame, ...]
    panels: tuple[MovingPanel, ...]
    labels: tuple[str, ...] = ()
    target: str = ""
    aspect: float = 1.0
    no_pictures: str = ""
    samples: Samples | None = None


def explorer(run: Run) -> Explorer:
    """The slider's frames.

    Raises:
        AnalysisError: the archive holds nothing that moves: no eigenvalues, no coefficients, no pictures.
    """
    rows = frame_rows(run)
    panels, paths = moving_panels(run, rows)
    try:
        strips, labels, target, aspect = _pictures(run, rows)
        reason = ""
    except AnalysisError as error:
        strips, labels, target, aspect, reason = [""] * len(rows), [()] * len(rows), "", 1.0, str(error)
    thumbnails = _samples(run, rows) if reason else None
    if not panels and not labels[-1] and thumbnails is None:
        raise missing("eigenvalues", "the slider over snapshots", run.path)
    if thumbnails is not None:
        labels, aspect, reason = list(thumbnails.names), thumbnails.aspect, ""
    places = thumbnails.places if thumbnails is not None else [()] * len(rows)
    frames = tuple(
        Frame(count(run.steps[row]), strip, _facts(run, row), path, names, shown)
        for row, strip, path, names, shown in zip(rows, strips, paths, labels, places, strict=True)
    )
    return Explorer(frames, tuple(panels), labels[-1], target, aspect, reason, thumbnails)


def _samples(run: Run, rows: list[int]) -> Samples | None:
    """Thumbnails where the inputs are images; the figure of their extreme samples says why there are none."""
    try:
        return samples(run, rows)
    except AnalysisError:
        return None


def _pictures(run: Run, rows: list[int]) -> tuple[list[str], list[tuple[str, ...]], str, float]:
    canvas = Canvas.of(run, _PIXELS)
    run.require("eigenvectors", "outputs", why="the slider over eigenfunctions")
    tiles = min(TILES, int(run.dataset.sizes["vector"]))
    targets = run.seen(run.values("targets"))[:, 0] if "targets" in run.dataset else None
    shared = _range(
        targets if targets is not None else np.stack([run.seen(run.at("outputs", row))[:, 0] for row in rows])
    )
    moving = moving_functions(run, tiles, rows)
    if len(moving) < len(rows):
        raise AnalysisError(
            "the slider over eigenfunctions",
            expected="eigenvectors at each of its moments",
            remedy="Look at a run that was measured at them.",
        )
    strips = [_strip(run, row, moving, moment, canvas, shared) for moment, row in enumerate(rows)]
    labels = [("output f", *moving.names(moment)) for moment in range(len(rows))]
    target = "" if targets is None else _uri(_grey(canvas.paint(targets), shared), "gray")
    return strips, labels, target, canvas.columns / canvas.rows


def frame_rows(run: Run) -> list[int]:
    """Rows of the frames: evenly spread in rank, and every row around a learning-rate change."""
    rows = set(representative_rows(run, MAX_FRAMES))
    if len(rows) < MAX_FRAMES:
        return sorted(rows, key=lambda row: (run.steps[row], row))
    changes, _ = learning_rate_changes(run)
    around = [row for change in changes[:5] for row in (change.before, *change.after[:2])]
    return sorted({*representative_rows(run, MAX_FRAMES - len(around)), *around}, key=lambda row: (run.steps[row], row))


def _strip(
    run: Run, row: int, moving: MovingFunctions, moment: int, canvas: Canvas, shared: tuple[float, float]
) -> str:
    output = _grey(canvas.paint(run.seen(run.at("outputs", row))[:, 0]), shared)
    vectors = canvas.paint(moving.at(moment))
    # One palette image holds both maps: 0 to 127 are greys, 128 to 255 the diverging map.
    tiled = [output // 2, *(128 + _signed(image) // 2 for image in vectors)]
    return _uri(np.concatenate(tiled, axis=1), "both")


def _grey(image: Floats, limits: tuple[float, float]) -> np.ndarray:
    scaled = (image - limits[0]) / (limits[1] - limits[0])
    return np.asarray(np.clip(np.nan_to_num(scaled, nan=0.5), 0, 1) * 255).astype(np.uint8)


def _signed(image: Floats) -> np.ndarray:
    top = float(np.percentile(np.abs(image), 99)) or 1.0
    return _grey(image, (-top, top))


def _range(values: Floats) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    return low, high if high > low else low + 1.0


def _uri(pixels: np.ndarray, palette: str) -> str:
    from PIL import Image

    image = Image.fromarray(pixels.astype(np.uint8))
    image.putpalette(_palette(palette))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _palette(name: str) -> list[int]:
    from matplotlib import colormaps

    from ..figures import COLOUR_MAPS

    if name == "gray":
        return [level for i in range(256) for level in (i, i, i)]
    greys = [level for i in range(128) for level in (2 * i,) * 3]
    diverging = (colormaps[COLOUR_MAPS["signed"]](np.linspace(0, 1, 128))[:, :3] * 255).round().astype(int)
    return [*greys, *diverging.ravel().tolist()]


def _facts(run: Run, row: int) -> tuple[tuple[str, str], ...]:
    facts = [("learning rate", ", ".join(f"{rate:g}" for rate in run.learning_rates[row]))]
    wanted = [
        ("λ₁ over its bound", "stability_ratio"),
        ("effective rank", "effective_rank"),
        ("loss on the probe", "probe_loss"),
        ("kernel distance", "kernel_distance_from_initial"),
    ]
    if run.has("energy_k", "target_energy"):
        column = nearest_k(run, (20,))[0]
        k = int(run.values("energy_k")[column])
        facts.append((f"E(y, {k})", number(float(run.values("target_energy")[row, column]))))
    facts += [(label, number(float(run.values(name)[row]))) for label, name in wanted if run.has(name)]
    return tuple(facts)
