"""Networks beside their linearisations, on targets of known difficulty, and beside their infinitely wide limit.

    python docs/studies/linear-and-infinite/study.py --size smoke|desk|full [--out DIR] [--share I/N]

trains what is not there yet, and writes results.json, README.md and the figure from it. With a share only every N-th of the
runs is made, from the I-th, and no page: so that two processes do half each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import command  # noqa: E402  # the folder is no package
import reference_infinite as infinite  # noqa: E402
import reference_linear as linear  # noqa: E402
from reference_page import figure, page  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        train: digits of the targets, and as many held out.
        width: of the networks that learn targets.
        modes: k of the targets.
        seeds: of them.
        momentum: how targets are learned.
        few: digits that ensembles learn.
        others: held out.
        widths: of the ensembles.
        ensembles: of each width.
        members: of each.
        level: of the first loss, at which an infinitely wide network stops.
        decay: of the weights, over all updates.
        watched: modes of Θ_0 along which a trained kernel is looked at.
    """

    train: int
    width: int
    modes: tuple[int, ...]
    seeds: int
    few: int
    others: int
    widths: tuple[int, ...]
    ensembles: int
    members: int = 4
    momentum: linear.Momentum = field(default_factory=linear.Momentum)
    level: float = 0.1
    decay: float = 0.5
    watched: int = 400


SIZES = {
    "smoke": Size(
        120, 32, (2, 40), 1, few=40, others=40, widths=(16, 48, 144), ensembles=2, members=2,
        momentum=linear.Momentum(epochs=15), level=0.3, watched=80,
    ),
    "desk": Size(600, 100, (2, 5, 10, 30, 100, 300), 5, few=200, others=400, widths=(32, 128, 512, 1024), ensembles=3),
    "full": Size(850, 100, (2, 5, 10, 30, 100, 300), 20, few=800, others=900, widths=(64, 256, 1024, 4096), ensembles=10),
}  # fmt: skip


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, ensemble by ensemble, so that an interrupted sweep has every width."""
    task = size.few, size.others, size.level
    runs: dict[str, Callable[[], dict[str, Any]]] = {"limit": partial(infinite.limit_numbers, *task)}
    for place in range(max(size.seeds, size.ensembles)):
        if place < size.seeds:
            words = size.modes, size.watched, place, size.momentum
            runs[f"targets-seed-{place}"] = partial(linear.run, size.train, size.train, size.width, *words)
        if place < size.ensembles:
            seeds = range(place * size.members, (place + 1) * size.members)
            runs |= {
                f"ensemble-{width}-{place}": partial(infinite.ensemble, *task, width, seeds, size.decay)
                for width in size.widths
            }
    return collect("linear-and-infinite", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "linear-and-infinite", SIZES, measure, HERE, page, reference=figure)
