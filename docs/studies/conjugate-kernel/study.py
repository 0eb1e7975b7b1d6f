"""The kernel of the last hidden layer in the place of the tangent kernel: what each of them foretells on held-out points.

    python docs/studies/conjugate-kernel/study.py --size smoke|desk|full [--out DIR] [--share I/N]

trains what is not there yet, and writes results.json, README.md and the figure from it. With a share only every N-th of the
runs is made, from the I-th, and no page: so that two processes do half each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import command  # noqa: E402  # the folder is no package
from conjugate_page import figure, page  # noqa: E402
from conjugate_runs import run  # noqa: E402
from conjugate_tasks import TASKS  # noqa: E402
from digit_images import Source  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the images.
        tasks: by name.
        widths: of all three hidden layers.
        seeds: of each width.
        train: points of each task, and as many that choose a ridge.
        held_out: points.
        images: that are held out.
        moments: updates after which kernels are taken.
        rate: of Adam.
    """

    source: Source
    tasks: tuple[str, ...]
    widths: tuple[int, ...]
    seeds: int
    train: int = 200
    held_out: int = 1000
    images: int = 600
    moments: tuple[int, ...] = (0, 20, 200, 2000)
    rate: float = 1e-3


SIZES = {
    "smoke": Size("digits", ("|x|", "|x|⁵", "3 or 8"), (8, 64), 1, train=48, held_out=80, images=80, moments=(0, 100)),
    "desk": Size("mnist", tuple(TASKS), (16, 128), seeds=5),
    "full": Size("mnist", tuple(TASKS), (16, 128, 1024), seeds=20),
}


def network(size: Size, task: str, width: int, seed: int) -> dict[str, Any]:
    """The numbers of one network."""
    held_out = size.images if task == "3 or 8" else size.held_out
    data = TASKS[task](size.train, held_out, seed, size.source)
    return {"task": task} | run(data, width, seed, size.moments, size.rate)


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted sweep has every task."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"task-{list(TASKS).index(task)}-{width}-seed-{seed}": partial(network, size, task, width, seed)
        for seed in range(size.seeds)
        for width in size.widths
        for task in size.tasks
    }
    return collect("conjugate-kernel", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "conjugate-kernel", SIZES, measure, HERE, page, conjugate=figure)
