"""Neural Spectrum Alignment (Kopitkov and Indelman 2020, arXiv 1910.08720), redone.

    python docs/studies/spectrum-alignment/study.py --size smoke|desk|reduced|full [--out DIR] [--only main] [--until 300000]

trains what is not there yet, each decay of the learning rate with a control from the same state, and writes the table of
claims, the figures and README.md (full.md of the full size). No number of the page is typed by hand.

``reduced`` is the full size's network and path at a size for a CPU: its table is printed, and decides nothing.

A device may be lent by the minute: ``--only`` trains one group of runs, and ``--until`` ends them at an update, from which the
next call goes on. Nothing is written then.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kerneltrack.analysis import Run, load
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.figures.files import save_figure
from kerneltrack.analysis.figures.style import PAPER

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import alignment_checks  # noqa: E402  # the folder is no package
import alignment_others  # noqa: E402
from alignment_numbers import Forked, Runs  # noqa: E402
from alignment_runs import MOMENTUM, Recipe, run_with_controls  # noqa: E402
from claims import Claim, archives, command_line, ran_on, table, verdict  # noqa: E402

FIGURES = (
    "outputs", "eigenvalues", "scaled-eigenvalues", "stability", "target-energy", "output-energy", "residual-energy",
    "residual-spectrum", "linearisation", "eigenfunctions", "frequencies", "kernel-slices", "projections",
)  # fmt: skip

#: η of the optimizers that are not gradient descent.
OTHER_RATES = {"momentum": 0.05, "adam": 1e-3}
#: Beside ρ, which is of the Gauss–Newton matrix, that of the Hessian.
SHARPNESS = ("default", "hessian_stability_ratio")
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

    def __iter__(self) -> Iterator[Recipe]:
        """One seed after the other."""
        return iter(sorted([*self.main, *self.mirror, *self.others, *self.digits, *self.sweep], key=lambda r: r.seed))

    @property
    def archives(self) -> list[Recipe]:
        """Every run, followed by its controls."""
        return [r for run in self for r in (run, *(run.control(d, self.size.control) for d in run.decays))]

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


def train(folder: Path, size: Size, jobs: int, only: str = "", until: int | None = None) -> None:
    """Every run and control that is not finished yet, ``jobs`` at a time.

    Args:
        folder: of the archives.
        size: of the study.
        jobs: runs at a time.
        only: one of :data:`GROUPS`; "" for all.
        until: the update at which runs end for now.
    """
    plan = Plan(size)
    work = [(folder, recipe, size.control, size.captured, until) for recipe in (getattr(plan, only) if only else plan)]
    if jobs == 1:
        for arguments in work:
            run_with_controls(*arguments)
        return
    # Two processes of two threads on two cores spin against each other. New processes read the variable.
    threads = max((os.cpu_count() or 1) // jobs, 1)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        pool.starmap(run_with_controls, work, chunksize=1)


#: Runs of one kind, by the name of :class:`Plan`.
GROUPS = ("main", "mirror", "sweep", "others", "digits")
#: Size → the file that is written.
PAGES = {"desk": "README.md", "full": "full.md"}


def read(folder: Path, size: Size) -> Runs:
    """The archives of the study."""
    plan = Plan(size)

    def run(recipe: Recipe) -> Run:
        return load(folder / f"{recipe.name}.h5").only

    def forked(recipe: Recipe) -> Forked:
        return Forked(run(recipe), {d: run(recipe.control(d, size.control)) for d in recipe.decays})

    main = [forked(recipe) for recipe in plan.main]
    sweep: dict[tuple[int, int], list[Run]] = {(size.width, size.depth): [f.run for f in main]}
    for recipe in plan.sweep:
        sweep.setdefault((recipe.width, recipe.depth), []).append(run(recipe))
    return Runs(
        recipe=plan.main[0],
        main=main,
        mirror=[run(r) for r in plan.mirror],
        sweep=sweep,
        sweep_step=size.sweep,
        others={o: [forked(r) for r in plan.others if r.optimizer == o] for o in OTHER_RATES},
        digits=[forked(r) for r in plan.digits],
    )


def claims(runs: Runs) -> list[Claim]:
    """All rows of the table."""
    return [*alignment_checks.claims(runs), *alignment_others.claims(runs)]


def draw(runs: Runs, folder: Path) -> list[str]:
    """The figures of the first seed, beside the control of the first decay; returns the lines of the page about them."""
    style = replace(PAPER, rc={**PAPER.rc, "savefig.dpi": 100})
    first, lines = runs.main[0], []
    for name in FIGURES:
        spec = choose(name)
        control = first.controls[runs.decays[0]] if name == "stability" else None
        save_figure(spec.draw(Scene(first.run, control, style)), folder / f"{name}.png", style)
        lines += [f"## {spec.title}", "", f"![{spec.title}]({name}.png)", "", spec.caption, ""]
    return lines


def page(name: str, size: Size, folder: Path) -> str:
    """README.md: what was run on what, the table, the figures, the archives."""
    runs, plan = read(folder, size), Plan(size)
    rows = claims(runs)
    return PAGE.format(
        table=table(rows),
        verdict=verdict(rows),
        figures="\n".join(draw(runs, HERE)),
        ran_on=ran_on(),
        name=name,
        archives=archives(folder / f"{recipe.name}.h5" for recipe in plan.archives),
        n=size.samples,
        depth=size.depth,
        width=size.width,
        steps=size.steps,
        decays=" and ".join(f"{d:,}" for d in size.decays),
        control=size.control,
        seeds=size.seeds,
        mirror=size.mirror,
        depths=_listed(size.depths),
        widths=_listed(size.widths),
        sweep=size.sweep,
        others=size.others,
        digits=plan.digits[0],
        classes=size.classes[0],
        class_decay=size.classes[1],
        full=SIZES["full"],
        reduced=SIZES["reduced"],
        momentum=MOMENTUM,
        rates={r.optimizer: f"{r.rate:g}" for r in [*plan.main, *plan.others]},
    )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(f"{n:,}" for n in numbers)


PAGE = """# Neural spectrum alignment

