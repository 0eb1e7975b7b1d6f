"""Neural Spectrum Alignment (Kopitkov and Indelman 2020, arXiv 1910.08720), redone.

    python docs/studies/spectrum-alignment/study.py --size smoke|desk|reduced|full [--out DIR] [--share I/N]
                                                    [--only main] [--until 300000]

trains what is not there yet, each decay of the learning rate with a control from the same state, and writes results.json, the
page from it, and the figures from the archives. With a share only every N-th of the runs is made, from the I-th, and no page.

``reduced`` is the full size's network and path at a size for a CPU, and decides nothing.

A device may be lent by the minute: ``--only`` trains one group of runs, and ``--until`` ends them at an update, from which the
next call goes on. Nothing is written then.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from alignment_page import draw, page  # noqa: E402  # the folder is no package
from alignment_runs import Recipe, data, run_with_controls  # noqa: E402
from alignment_tracks import looks, pictures, track  # noqa: E402
from claims import command_line  # noqa: E402
from portrait import mlp  # noqa: E402
from results import Results, collect, publish, share_of  # noqa: E402

from kerneltrack import NTKOperator  # noqa: E402

#: η of the optimizers that are not gradient descent.
OTHER_RATES = {"momentum": 0.05, "adam": 1e-3}
#: Beside ρ, which is of the Gauss–Newton matrix, that of the Hessian.
SHARPNESS = ("default", "hessian_stability_ratio")
#: Initialisations over which the closed form of the first kernel's diagonal is tested.
DRAWS = 32
#: Runs of one kind, by the name of :class:`Plan`.
GROUPS = ("main", "mirror", "sweep", "others", "digits")
#: What only the runs of other optimizers need: the kernel that the optimizer makes of Θ.
OPTIMIZER_KERNEL = ("default", "optimizer_eigenvalues", "optimizer_kernel_distance", "optimizer_target_alignment")


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        samples: N points of the picture.
        width: neurons per hidden layer.
        depth: weight layers.
        decays: updates from which on the rate of the main run is half of before.
        steps: of the main run.
        control: updates of each control; on the grid, and at most half of a block, for run and control meet at equal Ση too.
        seeds: of every run.
        mirror: updates on the mirrored picture.
        depths: of the sweep, at the width above.
        widths: of the sweep, with two weight layers; the last has the parameters of the main network.
        sweep: updates of the sweep; like those of the mirror on the grid of the main run.
        others: updates of momentum and Adam; halved in the middle.
        digits: N of the classification.
        classes: updates of the classification, and the decay: while ρ is still near one, for cross-entropy is soon fitted.
        grid: pairs of snapshots along each run, besides those near the start and the decays.
        captured: whether loss and gradients are captured as a CUDA graph.
    """

    samples: int
    width: int
    depth: int
    decays: tuple[int, ...]
    steps: int
    control: int
    seeds: int
    mirror: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    sweep: int
    others: int
    digits: int
    classes: tuple[int, int]
    grid: int
    captured: bool = False


SIZES = {
    "smoke": Size(
        samples=100,
        width=24,
        depth=4,
        decays=(400, 800),
        steps=1200,
        control=200,
        seeds=1,
        mirror=200,
        depths=(2, 4),
        widths=(24, 324),
        sweep=200,
        others=24,
        digits=50,
        classes=(24, 12),
        grid=6,
    ),
    "desk": Size(
        samples=1000,
        width=64,
        depth=6,
        decays=(10_000, 15_000),
        steps=20_000,
        control=2_000,
        seeds=3,
        mirror=2_000,
        depths=(2, 3, 4, 6),
        widths=(64, 256, 4224),
        sweep=1_000,
        others=3_000,
        digits=500,
        classes=(1_000, 50),
        grid=20,
    ),
    "reduced": Size(
        samples=2_000,
        width=256,
        depth=6,
        decays=(1_000, 1_500),
        steps=2_000,
        control=200,
        seeds=1,
        mirror=100,
        depths=(2, 6),
        widths=(256, 66_048),
        sweep=100,
        others=60,
        digits=500,
        classes=(60, 30),
        grid=20,
        captured=True,
    ),
    "full": Size(
        samples=10_000,
        width=256,
        depth=6,
        decays=(100_000, 200_000, 300_000, 400_000, 500_000),
        steps=600_000,
        control=20_000,
        seeds=1,
        mirror=20_000,
        depths=(2, 3, 4, 6),
        widths=(256, 1024, 66_048),
        sweep=20_000,
        others=100_000,
        digits=1797,
        classes=(1_000, 50),
        grid=30,
        captured=True,
    ),
}


