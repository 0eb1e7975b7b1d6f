"""LeNet-5 beside its linearisation, over width and difficulty.

    python docs/studies/convolutional-networks/study.py --size smoke|desk|full [--out DIR] [--share I/N]

trains what is not there yet, and writes results.json, README.md and the figure from it. With a share only every N-th of the
runs is made, from the I-th, and no page: so that two processes do half each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from conv_page import figure, page  # noqa: E402
from conv_runs import Difficulty, run  # noqa: E402
from digit_images import Source  # noqa: E402
from results import Results, collect, share_of  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        source: of the images.
        multipliers: c.
        seeds: of each width.
        train: images to learn from.
        test: unseen ones.
        unseen: on so many of them kernel regression is judged.
        epochs: of both trainings.
        tasks: beside the control.
        batch: of a minibatch.
        rate: η as a share of 2N/λ_1(Θ_0).
    """

    source: Source
    multipliers: tuple[float, ...]
    seeds: int
    train: int
    test: int
    unseen: int
    epochs: int
    tasks: tuple[Difficulty, ...] = ("parity", "classes", "permuted")
    batch: int = 50
    rate: float = 0.25


SIZES = {
    "smoke": Size(
        "digits", (0.5, 1.0), seeds=2, train=100, test=400, unseen=100, epochs=8, tasks=("classes",), batch=20
    ),
    "desk": Size("mnist", (0.5, 1.0, 2.0), seeds=3, train=200, test=1000, unseen=200, epochs=40, batch=25),
    "full": Size("mnist", (0.25, 0.5, 1.0, 2.0, 4.0), seeds=5, train=500, test=1000, unseen=1000, epochs=200),
}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every pair of this share, seed by seed; the control at c = 1 alone."""
    words = {
        "source": size.source, "train": size.train, "test": size.test, "epochs": size.epochs, "batch": size.batch,
        "share": size.rate, "unseen": size.unseen,
    }  # fmt: skip
    runs: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(size.seeds):
        kinds = [(task, c) for c in size.multipliers for task in size.tasks]
        for difficulty, c in [*kinds, ("random", 1.0)]:
            runs[f"{difficulty}-{c:g}-seed-{seed}"] = partial(run, difficulty, c, seed, **words)
    return collect("convolutional-networks", name, size, share_of(runs, share), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", help="I/N: every N-th run, from the I-th, and no page")
    (name, size, out), words = command_line(parser, SIZES, "convolutional-networks")
    if words.share:
        measure(name, size, out, [int(part) for part in words.share.split("/")])
        return
    home = HERE if name == "desk" else out
    measure(name, size, out).write(home / "results.json")
    results = Results.read(home / "results.json")
    (home / "README.md").write_text(page(results), encoding="utf-8")
    figure(results, home / "convolutional.png")
    print(f"wrote {home / 'README.md'}")


if __name__ == "__main__":
    main()
