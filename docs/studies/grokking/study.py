"""Grokking: a network learns sums by heart, much later it computes them. What does its tangent kernel know, and when?

    python docs/studies/grokking/study.py --size smoke|desk|full [--out DIR] [--share I/N]

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
from grok_page import figure, page  # noqa: E402
from grok_runs import run  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        p: the modulus.
        share: of the pairs that are learned from.
        width: of the hidden layer.
        updates: full-batch.
        moments: at which the kernel is measured.
        seeds: of each scale.
        scales: α of the outputs; the control of labels without a rule has the first.
        rate: of AdamW.
        decay: of the weights.
        look: updates between two looks at the accuracies.
    """

    p: int
    share: float
    width: int
    updates: int
    moments: int
    seeds: int
    scales: tuple[float, ...]
    rate: float = 1e-3
    decay: float = 1.0
    look: int = 20


SIZES = {
    "smoke": Size(11, 0.6, 64, 1_000, 6, seeds=1, scales=(1.0,), rate=5e-3),
    "desk": Size(29, 0.4, 128, 12_000, 40, seeds=3, scales=(1.0, 4.0, 16.0), rate=3e-3),
    "full": Size(59, 0.4, 512, 60_000, 60, seeds=6, scales=(1.0, 4.0, 16.0)),
}


def kinds(size: Size) -> Iterator[tuple[float, bool]]:
    """Scale, and whether labels are without a rule."""
    yield from ((scale, False) for scale in size.scales)
    yield size.scales[0], True


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted study has every scale."""
    words = {
        "updates": size.updates, "moments": size.moments, "rate": size.rate, "decay": size.decay, "look": size.look
    }  # fmt: skip

    def one(scale: float, random: bool, seed: int) -> dict[str, Any]:
        return run(size.p, size.share, size.width, scale, seed, random=random, **words)

    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{'random' if random else 'sums'}-{scale:g}-seed-{seed}": partial(one, scale, random, seed)
        for seed in range(size.seeds)
        for scale, random in kinds(size)
    }
    return collect("grokking", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "grokking", SIZES, measure, HERE, page, grokking=figure)
