"""Write the catalogue into docs/observables.md and the needs into docs/notation.md: ``python docs/observables_page.py``.

``--check`` compares. The tables are the catalogue's; what stands around the first is written here, and the second ends
its page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from kerneltrack.observables import NEEDS, Need, Observable, catalogue

PAGE = Path(__file__).with_name("observables.md")
NOTATION = Path(__file__).with_name("notation.md")
_NEEDS_HEAD = "| need | what must be there | cost |\n| --- | --- | --- |\n"

INTRODUCTION = """# Observables

Every number that kerneltrack derives from a measurement. The name is the same in the catalogue, in an archive, in an
export and in the trainer's logger (there with the prefix `ntk/`). [The notation](notation.md) defines the letters, and
says what each need costs. An archive holds the spectra of two kernels at most, its own and either the optimizer's or the
loss-weighted one: `observables="all"` asks for every number but that other kernel's, which is the loss-weighted one unless a name
of its spectrum stands beside "all". What could not be computed is NaN, and the tracker says why.

"""

_HEAD = """Observables marked • belong to the set `"default"`. This page is generated: `python docs/observables_page.py`.

| | name | what | formula | unit | over | needs | source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

_READINGS = """
## How each is read

What a higher value means, a typical range (of ordinary networks in ordinary training; no bound unless it says so), and what to
look at beside it. The same words stand in the catalogue (`catalogue()[name].reading`), in an archive (the attribute `reading`) and
in a report.

| name | reading |
| --- | --- |
"""

ENDING = """
## Functions without a name in the catalogue

They compare two snapshots, or need more than one state: `similarity_bounds` (of snapshots whose kernels were not
kept), `kernel_regression` (on any second set of points), `disjoint_halves` (uncertainty from the choice of the probe),
`class_blocks` (the mean kernel between all pairs of classes), and `EigenSystem.extend` (eigenfunctions at new points).

## Open

Quantities of the literature that are not here yet, each a short function of a `State` for whoever needs it
([how one is added](how-to/add-an-observable.md)):

- Bartlett's effective ranks; bounds built on yᵀΘ⁻¹y
- alignment with a chosen subset of the probe (clean and random labels); alignment with a task kernel; silent alignment
- matched modes (Hungarian matching of eigenvectors between snapshots), velocities of single eigenvalues
- the angles between gradients: smallest cosine, correlation length, dispersion of the diagonal
- distances to the infinite-width kernel, and dispersion over initialisations (from several archives)
- robustness of single modes' features (Tsilivis and Kempe 2022); edges of images (Fourier content is a figure)
- the full Hessian and its part beyond the kernel
"""


def markdown(entries: Mapping[str, Observable]) -> str:
    """One table row per observable, in the order of the catalogue, how each is read, then what is still open."""
    rows = "".join(_row(entry) for entry in entries.values())
    readings = "".join(f"| `{entry.name}` | {_cell(entry.reading)} |\n" for entry in entries.values())
    return INTRODUCTION + _HEAD + rows + _READINGS + readings + ENDING


def needs_table(needs: Iterable[Need]) -> str:
    """One table row per need, under a head."""
    return _NEEDS_HEAD + "".join(f"| `{need.name}` | {need.what} | {need.cost} |\n" for need in needs)


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
    return "| " + " | ".join(map(_cell, cells)) + " |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def pages() -> dict[Path, str]:
    """Every page that this script writes, as it should be."""
    notation = NOTATION.read_text(encoding="utf-8").partition(_NEEDS_HEAD)[0]
    return {PAGE: markdown(catalogue()), NOTATION: notation + needs_table(NEEDS.values())}


def stale() -> list[str]:
    """The pages that are not what the catalogue says, by name."""
    return [path.name for path, text in pages().items() if path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(f"not what the catalogue says: {', '.join(found)}" if (found := stale()) else None)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
