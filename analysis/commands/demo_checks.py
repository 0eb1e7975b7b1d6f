"""What the demo must show: each claim of the paper beside what this run measured. No torch.

The orderings are the paper's (Kopitkov & Indelman 2020; N = 10 000, 600 000 steps). Where a size is expected, it comes
from the formula beside it or from an independent replication at N = 1000 on another picture, so only the ordering
decides whether a claim holds; the numbers are printed either way.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from xarray import DataArray, Dataset

from kerneltrack.archive import open_archive


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The numbers of one run; the defaults are the paper's, except N, the steps and the picture.

    Attributes:
        samples: N points, i.i.d. uniform on the picture.
        width: neurons per hidden layer.
        depth: weight layers.
        slope: of the leaky ReLU; the paper does not say, 0.2 was its framework's default.
        learning_rate: δ of the paper's loss, the mean of ½(f − y)².
        halve_at: the update from which on the rate is half.
        steps: updates in all.
        seed: of points, initialisation and everything else.
    """

    samples: int = 1000
    width: int = 256
    depth: int = 6
    slope: float = 0.2
    learning_rate: float = 0.25
    halve_at: int = 2000
    steps: int = 3000
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """A claim, what is expected, what was measured, and whether it holds."""

    claim: str
    expected: str
    measured: str
    holds: bool


def run_checks(demo: Path, control: Path, experiment: Experiment) -> list[Check]:
    """The claims of the experiment against its two archives."""
    with open_archive(demo) as run, open_archive(control) as other:
        a, b = (archive.to_xarray().set_index(snapshot="step").load() for archive in (run, other))
    return [*_initial(a, experiment), *_edge(a, b, experiment), *_alignment(a, experiment), *_halving(a, b, experiment)]


def checks_table(checks: Sequence[Check]) -> Table:
    """The checks as a table for the terminal."""
    table = Table(
        title="what the demo shows, beside what the paper's experiment is expected to show", title_justify="left"
    )
    for heading in ("claim", "expected", "measured", "holds"):
        table.add_column(heading)
    for check in checks:
        table.add_row(check.claim, check.expected, check.measured, "yes" if check.holds else "NO")
    return table


def page(folder: Path, experiment: Experiment) -> str:
    """docs/demo.md: the checks as Markdown, beside how they were made."""
    checks = run_checks(folder / "demo.h5", folder / "control.h5", experiment)
    e = experiment
    with open_archive(folder / "demo.h5") as archive:
        versions = archive.provenance.run["versions"]
    rows = [f"| {c.claim} | {c.expected} | {c.measured} | {'yes' if c.holds else '**no**'} |" for c in checks]
    return PAGE.format(
        rows="\n".join(rows),
        samples=e.samples,
        depth=e.depth,
        width=e.width,
        steps=e.steps,
        rate=e.learning_rate,
        halve_at=e.halve_at,
        seed=e.seed,
        torch=versions["torch"],
    )


PAGE = """# What the demo shows

This page is generated from one run of `make demo`: `python -m kerneltrack.analysis.commands.demo_checks out > docs/demo.md`.

The experiment is that of *Neural Spectrum Alignment: Empirical Study* (Kopitkov and Indelman, ICANN 2020,
arXiv 1910.08720) at desk size: a fully connected network with {depth} weight layers of {width} leaky-ReLU neurons learns
the grey values of a portrait at N = {samples} scattered points by full-batch gradient descent on the mean of ½(f − y)²,
δ = {rate}, for {steps} updates; the rate is halved from update {halve_at} on. The control continues from the same state
without the halving. The paper has N = 10 000, 600 000 updates and another picture, so the orderings are what carries
over; where a size is expected it comes from an independent replication at N = 1000 on that other picture. One seed
({seed}), torch {torch}, float32: a single run has no error bars, and these claims are about effects far larger than
the spread between neighbouring snapshots.

| claim | expected | measured | holds? |
| --- | --- | --- | --- |
{rows}

Not claimed here: that target energy spreads to more modes after the halving. At this size the change is within what
neighbouring snapshots differ by.
"""