@dataclass(frozen=True)
class Plan:
    """The recipes of the study at one size."""

    size: Size

    @property
    def main(self) -> list[Recipe]:
        """The paper's run, one for each seed."""
        s = self.size
        return self._seeds(decays=s.decays, steps=s.steps, observables=SHARPNESS)

    @property
    def mirror(self) -> list[Recipe]:
        """The same networks on the mirrored picture, at the first rate."""
        return self._seeds(task="mirror", steps=self.size.mirror, snapshots=1)

    @property
    def sweep(self) -> list[Recipe]:
        """Depths at one width, and widths at depth two; the main runs stand for their own shape."""
        s = self.size
        shapes = dict.fromkeys([*((s.width, depth) for depth in s.depths), *((width, 2) for width in s.widths)])
        shapes.pop((s.width, s.depth), None)
        return [r for w, d in shapes for r in self._seeds(width=w, depth=d, steps=s.sweep, snapshots=1)]

    @property
    def others(self) -> list[Recipe]:
        """Heavy ball and Adam."""
        steps = self.size.others
        common = {"decays": (steps // 2,), "steps": steps, "observables": OPTIMIZER_KERNEL, "snapshots": 6}
        return [r for o, rate in OTHER_RATES.items() for r in self._seeds(optimizer=o, rate=rate, **common)]

    @property
    def digits(self) -> list[Recipe]:
        """A classification of real data by cross-entropy."""
        steps, decay = self.size.classes
        common = {"samples": self.size.digits, "depth": 4, "rate": 0.1, "decays": (decay,), "steps": steps}
        return self._seeds(task="digits", snapshots=5, **common)

    def _seeds(self, **fields: Any) -> list[Recipe]:
        """The same recipe with one seed after the other."""
        return [self._recipe(seed=i, **fields) for i in range(self.size.seeds)]

    def _recipe(self, *, snapshots: int | None = None, **fields: Any) -> Recipe:
        s = self.size
        given = {
            "task": "picture",
            "optimizer": "gd",
            "samples": s.samples,
            "width": s.width,
            "depth": s.depth,
            "seed": 0,
            "rate": 0.25,
            "decays": (),
            **fields,
        }
        return Recipe(**given, grid=max(given["steps"] // (snapshots or s.grid), 1))


def train(folder: Path, size: Size, only: str, until: int | None = None) -> None:
    """One group of runs with their controls, each until an update for now; what is finished is not trained again."""
    for recipe in getattr(Plan(size), only):
        run_with_controls(folder, recipe, size.control, size.captured, until)


def diagonals(recipe: Recipe) -> dict[str, Any]:
    """Means of diag Θ_0 over 100 points, one for each of :data:`DRAWS` initialisations."""
    x = data(recipe)[0][:100]
    scale = float(x.square().sum(dim=1).mean()) / 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = (mlp(2, recipe.width, recipe.depth, 1) for _ in range(DRAWS))
        drawn = [NTKOperator(network, x / scale**0.5).trace() / len(x) for network in networks]
    return {"kind": "start", "diagonals": drawn}


def trained(folder: Path, size: Size, kind: str, recipe: Recipe, mirror: Recipe | None = None) -> dict[str, Any]:
    """What is kept of a run, of its controls, and of a main run beside the one on the mirrored picture."""
    path, *controls = run_with_controls(folder, recipe, size.control, size.captured)
    whole = mirror is not None
    found: dict[str, Any] = {
        "kind": kind,
        "recipe": asdict(recipe),
        "run": track(path, whole=whole),
        "controls": {str(decay): track(p, whole=whole) for decay, p in zip(recipe.decays, controls, strict=True)},
    }
    if mirror is None:
        return found
    (foreign,) = run_with_controls(folder, mirror, 0, size.captured)
    found["run"] |= looks(path, recipe.decays)
    return {**found, "mirrored": track(foreign), "pictures": pictures(path, foreign, mirror.steps)}


def measure(name: str, size: Size, folder: Path, share: Sequence[int] = (0, 1)) -> Results:
    """Every run of this share, one seed after the other."""
    plan = Plan(size)
    pairs = zip(plan.main, plan.mirror, strict=True)
    work: list[tuple[str, Recipe, Recipe | None]] = [("main", recipe, mirror) for recipe, mirror in pairs]
    work += [(kind, recipe, None) for kind in ("others", "digits", "sweep") for recipe in getattr(plan, kind)]
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        recipe.name: partial(trained, folder, size, kind, recipe, mirror)
        for kind, recipe, mirror in sorted(work, key=lambda one: one[1].seed)
    }
    runs["start"] = partial(diagonals, plan.main[0])
    return collect("spectrum-alignment", name, size, share_of(runs, share), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", help="I/N: every N-th run, from the I-th, and no page")
    parser.add_argument("--only", choices=GROUPS, help="train one group of runs, and write nothing")
    parser.add_argument("--until", type=int, help="with --only: the update at which its runs end for now")
    (name, size, out), words = command_line(parser, SIZES, "spectrum-alignment")
    if words.only:
        train(out, size, words.only, words.until)
    elif words.share:
        measure(name, size, out, [int(part) for part in words.share.split("/")])
    else:
        home = HERE if name == "desk" else out
        publish(measure(name, size, out), home, page)
        first = Plan(size).main[0]
        draw(out / f"{first.name}.h5", out / f"{first.control(size.decays[0], size.control).name}.h5", home)


if __name__ == "__main__":
    main()
