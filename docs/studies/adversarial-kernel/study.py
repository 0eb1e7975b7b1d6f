"""Adversarial examples that a kernel makes before any training; its features; its motion in adversarial training.

    python docs/studies/adversarial-kernel/study.py --size smoke|desk|full [--out DIR] [--share I/N]

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
from adversarial_page import figure, page  # noqa: E402
from adversarial_runs import run  # noqa: E402
from digit_images import Source  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the images.
        counts: images to train on, and held out.
        widths: of both hidden layers.
        seeds: of each width.
        probe: training images on which the kernel is watched.
        modes: features that are looked at.
        featured: the width at which they are.
        size: ε of the attacks and of adversarial training.
        small: ε by which features are misled.
        epochs: of each training.
        batch: of a minibatch.
        share: η as a share of 2N/λ_1(Θ_0).
    """

    source: Source
    counts: tuple[int, int]
    widths: tuple[int, ...]
    seeds: int
    probe: int
    modes: int
    featured: int
    size: float = 0.05
    small: float = 0.01
    epochs: int = 30
    batch: int = 50
    share: float = 0.25


SIZES = {
    "smoke": Size(
        "digits", (100, 120), (16, 64), 1, probe=24, modes=8, featured=64, size=0.15, small=0.05, epochs=6, batch=25
    ),
    "desk": Size("mnist", (500, 400), (16, 64, 256, 1024), 3, probe=60, modes=50, featured=256),
    "full": Size("mnist", (600, 400), (16, 64, 256, 1024, 4096), 10, probe=200, modes=100, featured=1024, epochs=100),
}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted sweep has every width."""
    words = {
        "size": size.size, "epochs": size.epochs, "batch": size.batch, "share": size.share, "probe": size.probe,
        "small": size.small,
    }  # fmt: skip

    def one(width: int, seed: int) -> dict[str, Any]:
        return run(size.source, size.counts, width, seed, modes=size.modes if width == size.featured else 0, **words)

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{width}-seed-{seed}": partial(one, width, seed) for seed in range(size.seeds) for width in size.widths
    }
    return collect("adversarial-kernel", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "adversarial-kernel", SIZES, measure, HERE, page, adversarial=figure)
