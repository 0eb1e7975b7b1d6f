"""Do wide networks forget less? Tasks in turn, a short and a long time each, and the kernel where the task changes.

    python docs/studies/continual-learning/study.py --size smoke|desk|full [--out DIR] [--share I/N]

trains what is not there yet, and writes results.json, README.md and the figure from it. With a share only every N-th of the
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
from continual_page import figure, page  # noqa: E402
from continual_runs import Budget, Order, run  # noqa: E402
from digit_images import Source  # noqa: E402
from results import Results, collect, share_of  # noqa: E402
from wide_networks import Parametrisation  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the images.
        angles: of the tasks, in degrees.
        train: images of each task.
        test: unseen images.
        widths: of both hidden layers.
        seeds: of each width.
        long: epochs after which the long budget ends at the latest.
        settings: parametrisations.
        probe: images on which kernels are compared.
        short: epochs of the short budget.
        accuracy: on the training images, which ends the long budget.
        batch: of a minibatch.
        rate: η as a share of 2N/λ_1(Θ_0).
    """

    source: Source
    angles: tuple[float, ...]
    train: int
    test: int
    widths: tuple[int, ...]
    seeds: int
    long: int
    settings: tuple[Parametrisation, ...] = ("ntk", "standard")
    probe: int = 60
    short: int = 5
    accuracy: float = 0.995
    batch: int = 32
    rate: float = 0.25

    @property
    def budgets(self) -> dict[str, Budget]:
        return {"short": Budget(self.short), "long": Budget(self.long, self.accuracy)}


FIVE = (0.0, 22.5, 45.0, 67.5, 90.0)
SIZES = {
    "smoke": Size("digits", (0.0, 90.0), 200, 200, (16, 128), seeds=1, long=12, settings=("ntk",), probe=20, short=2),
    "desk": Size("mnist", FIVE, 400, 500, (16, 64, 256), seeds=3, long=40),
    "full": Size("mnist", FIVE, 900, 500, (32, 128, 512, 2048), seeds=5, long=200),
}


def kinds(size: Size) -> Iterator[tuple[Parametrisation, str, Order]]:
    """Setting, budget and order of the tasks: every setting with both budgets, and two controls."""
    for setting in size.settings:
        yield from ((setting, "short", "turning"), (setting, "long", "turning"), (setting, "short", "shuffled"))
    yield from ((size.settings[-1], budget, "same") for budget in size.budgets)


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted sweep has every setting."""
    words = {
        "source": size.source, "angles": size.angles, "train": size.train, "test": size.test, "probe": size.probe,
        "batch": size.batch, "share": size.rate,
    }  # fmt: skip

    def one(kind: tuple[Parametrisation, str, Order], width: int, seed: int) -> dict[str, Any]:
        setting, budget, order = kind
        found = run(setting, size.budgets[budget], order, width, seed, **words)
        return {"setting": setting, "budget": budget, "order": order} | found

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{'-'.join(kind)}-{width}-seed-{seed}": partial(one, kind, width, seed)
        for seed in range(size.seeds)
        for width in size.widths
        for kind in kinds(size)
    }
    return collect("continual-learning", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "continual-learning", SIZES, measure, HERE, page, continual=figure)
