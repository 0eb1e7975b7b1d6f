"""Is it this kernel? Output and target in the modes of the own kernel, of the one at the start and of a foreign one.

    python docs/studies/alignment-contrast/study.py --size smoke|desk|full [--out DIR]

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
from contrast_page import page  # noqa: E402
from contrast_runs import run  # noqa: E402
from results import Results, collect, publish  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        seeds: of points and initialisation.
        samples: N points of the portrait.
        width: of the hidden layers.
        depth: weight layers.
        rate: δ.
        moments: t, the first state of each pair.
        k: numbers of modes, at most N/10.
    """

    seeds: int
    samples: int
    width: int
    depth: int = 6
    rate: float = 0.25
    moments: tuple[int, ...] = (100, 500, 1000, 2000)
    k: tuple[int, ...] = (20, 50, 100)


SIZES = {
    "smoke": Size(seeds=1, samples=100, width=24, depth=4, moments=(100, 400), k=(5, 10)),
    "desk": Size(seeds=3, samples=1000, width=64),
    "full": Size(seeds=6, samples=4000, width=256, moments=(100, 1000, 10_000), k=(20, 100, 400)),
}


def measure(name: str, size: Size, folder: Path) -> Results:
    """Every seed."""
    words = {
        "samples": size.samples, "width": size.width, "depth": size.depth, "rate": size.rate, "moments": size.moments,
        "k": size.k,
    }  # fmt: skip
    return collect(
        "alignment-contrast",
        name,
        size,
        {f"seed-{seed}": partial(run, seed, **words) for seed in range(size.seeds)},
        folder,
    )


def main() -> None:
    (name, size, out), _ = command_line(
        argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "alignment-contrast"
    )
    publish(measure(name, size, out), HERE if name == "desk" else out, page)


if __name__ == "__main__":
    main()
