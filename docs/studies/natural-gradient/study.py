"""Natural gradient against gradient descent over width: is it fast, and for the theory's reason?

    python docs/studies/natural-gradient/study.py --size smoke|desk|full [--out DIR]

trains what is not there yet, and writes results.json, README.md and the figure from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from claims import command_line  # noqa: E402  # the folder is no package
from natural_descent import Start, linear_updates, natural, plain  # noqa: E402
from natural_page import figure, page  # noqa: E402
from odd_digits import odd_digits  # noqa: E402
from results import Results, collect, publish  # noqa: E402
from wide_networks import Activation, Parametrisation, mlp  # noqa: E402

SETTINGS: dict[str, tuple[Parametrisation, Activation]] = {
    "relu-ntk": ("ntk", "relu"),
    "tanh-ntk": ("ntk", "tanh"),
    "relu-mup": ("mup", "relu"),
    "tanh-mup": ("mup", "tanh"),
}


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        widths: of both hidden layers.
        seeds: of each width.
        samples: N digits.
        updates: of natural gradient.
        descent: updates after which gradient descent is cut off.
        watched: updates after which C' is measured.
        rate: η of natural gradient.
        settings: parametrisation and activation, by name.
    """

    widths: tuple[int, ...]
    seeds: int
    samples: int
    updates: int = 40
    descent: int = 20_000
    watched: tuple[int, ...] = (1, 5, 10, 20, 40)
    rate: float = 0.25
    settings: tuple[str, ...] = tuple(SETTINGS)


SIZES = {
    "smoke": Size(
        widths=(16, 64, 256), seeds=2, samples=16, descent=600, watched=(40,), settings=("relu-ntk", "relu-mup")
    ),
    "desk": Size(widths=(32, 64, 128, 256, 512, 1024), seeds=6, samples=64),
    "full": Size(widths=(32, 64, 128, 256, 512, 1024, 2048, 4096), seeds=10, samples=128),
}


def run(size: Size, setting: str, width: int, seed: int) -> dict[str, Any]:
    """The numbers of one start."""
    x, y = (part.double() for part in odd_digits(size.samples))
    torch.manual_seed(seed)
    network = mlp(*SETTINGS[setting], width).double()
    start = Start.of(network, x, y)
    path = natural(network, x, y, start, rate=size.rate, updates=size.updates, watched=size.watched)
    network.load_state_dict(start.parameters)
    slow = plain(network, x, y, start, updates=size.descent)
    return {
        "setting": setting,
        "width": width,
        "seed": seed,
        "condition": start.condition,
        "natural_norms": path.norms,
        "natural_constants": path.constants,
        "natural_share": max(path.distances) / start.radius,
        "natural_updates": path.updates_to(),
        "plain_updates": slow.updates_to(),
        "plain_made": len(slow.norms) - 1,
        "plain_constant": slow.constants[-1],
        "plain_share": slow.distances[-1] / start.radius,
        "linear_updates": linear_updates(start),
    }


def measure(name: str, size: Size, folder: Path) -> Results:
    """Every run, seed by seed, so that an interrupted sweep has every setting."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"{setting}-{width}-seed-{seed}": partial(run, size, setting, width, seed)
        for seed in range(size.seeds)
        for width in size.widths
        for setting in size.settings
    }
    return collect("natural-gradient", name, size, runs, folder)


def main() -> None:
    (name, size, out), _ = command_line(
        argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "natural-gradient"
    )
    publish(measure(name, size, out), HERE if name == "desk" else out, page, natural=figure)


if __name__ == "__main__":
    main()
