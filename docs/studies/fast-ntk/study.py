"""What a finite-width kernel costs: FLOPs and memory counted, time measured, method by method, architecture by architecture.

    python docs/studies/fast-ntk/study.py --size smoke|desk|full [--out DIR]

measures what is not there yet, and writes results.json, and README.md and the figure from it. Times are processor seconds of one
thread, methods in turns; so OMP_NUM_THREADS=1, and a machine that does nothing else.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import command  # noqa: E402  # the folder is no package
from fast_costs import METHODS, cost, kernels_agree, times  # noqa: E402
from fast_networks import Point  # noqa: E402
from fast_page import figure, page  # noqa: E402
from fast_sizes import Size  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


def _fcn_rows(samples: int, widths: tuple[int, ...]) -> tuple[Point, ...]:
    return tuple(Point("FCN", samples, 8, width, 4) for width in widths)


CORNERS = (Point("FCN", 1, 64, 8, 4), Point("FCN", 1, 64, 16, 4), Point("FCN", 1, 8, 16, 4), Point("FCN", 4, 16, 16, 4))
DESK_AXES = {
    "FCN": {
        "samples": (8, 16, 32, 64),
        "outputs": (1, 2, 4, 8, 16),
        "width": (16, 32, 64, 128, 256),
        "depth": (4, 8, 16, 32),
    },
    "CNN": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (8, 16, 32, 64), "depth": (2, 4, 8)},
    "ResNet": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (8, 16, 32), "depth": (1, 2, 4)},
    "transformer": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (16, 32, 64), "depth": (1, 2, 4)},
}
DESK_BASES = (
    Point("FCN", 32, 4, 64, 4),
    Point("CNN", 8, 4, 16, 4),
    Point("ResNet", 8, 4, 16, 2),
    Point("transformer", 8, 4, 32, 2),
)
DESK_PLACES = tuple(
    Point(name, samples, outputs, width, depth)
    for name, width, depth in (("FCN", 256, 4), ("CNN", 32, 4), ("ResNet", 32, 2), ("transformer", 64, 2))
    for samples, outputs in ((16, 10), (64, 1), (1, 64), (64, 10))
)
#: As many outputs as ImageNet has classes.
MANY = (
    Point("FCN", 1, 1000, 64, 4),
    Point("CNN", 1, 1000, 16, 4),
    Point("ResNet", 1, 1000, 16, 2),
    Point("transformer", 1, 1000, 32, 2),
)
SIZES = {
    "smoke": Size(
        bases=(Point("FCN", 4, 4, 64, 2), Point("transformer", 2, 2, 16, 1)),
        axes={
            "FCN": {"samples": (2, 4), "outputs": (2, 4), "width": (64, 128), "depth": (2, 4)},
            "transformer": {"samples": (1, 2), "outputs": (1, 2), "width": (16,), "depth": (1,)},
        },
        rows=_fcn_rows(64, (16, 32, 64)),
        corners=CORNERS[::2],  # one where products win, and one where they do not
        most_products=32,
    ),
    "desk": Size(
        bases=DESK_BASES,
        axes=DESK_AXES,
        rows=_fcn_rows(128, (16, 32, 64, 128)),
        corners=CORNERS,
        places=DESK_PLACES,
        many=MANY,
        turns=5,
    ),
    "full": Size(
        bases=DESK_BASES,
        axes=DESK_AXES,
        rows=_fcn_rows(512, (16, 32, 64, 128, 256)),
        corners=CORNERS,
        places=tuple(dataclasses.replace(p, samples=4 * p.samples, width=2 * p.width) for p in DESK_PLACES),
        many=MANY,
        turns=15,
    ),
}


def counts(size: Size) -> Iterator[tuple[Point, str, bool]]:
    """(kernel, method, whether it is symmetric) of every count."""
    for base in size.bases:
        for _, point in size.along(base):
            for method in (*METHODS, "product"):
                if method != "products" or point.samples * point.outputs <= size.most_products:
                    yield point, method, False
    yield from ((point, method, False) for point in size.rows for method in ("structured", "jacobian"))
    yield from ((point, method, False) for point in size.corners for method in METHODS)
    yield from ((point, method, False) for point in size.many for method in ("structured", "jacobian"))
    yield from ((point, method, True) for point in size.places for method in size.methods(point))


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every count, then every comparison of kernels and the times."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{'symmetric ' if symmetric else ''}{method} {point.key}": partial(cost, point, method, symmetric=symmetric)
        for point, method, symmetric in counts(size)
    }
    runs |= {f"agreement {base.key}": partial(kernels_agree, base) for base in size.bases}
    if size.turns:
        runs |= {f"times {p.key}": partial(times, p, size.methods(p), turns=size.turns) for p in size.places}
        runs |= {f"times {p.key}": partial(times, p, ("structured", "jacobian"), turns=size.turns) for p in size.many}
    return collect("fast-ntk", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "fast-ntk", SIZES, measure, HERE, page, flops=figure)