def _initial(run: Dataset, e: Experiment) -> list[Check]:
    parameters = sum(math.prod(p["shape"]) for p in json.loads(run.attrs["provenance"])["parameters"])
    formula = 3 * e.width + (e.depth - 2) * (e.width**2 + e.width) + e.width + 1
    diagonal = float(run.trace.sel(snapshot=0)) / e.samples
    return [
        Check("number of parameters", str(formula), str(parameters), parameters == formula),
        Check("mean of diag Θ_0", "about 5.1 (4 to 6.5)", f"{diagonal:.2f}", 4 < diagonal < 6.5),
    ]


def _edge(run: Dataset, control: Dataset, e: Experiment) -> list[Check]:
    top = run.eigenvalues.isel(mode=0) / e.samples
    bound = 2 / e.learning_rate
    early = float(top.sel(snapshot=slice(0, 100)).max())
    before = float(top.sel(snapshot=e.halve_at))
    after, still = (float(_last(d.eigenvalues.isel(mode=0))) / e.samples for d in (run, control))
    return [
        Check("λ_1/N reaches 2/δ within the first hundred steps", f"{bound:.3g}", f"{early:.3g}", early > 0.9 * bound),
        Check(
            "after the halving λ_1/N climbs towards the doubled bound",
            f"from {bound:.3g} towards {2 * bound:.3g}",
            f"{before:.3g} → {after:.3g}",
            after > 1.4 * bound,
        ),
        Check("without it, it stays at the old bound", f"about {bound:.3g}", f"{still:.3g}", 0.6 < still / bound < 1.4),
    ]


def _alignment(run: Dataset, e: Experiment) -> list[Check]:
    k = 400 if e.samples >= 1000 else int(run.energy_k[run.energy_k <= 0.4 * e.samples].max())
    target, output = run.target_energy.sel(energy_k=20), run.output_energy.sel(energy_k=k)
    start, end = float(target.sel(snapshot=0)), float(_last(target))
    lowest = float(output.min())
    return [
        Check(
            "E(y, 20) grows well above its start",
            "up; another picture: 0.53 → 0.78",
            f"{start:.2f} → {end:.2f}",
            end > start + 0.1,
        ),
        Check(
            f"the output stays in the span of the top {k}", "≥ 0.98 at every step", f"≥ {lowest:.4f}", lowest >= 0.98
        ),
    ]


def _halving(run: Dataset, control: Dataset, e: Experiment) -> list[Check]:
    t, k = e.halve_at, int(run.energy_k[run.energy_k <= max(1, e.samples / 50)].max())
    same = float(np.abs(run.outputs.sel(snapshot=t) - control.outputs.sel(snapshot=t)).max())
    energy = [d.residual_energy.sel(energy_k=k, snapshot=s) for d, s in ((run, t), (run, t + 1), (control, t + 1))]
    before, after, still = map(float, energy)
    at_edge, below = (float(run.linearization_error.sel(snapshot=s)) for s in (t, t + 1))
    return [
        Check("the control starts from the same state", "0", f"{same:.1g}", same == 0),
        Check(
            f"residual energy in the top {k} modes collapses within one step",
            "0.31 → 0.004; control: none",
            f"{before:.3f} → {after:.4f}; control: {still:.3f}",
            after < before / 10 and after < still / 10,
        ),
        Check(
            "an update is much closer to linear right after the halving",
            "error 0.07 → 0.0005",
            f"{at_edge:.2g} → {below:.2g}",
            below < at_edge / 3,
        ),
    ]


def _last(series: DataArray) -> DataArray:
    return series.isel(snapshot=-1)


if __name__ == "__main__":
    print(page(Path(sys.argv[1]), Experiment()), end="")  # noqa: T201  # the page is the output
