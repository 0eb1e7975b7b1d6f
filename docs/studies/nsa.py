"""The figures of *Neural Spectrum Alignment* from the demo's archives, beside what the paper's figures show.

    kerneltrack demo --out out/
    python docs/studies/nsa.py out > docs/studies/nsa.md

writes the figures into docs/figures/ as well. Numbers are computed here from the archives; what the paper shows is told
from memory of arXiv 1910.08720v3 and from its authors' slides, and is not compared number by number: picture, size and
length of the run differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerneltrack.analysis import load
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.files import save_figure
from kerneltrack.analysis.functions import mean_frequencies
from kerneltrack.analysis.images import planar_inputs
from kerneltrack.analysis.quantities import quantity
from kerneltrack.analysis.style import PAPER
from kerneltrack.analysis.trajectory import Run

FIGURES = Path(__file__).parents[1] / "figures"


@dataclass(frozen=True)
class Claim:
    """One figure of the paper: which of ours stands for it, what it shows there, and what it shows here."""

    paper: str
    figure: str
    there: str
    here: Callable[[Run, Run], str]


def _change(run: Run) -> int:
    rates = run.learning_rates[:, 0]
    return int(np.flatnonzero(rates != rates[0])[0])


def _outputs(run: Run, _: Run) -> str:
    y, f = run.values("targets"), run.at("outputs", len(run) - 1)
    return f"the output misses {np.sum((f - y) ** 2) / np.sum(y**2):.0%} of the target's energy: its fine texture"


def _first_order(run: Run, _: Run) -> str:
    error, at = run.values("kernel_flow_error"), _change(run)
    edge = [i for i in range(at) if run.steps[i] >= 32]
    after = next(i for i in range(at, len(run)) if np.isfinite(error[i]))
    return (
        f"median error {np.nanmedian(error[edge]):.2g} at the edge of stability, {error[after]:.2g} right after the "
        "halving"
    )  # fmt: skip


def _growth(run: Run, control: Run) -> str:
    values = run.values("eigenvalues")
    end, modes = control.values("eigenvalues")[-1], [i for i in (1, 10, 100) if i <= values.shape[1]]
    parts = [f"λ_{i} ×{values[-1, i - 1] / values[0, i - 1]:.3g}" for i in modes]
    more = [f"λ_{i} ×{values[-1, i - 1] / end[i - 1]:.2g}" for i in modes]
    return f"over the run {', '.join(parts)}; against the control that was not halved {', '.join(more)}"


def _scaled(run: Run, _: Run) -> str:
    at, rates, values = _change(run), run.learning_rates[:, 0], run.values("eigenvalues") / run.count
    return ", ".join(
        f"ηλ_{i}/N {rates[at - 1] * values[at, i - 1]:.2g} before the halving and {rates[-1] * values[-1, i - 1]:.2g} "
        "at the end" for i in (1, 10)
    )  # fmt: skip


def _staircase(run: Run, control: Run) -> str:
    largest = quantity(run, "eigenvalue_1")
    return (
        f"λ_1/N {largest[_change(run)]:.3g} at the halving (bound 8), {largest[-1]:.3g} at the end (bound 16); the "
        f"control stays at {quantity(control, 'eigenvalue_1')[-1]:.3g}"
    )


def _energies(name: str) -> Callable[[Run, Run], str]:
    def told(run: Run, _: Run) -> str:
        return ", ".join(
            f"E(·, {k}) {quantity(run, f'{name}_energy_{k}')[0]:.2f} → {quantity(run, f'{name}_energy_{k}')[-1]:.2f}"
            for k in (5, 20, 100, 400)
        )  # fmt: skip

    return told


def _drop(run: Run, control: Run) -> str:
    at, k = _change(run), 20
    energy = quantity(run, f"residual_energy_{k}")
    other = quantity(control, f"residual_energy_{k}")[control.row(int(run.steps[at + 1]))]
    return (
        f"E(m, {k}) {energy[at]:.3f} before and {energy[at + 1]:.4f} one update after the halving; control {other:.3f}"
    )


def _frequencies(run: Run, _: Run) -> str:
    found = mean_frequencies(planar_inputs(run), run.at("eigenvectors", len(run) - 1)[:, 0])
    known = np.flatnonzero(np.isfinite(found))
    ranks = [np.argsort(np.argsort(v)) for v in (known, found[known])]
    return f"rank correlation of index and mean frequency {np.corrcoef(ranks[0], ranks[1])[0, 1]:.2f} at the end"


def _slices(run: Run, _: Run) -> str:
    first, last = (run.at("kernel", row)[:, :, 0, 0] for row in (0, len(run) - 1))
    return (
        f"mean Θ(x, x) {np.trace(first) / len(first):.3g} at the start and {np.trace(last) / len(last):.3g} at the end"
    )


def _projection(run: Run, _: Run) -> str:
    squares = run.values("output_coefficients")[-1].ravel() ** 2
    held = int(run.dataset.sizes["vector"])
    return f"{1 - squares[:held].sum() / squares.sum():.2g} of the output's energy is missing in the first {held}"


CLAIMS = (
    Claim("Fig. 1", "outputs", "the converged output is a recognisable but smooth picture", _outputs),
    Claim("Fig. 1d", "linearisation", "first-order dynamics explain about 90 % of the change of the outputs", _first_order),
    Claim("Fig. 2a, b", "eigenvalues", "every eigenvalue rises, and faster after each decay of the rate", _growth),
    Claim("Fig. 2c", "scaled-eigenvalues", "ηλ_i/N stays on a level of its own over the run", _scaled),
    Claim("Fig. 2d", "stability", "λ_1 climbs to 2N/η after each decay and stays there", _staircase),
    Claim("Fig. 2e", "target-energy", "E(y, 20) near 0.9 and E(y, 200) near 0.98 (N = 10 000)", _energies("target")),
    Claim("Fig. 2f", "output-energy", "the output lies in the first few hundred at every time", _energies("output")),
    Claim("Fig. 3", "residual-energy", "the residual leaves the top modes for the bottom ones", _energies("residual")),
    Claim("Fig. 4", "residual-spectrum", "right after a decay the residual on the very top modes falls sharply", _drop),
    Claim("Figs. 5, 6", "eigenfunctions", "wedges about the centre at the start, parts of the picture later",
          lambda r, c: "wedges at step 0; face, hair and collar at the end (look)"),
    Claim("Fig. 5", "frequencies", "the smaller the eigenvalue, the higher the frequency", _frequencies),
    Claim("slides", "kernel-slices", "cones at the start; later peaks 20 to 50 times as high that follow the picture", _slices),
    Claim("text", "projections", "a combination of 100 eigenvectors reproduces the output", _projection),
)  # fmt: skip


def page(folder: Path, *, draw: bool = True) -> str:
    """The page, and its figures."""
    run, control = (load(folder / name).only for name in ("demo.h5", "control.h5"))
    style = replace(PAPER, rc={**PAPER.rc, "savefig.dpi": 110})
    lines = [
        "# Neural Spectrum Alignment, figure by figure",
        "",
        "This page is generated: `python docs/studies/nsa.py out > docs/studies/nsa.md`, from the archives of `make demo`. On "
        "the left what the figures of Kopitkov and Indelman 2020 (arXiv 1910.08720, v3) show, told from memory and from the "
        "authors' slides; on the right what the same figure shows on the demo's portrait, with numbers from its archive. Only "
        "orderings carry over: the paper has N = 10 000 and 600 000 updates, the demo "
        f"N = {run.count:,} and {int(run.steps[-1]):,}, another picture, and one seed.",
        "",
        "| paper | shows there | shows here | figure |",
        "| --- | --- | --- | --- |",
    ]
    for claim in CLAIMS:
        lines.append(
            f"| {claim.paper} | {claim.there} | {claim.here(run, control)} | [{claim.figure}](#{claim.figure}) |"
        )
    for claim in CLAIMS:
        path = FIGURES / f"nsa-{claim.figure}.png"
        if draw:
            beside = control if claim.figure in ("stability",) else None
            save_figure(choose(claim.figure)(Scene(run, beside, style)), path, style)
        spec = choose(claim.figure)
        lines += ["", f"## {claim.figure}", "", f"![{spec.title}](../figures/{path.name})", "", spec.caption]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
