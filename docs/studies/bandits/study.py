"""Neural bandits: how much to explore, as the theory of the tangent kernel prescribes it, as the evidence has it, or not at all.

    python docs/studies/bandits/study.py --size smoke|desk|full [--out DIR] [--share I/N]

plays what is not there yet, and writes results.json, README.md and the figure from it. With a share only every N-th of the
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
from bandit_page import figure, page  # noqa: E402
from bandit_runs import Plan, conditions, run  # noqa: E402
from results import Results, collect, share_of  # noqa: E402
from strategies import RANDOM, STRATEGIES  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        tasks: by name.
        widths: m.
        seeds: orders of the contexts, each with an initialisation of its own.
        plan: rounds, and when the network learns.
        pairs: of contexts and arms, on which the theorem's conditions are looked at.
    """

    tasks: tuple[str, ...]
    widths: tuple[int, ...]
    seeds: int
    plan: Plan
    pairs: int = 500


SIZES = {
    "smoke": Size(("digits", "breast_cancer"), (8, 16), 1, Plan(24, 10, (4, 8), refits=20), pairs=60),
    "desk": Size(("digits", "breast_cancer"), (32, 128, 512), 3, Plan(300, 150, (10, 40))),
    "full": Size(("digits", "breast_cancer"), (32, 128, 512, 2048), 10, Plan(569, 569, (100, 100)), pairs=4_000),
}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted study has every strategy at every width."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"conditions-{task}": partial(conditions, task, size.widths, size.plan, size.pairs) for task in size.tasks
    }
    runs |= {
        f"{task}-{place}-{width}-seed-{seed}": partial(run, task, strategy, width, seed, size.plan)
        for seed in range(size.seeds)
        for width in size.widths
        for task in size.tasks
        for place, strategy in enumerate(STRATEGIES)
        if strategy != RANDOM or width == size.widths[0]  # no network
    }
    return collect("bandits", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "bandits", SIZES, measure, HERE, page, bandits=figure)
