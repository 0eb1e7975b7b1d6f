"""Uncertainty from the tangent kernel over width: before training, after it, by evidence, and of ensembles.

    python docs/studies/uncertainty/study.py --size smoke|desk|full [--out DIR]

trains what is not there yet, and writes results.json, README.md and the figure from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from results import Results, collect, publish  # noqa: E402
from uncertain_page import figure, page  # noqa: E402
from uncertain_runs import Limit, network_numbers  # noqa: E402
from uncertain_tasks import TASKS  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        widths: of both hidden layers.
        seeds: of each width: the members of an ensemble.
        samples: N of each task.
        level: of the first loss, at which an infinitely wide network stops.
        modes: of the ensembles' covariance, in which it is compared.
    """

    widths: tuple[int, ...]
    seeds: int
    samples: dict[str, int] = field(default_factory=lambda: {"diabetes": 300, "wave": 100})
    level: float = 0.05
    modes: int = 20


SIZES = {
    "smoke": Size(widths=(16, 128), seeds=3, samples={"diabetes": 40, "wave": 30}, level=0.1, modes=8),
    "desk": Size(widths=(32, 128, 512), seeds=10),
    "full": Size(widths=(32, 128, 512, 2048), seeds=20),
}


def network(size: Size, task: str, width: int, seed: int) -> dict[str, Any]:
    """The numbers of one network."""
    found = network_numbers(TASKS[task](size.samples[task]), width, seed, size.level)
    return {"kind": "network", "task": task, "width": width, "seed": seed, **found}


def limit(size: Size, task: str) -> dict[str, Any]:
    """Those of infinite width."""
    data = TASKS[task](size.samples[task])
    return {"kind": "limit", "task": task, **Limit.of(data, size.level).numbers(data, size.modes)}


def measure(name: str, size: Size, folder: Path) -> Results:
    """Every run, seed by seed, so that an interrupted sweep has every width."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"limit-{task}": partial(limit, size, task) for task in size.samples
    }
    runs |= {
        f"{task}-{width}-seed-{seed}": partial(network, size, task, width, seed)
        for seed in range(size.seeds)
        for width in size.widths
        for task in size.samples
    }
    return collect("uncertainty", name, size, runs, folder)


def main() -> None:
    (name, size, out), _ = command_line(
        argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "uncertainty"
    )
    publish(measure(name, size, out), HERE if name == "desk" else out, page, uncertainty=figure)


if __name__ == "__main__":
    main()
