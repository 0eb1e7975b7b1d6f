"""One hidden layer whose gates start closed: sparse, with a kernel of its own, and as fast?

    python docs/studies/biased-ntk/study.py --size smoke|desk|full [--out DIR] [--share I/N]

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
from biased_page import figure, page  # noqa: E402
from biased_runs import run  # noqa: E402
from digit_images import Source  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the images.
        count: N.
        widths: m.
        seeds: of each width.
        biases: B.
        level: of the first loss, at which training ends.
        most: updates.
    """

    source: Source
    count: int
    widths: tuple[int, ...]
    seeds: int
    biases: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    level: float = 1e-3
    most: int = 2_000


SIZES = {
    "smoke": Size("digits", 30, (128, 512, 2048), 2, biases=(0.0, 1.0), level=1e-2, most=500),
    "desk": Size("mnist", 100, (256, 1024, 4096, 16_384), seeds=5),
    "full": Size("mnist", 800, (256, 1024, 4096, 16_384, 65_536), seeds=10),
}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted sweep has every setting."""
    words = {"level": size.level, "most": size.most}
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{bias:g}-{width}-seed-{seed}": partial(run, size.source, size.count, width, bias, seed, **words)
        for seed in range(size.seeds)
        for width in size.widths
        for bias in size.biases
    }
    return collect("biased-ntk", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "biased-ntk", SIZES, measure, HERE, page, biased=figure)