Kopitkov and Indelman, *Neural Spectrum Alignment: Empirical Study*, ICANN 2020 (arXiv 1910.08720), redone. This page is
written by `python docs/studies/spectrum-alignment/study.py --size {name}`; no number on it is typed by hand.

The paper's body was not at hand: "abstract says" is from its abstract, "read" from its authors' slides, "recalled" from
memory, "derived" by algebra. A claim holds, or not, against the abstract and what is derived, and only if it does for every
seed. Where there is nothing but recollection, the measurement stands beside it and decides nothing.

## What was run

- A portrait (matplotlib's), N = {n:,} scattered points, {depth} weight layers of {width} leaky-ReLU neurons, Xavier, full-batch
  gradient descent on the mean of ½(f − y)², δ = {rates[gd]}, {steps:,} updates, halved from update {decays} on; {seeds} seeds.
  Each decay has a control: the run from the same state without it, for {control:,} updates.
- The mirrored portrait at the same points from the same initialisation, {mirror:,} updates.
- Depths {depths} at width {width}, and two weight layers at widths {widths}, {sweep:,} updates.
- Heavy ball (β = {momentum}, η = {rates[momentum]}) and Adam (η = {rates[adam]}), {others:,} updates, halved in the
  middle, with controls.
- Classification: {digits.samples} of scikit-learn's 8×8 digits, cross-entropy, {digits.depth} weight layers, η = {digits.rate},
  {classes:,} updates, halved from update {class_decay} on, with controls; the kernel is the trace over outputs.

Run on: {ran_on}; two runs at a time, so no time on this page is a benchmark.

The paper has N = {full.samples:,}, width {full.width} and {full.steps:,} updates on another picture. `--size full` is that: loss
and gradients are captured once as a CUDA graph and replayed, and a snapshot, which is solved on the device, takes 1.1 s on an
H200 (median of 21). `--only main --until 300000` and `--only main` train it in two halves. **It has not been run whole**: at
δ = 0.25 the run of seed 0 stood at ρ = 1.22 after 20,000 updates, and its outputs were NaN before update 40,000, twice. A smaller
δ or another initialisation is to be tried. What is tested is that its training, without the capture, ends bit for bit in the
weights of the ordinary one, and two halves in those of the whole. `--size reduced` is the same network on the same path, with
N = {reduced.samples:,} and {reduced.steps:,} updates, for a CPU.

## Claims

{verdict}

{table}
{figures}
## Archives

{archives}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=GROUPS, default="")
    parser.add_argument("--until", type=int)
    (name, size, out), words = command_line(parser, SIZES, "spectrum-alignment")
    train(out, size, 1 if name != "desk" else os.cpu_count() or 1, words.only, words.until)
    if words.only or words.until:
        return
    if name in PAGES:
        (HERE / PAGES[name]).write_text(page(name, size, out), encoding="utf-8")
    else:
        print(table(claims(read(out, size))))


if __name__ == "__main__":
    main()
