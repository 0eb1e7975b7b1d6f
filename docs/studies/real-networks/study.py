"""Real convolutional networks on real images, over width: each beside its linearisation, and what its kernel does meanwhile.

    python docs/studies/real-networks/study.py --size smoke|desk|full [--out DIR] [--share I/N]

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
from digit_images import Source  # noqa: E402
from image_page import figure, page  # noqa: E402
from image_runs import run  # noqa: E402
from image_tasks import task  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the digits.
        kinds: network and task, with the multipliers of the widths.
        once: those of one seed, whose numbers decide nothing.
        seeds: of each of the others.
        train: images to learn from, by task; "patches" has its own.
        patches: to learn from, of the photographs.
        test: unseen images.
        epochs: at most.
        probe: training images on which kernels are compared.
        few: of them, those of C'.
        others: unseen images of kernel regression.
        batch: of a minibatch.
        rate: η as a share of 2N/λ_1(Θ_0).
        level: of the first loss, at which training ends.
    """

    source: Source
    kinds: dict[str, tuple[float, ...]]
    once: dict[str, tuple[float, ...]]
    seeds: int
    train: int
    patches: int
    test: int
    epochs: int
    probe: int = 100
    few: int = 15
    others: int = 500
    batch: int = 32
    rate: float = 0.1
    level: float = 0.1


USUAL = (0.25, 0.5, 1.0)
OTHERS = ("pair", "permuted", "random")
SIZES = {
    "smoke": Size(
        "digits", {"LeNet-5 ten": (0.5, 2.0), "LeNet-5 random": (0.5,)}, {}, seeds=1, train=60, patches=24, test=60, epochs=4,
        probe=20, few=3, others=30, batch=20,
    ),
    "desk": Size(
        "mnist", {"LeNet-5 ten": (*USUAL, 2.0), "AlexNet-small ten": USUAL, "WRN-10 patches": USUAL}
        | {f"LeNet-5 {name}": (1.0,) for name in OTHERS}, {}, seeds=3, train=300, patches=150, test=500, epochs=40,
    ),
    "full": Size(
        "mnist", {"LeNet-5 ten": (*USUAL, 2.0, 4.0), "AlexNet-small ten": (*USUAL, 2.0), "WRN-10 patches": (*USUAL, 2.0)}
        | {f"LeNet-5 {name}": (*USUAL, 2.0) for name in OTHERS}, {}, seeds=6, train=500, patches=600, test=500, epochs=200,
    ),
}  # fmt: skip


def one(size: Size, kind: str, multiplier: float, seed: int) -> dict[str, Any]:
    """The numbers of one network."""
    network, name = kind.split(" ")
    train = size.patches if name == "patches" else size.train
    found = run(
        network, task(name, size.source, train, size.test, seed), multiplier, seed, probe=size.probe, few=size.few,
        others=size.others, batch=size.batch, share=size.rate, epochs=size.epochs, level=size.level,
    )  # fmt: skip
    return {"network": network, "task": name} | found


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, seed by seed, so that an interrupted sweep has every network."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{kind.replace(' ', '-')}-{multiplier:g}-seed-{seed}": partial(one, size, kind, multiplier, seed)
        for seed in range(size.seeds)
        for kind, multipliers in [*size.kinds.items(), *(size.once.items() if seed == 0 else ())]
        for multiplier in multipliers
    }
    return collect("real-networks", name, size, share_of(runs, share), folder)


if __name__ == "__main__":
    command.run(__doc__.splitlines()[0], "real-networks", SIZES, measure, HERE, page, **{"real-networks": figure})
