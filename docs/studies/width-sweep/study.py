"""One sweep over width for two papers on the limits of the NTK, and the deep limit in closed form.

    python docs/studies/width-sweep/study.py --size smoke|desk|full [--out DIR] [--share I/N]

trains what is not there yet, and writes results.json, and README.md and the figures from it. With a share only every N-th of the
runs is made, from the I-th, and no page: so that two processes do half each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import command  # noqa: E402  # the folder is no package
from deep_limit import SCALINGS, odd_images, outcome, regression, task  # noqa: E402
from deep_runs import limits, scaled  # noqa: E402
from digit_images import Source  # noqa: E402
from measured import numbers  # noqa: E402
from results import Results, collect, share_of  # noqa: E402
from width_page import depth_figure, page, width_figure  # noqa: E402
from width_runs import SETTINGS, quiet, run  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        widths: of each setting; channels for the CNN.
        seeds: of each width.
        samples: N digits, trained on and measured.
        steps: full-batch updates.
        directions: random points on the sphere, for each seed.
        counts: n, the sizes of the data sets of the closed form.
        depths: at which the deep kernel is compared with its limits.
        large: n of data sets that are solved by Cholesky at t = ∞, each twice the one before.
        source: of the images.
        images: n of theirs, the last for the scalings of :data:`LARGE` alone.
        tests: images to test on.
        device: that trains and measures; "auto" is a GPU where there is one.
    """

    widths: dict[str, tuple[int, ...]]
    seeds: int
    samples: int
    steps: int
    directions: int
    counts: tuple[int, ...]
    depths: tuple[int, ...]
    large: tuple[int, ...]
    source: Source
    images: tuple[int, ...]
    tests: int
    device: str = "cpu"


def _widths(lazy: tuple[int, ...], other: tuple[int, ...], channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        name: channels if s.convolutional else lazy if s.parametrisation == "ntk" else other
        for name, s in SETTINGS.items()
    }


SIZES = {
    "smoke": Size(
        widths={"relu-ntk": (16, 64, 256), "relu-mup": (16, 64, 256)},
        seeds=2,
        samples=16,
        steps=48,
        directions=1,
        counts=(50, 100, 200),
        depths=(100, 1000),
        large=(100, 200),
        source="digits",
        images=(50, 100, 200),
        tests=100,
    ),
    "desk": Size(
        widths=_widths((32, 64, 128, 256, 512, 1024), (32, 128, 512), (8, 16, 32, 64)),
        seeds=6,
        samples=64,
        steps=320,
        directions=2,
        counts=(125, 250, 500, 1000, 2000),
        depths=(20, 100, 1000, 20_000),
        large=(5_000, 10_000),
        source="mnist",
        images=(500, 1000, 2000, 4000),
        tests=1000,
    ),
    "full": Size(
        widths=_widths((32, 64, 128, 256, 512, 1024, 2048, 4096), (32, 128, 512, 2048), (8, 16, 32, 64, 128, 256)),
        seeds=10,
        samples=128,
        steps=2000,
        directions=8,
        counts=(125, 250, 500, 1000, 2000, 4000, 8000),
        depths=(20, 100, 1000, 20_000, 100_000),
        large=(10_000, 20_000),
        source="mnist",
        images=(500, 1000, 2000, 4000),
        tests=1000,
        device="auto",
    ),
}


#: scalings of many points and of all images: a depth of n^1.5 takes longer than the points do
LARGE = "L = 5, t = ∞", "L = n, t = ∞"
#: scalings of the images
REAL = (*LARGE, "L = n^1.5, t = ∞")


def trainings(folder: Path, size: Size) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every training of the sweep, seed by seed, so that an interrupted sweep has every setting."""
    words = {"samples": size.samples, "steps": size.steps, "directions": size.directions, "device": size.device}

    def one(name: str, width: int, seed: int) -> dict[str, Any]:
        with quiet():
            path = run(folder, SETTINGS[name], width, seed, **words)
        return {"kind": "training", "setting": name, "width": width, "seed": seed, "numbers": numbers(path)}

    return {
        f"{name}-{width}-seed-{seed}": partial(one, name, width, seed)
        for seed in range(size.seeds)
        for name, widths in size.widths.items()
        for width in widths
    }


def closed_forms(size: Size) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The deep limit: what the kernel tends to, every scaling on the sphere, some of many points, and of images."""
    yield "limits", partial(limits, size.depths)
    for scaling in SCALINGS:
        named = scaling.name.replace("/", " over ")  # a run's name is a file's
        sphere, many = (partial(task, counts[-1]) for counts in (size.counts, size.large))
        real = partial(odd_images, size.source, size.images[-1], size.tests)
        yield f"sphere, {named}", partial(scaled, "sphere", sphere, size.counts, scaling, outcome)
        if scaling.name in LARGE:
            yield f"large, {named}", partial(scaled, "large", many, size.large, scaling, regression)
        if scaling.name in REAL:
            counts = size.images if scaling.name in LARGE else size.images[:-1]
            yield f"images, {named}", partial(scaled, "images", real, counts, scaling, regression)


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share."""
    runs = {**trainings(folder, size), **dict(closed_forms(size))}
    return collect("width-sweep", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(
        __doc__.splitlines()[0], "width-sweep", SIZES, measure, HERE, page, width=width_figure, depth=depth_figure
    )
