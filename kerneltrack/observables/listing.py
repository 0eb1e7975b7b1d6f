"""The catalogue as a page of Markdown: what docs/observables.md holds."""

from __future__ import annotations

from collections.abc import Mapping

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


def markdown(entries: Mapping[str, Observable]) -> str:
    """One table row per observable, in the order of the catalogue."""
    return _HEAD + "".join(_row(entry) for entry in entries.values())


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
