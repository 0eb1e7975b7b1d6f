"""Does alignment speed learning up? The kernel that training made, held fixed, against the one of the start.

    python docs/studies/alignment-speed/study.py --size smoke|desk|full [--out DIR]

runs what is not there yet, and writes results.json and README.md from it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from results import Results, collect, publish  # noqa: E402
from speed_page import page  # noqa: E402
from speed_runs import run  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        seeds: of points and initialisation.
        samples: N points of the portrait.
        width: of the hidden layers.
        depth: weight layers.
        moment: t_0.
        updates: after which the network is cut off.
        levels: shares of the first loss.
    """

    seeds: int
    samples: int
    width: int
    depth: int = 6
    moment: int = 1000
    updates: int = 12_000
    levels: tuple[float, ...] = (0.5, 0.2, 0.1)


SIZES = {
    "smoke": Size(seeds=1, samples=40, width=16, depth=4, moment=200, updates=400, levels=(0.7, 0.5)),
    "desk": Size(seeds=3, samples=500, width=64),
    "full": Size(seeds=10, samples=2000, width=256, updates=60_000),
}


def measure(name: str, size: Size, folder: Path) -> Results:
    """Every seed."""
    words = {
        "samples": size.samples, "width": size.width, "depth": size.depth, "moment": size.moment, "updates": size.updates,
        "levels": size.levels,
    }  # fmt: skip
    return collect(
        "alignment-speed",
        name,
        size,
        {f"seed-{seed}": partial(run, seed, **words) for seed in range(size.seeds)},
        folder,
    )


def main() -> None:
    (name, size, out), _ = command_line(
        argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "alignment-speed"
    )
    publish(measure(name, size, out), HERE if name == "desk" else out, page)


if __name__ == "__main__":
    main()
