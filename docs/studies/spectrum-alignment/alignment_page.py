"""The page of the alignment study, written from results.json alone, and its figures, which are drawn from archives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import alignment_checks
import alignment_others
from alignment_numbers import Runs
from alignment_runs import MOMENTUM
from claims import Claim, table, verdict
from pages import grid
from results import Results

from kerneltrack.analysis import load
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.figures.files import save_figure
from kerneltrack.analysis.figures.style import PAPER

FIGURES = (
    "outputs", "eigenvalues", "scaled-eigenvalues", "stability", "target-energy", "output-energy", "residual-energy",
    "residual-spectrum", "linearisation", "eigenfunctions", "frequencies", "kernel-slices", "projections",
)  # fmt: skip


def claims(runs: Runs) -> list[Claim]:
    """All rows of the table."""
    return [*alignment_checks.claims(runs), *alignment_others.claims(runs)]


def draw(run: Path, control: Path, folder: Path) -> None:
    """The figures of one run, the largest eigenvalue beside that of a control."""
    style = replace(PAPER, rc={**PAPER.rc, "savefig.dpi": 100})
    found, beside = load(run).only, load(control).only
    for name in FIGURES:
        scene = Scene(found, beside if name == "stability" else None, style)
        save_figure(choose(name).draw(scene), folder / f"{name}.png", style)


def page(results: Results) -> str:
    """README.md: what was run on what, the table, the figures, the archives."""
    s, runs = results.settings, Runs.of(results)
    rows, digits = claims(runs), next(run["recipe"] for run in results.runs if run["kind"] == "digits")
    rates = {run["recipe"]["optimizer"]: f"{run['recipe']['rate']:g}" for run in results.runs if "recipe" in run}
    figures = (
        [f"## {spec.title}", "", f"![{spec.title}]({name}.png)", "", spec.caption, ""] for name, spec in _specs()
    )
    return PAGE.format(
        table=table(rows),
        verdict=verdict(rows),
        figures="\n".join(line for lines in figures for line in lines),
        archives=_archives(results, runs),
        commit=results.commit,
        ran_on=results.ran_on,
        minutes=results.seconds / 60,
        name=results.size,
        n=s["samples"],
        decays=" and ".join(f"{d:,}" for d in s["decays"]),
        spacing=runs.recipe.grid,
        depths=_listed(s["depths"]),
        widths=_listed(s["widths"]),
        digits=digits,
        classes=s["classes"][0],
        class_decay=s["classes"][1],
        momentum=MOMENTUM,
        rates=rates,
        **{word: s[word] for word in ("depth", "width", "steps", "control", "seeds", "mirror", "sweep", "others")},
    )


def _specs() -> Iterator[tuple[str, Any]]:
    return ((name, choose(name)) for name in FIGURES)


def _archives(results: Results, runs: Runs) -> str:
    heads = ("archive", "snapshots", "last step", "N × O", "kernel", "measuring / s", "MB")
    mirrored = [run["mirrored"] for run in results.runs if run["kind"] == "main"]
    kept = sorted([*(track.facts for track in runs.tracks), *mirrored], key=lambda facts: str(facts["name"]))
    cells = (
        [
            facts["name"], len(facts["steps"]), f"{facts['steps'][-1]:,}", f"{facts['count']:,} × {facts['outputs']}",
            facts["kernel"], f"{facts['measuring']:.1f}", f"{facts['mb']:.1f}",
        ]
        for facts in kept
    )  # fmt: skip
    return grid(heads, cells) + "\n"


def _listed(numbers: list[int]) -> str:
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
  Each decay has a control: the run from the same state without it, for {control:,} updates. What is
  looked at every {spacing:,} updates is a pair of states, (t − 1, t), and its mean: at the edge of stability a single state shows
  one phase of an oscillation.
- The mirrored portrait at the same points from the same initialisation, {mirror:,} updates.
- Depths {depths} at width {width}, and two weight layers at widths {widths}, {sweep:,} updates.
- Heavy ball (β = {momentum}, η = {rates[momentum]}) and Adam (η = {rates[adam]}), {others:,} updates, halved in the
  middle, with controls.
- Classification: {digits[samples]} of scikit-learn's 8×8 digits, cross-entropy, {digits[depth]} weight layers, η = {digits[rate]},
  {classes:,} updates, halved from update {class_decay} on, with controls; the kernel is the trace over outputs.

Run from commit {commit} on {ran_on}, in {minutes:.0f} minutes of one process.
The claims and tables are made of [results.json](results.json), the figures from the archives of the first seed.

The paper has N = 10,000, width 256 and 600,000 updates on another picture. `--size full` is that: loss
and gradients are captured once as a CUDA graph and replayed, and a snapshot, which is solved on the device, takes 1.1 s on an
H200 (median of 21). `--only main --until 300000` and `--only main` train it in two halves. **It has not been run whole**: at
δ = 0.25 the run of seed 0 stood at ρ = 1.22 after 20,000 updates, and its outputs were NaN before update 40,000, twice. A smaller
δ or another initialisation is to be tried. What is tested is that its training, without the capture, ends bit for bit in the
weights of the ordinary one, and two halves in those of the whole. `--size reduced` is the same network on the same path, with
fewer points and updates, for a CPU.

## Claims

{verdict}

{table}
{figures}
## Archives

{archives}"""
