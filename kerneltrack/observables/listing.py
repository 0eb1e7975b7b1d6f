"""The catalogue as a page of Markdown, which docs/observables.md holds, and the table of needs in docs/notation.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kerneltrack.observables.need import Need
from kerneltrack.observables.observable import Observable

_HEAD = """# Observables

Every number that kerneltrack derives from a measurement. The name is the same in the catalogue, in an archive, in an
export and in the trainer's logger (there with the prefix `ntk/`). [notation.md](notation.md) defines the letters, and
says what each need costs. Observables marked • belong to the set `"default"`; `observables="all"` asks for every one.
What could not be computed is NaN, and the tracker says why.

This page is generated: `python -m kerneltrack.observables > docs/observables.md`.

| | name | what | formula | unit | over | needs | source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

_OPEN = """
## Functions without a name in the catalogue

They compare two snapshots, or need more than one state: `similarity_bounds` (of snapshots whose kernels were not
kept), `kernel_regression` (on any second set of points), `disjoint_halves` (uncertainty from the choice of the probe),
`class_blocks` (the mean kernel between all pairs of classes), and `EigenSystem.extend` (eigenfunctions at new points).

## Open

Quantities of the literature that are not here yet, each a short function of a `State` for whoever needs it
([how-to/add-an-observable.md](how-to/add-an-observable.md)):

- spectral learning curves from both exponents; Bartlett's effective ranks; bounds built on yᵀΘ⁻¹y
- alignment with a chosen subset of the probe (clean and random labels); alignment with a task kernel; silent alignment
- matched modes (Hungarian matching of eigenvectors between snapshots), velocities of single eigenvalues
- the angles between gradients: smallest cosine, correlation length, dispersion of the diagonal
- distances to the infinite-width kernel, and dispersion over initialisations (from several archives)
- robustness of single modes' features (Tsilivis and Kempe 2022); edges of images (Fourier content is a figure)
- the full Hessian and its part beyond the kernel; variances and evidence of the linearised Laplace approximation
- forgetting between tasks from the kernel between their probes
- standard errors of stochastic traces, once an estimator of them is there
"""


def markdown(entries: Mapping[str, Observable]) -> str:
    """One table row per observable, in the order of the catalogue, then what is still open."""
    return _HEAD + "".join(_row(entry) for entry in entries.values()) + _OPEN


def needs_table(needs: Iterable[Need]) -> str:
    """One table row per need, under a head."""
    head = ("| need | what must be there | cost |", "| --- | --- | --- |")
    return "\n".join((*head, *(f"| `{need.name}` | {need.what} | {need.cost} |" for need in needs))) + "\n"


def _row(entry: Observable) -> str:
    cells = (
        "•" if entry.default else "",
        f"`{entry.name}`",
        entry.long_name,
        entry.formula,
        entry.units,
        ", ".join(entry.dims) or "–",
        ", ".join(sorted(entry.needs)),
        entry.source,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
