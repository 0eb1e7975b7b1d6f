"""The catalogue of observables as cards: what each number is, and how it is read. From the same source as the Markdown page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from pathlib import Path

from kerneltrack.observables import Observable, catalogue

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import observables_page

#: The file in which a chapter's numbers are defined → its heading.
CHAPTERS: Mapping[str, str] = {
    "spectral": "The spectrum: size and shape",
    "alignment": "Energies: where target, output and residual lie",
    "target_alignment": "Alignment with the target",
    "modes": "Outputs and modes one by one",
    "motion": "Motion of the kernel",
    "subspaces": "Motion of the leading modes",
    "layers": "Layers",
    "conjugate": "The readout's kernel",
    "classes": "Classes",
    "dynamics": "Loss, the edge of stability, and how linear an update is",
    "sharpness": "Sharpness: the Hessian, batches, and the real update",
    "oscillation": "Oscillation at the edge",
    "training_mode": "Training mode against evaluation",
    "optimizer": "The optimizer's kernel",
    "laziness": "Laziness: parameters and Jacobian",
    "weighted": "The loss-weighted kernel",
    "weights": "Weights in the spectral norm",
    "activations": "Hidden neurons",
    "regression": "What a frozen kernel would predict: squares",
    "logistic": "What a frozen kernel would predict: classes",
    "decay": "Decay of spectrum and target",
    "ledger": "The ledger of an update",
    "estimates": "Estimates, where no kernel is formed",
    "bayesian": "The network as a Gaussian process",
}


def chapter(entry: Observable) -> str:
    """The heading that an observable stands under."""
    return CHAPTERS[entry.compute.__module__.rpartition(".")[2]]


def parts(reading: str) -> Mapping[str, str]:
    """The three parts of a reading: what a higher value means, a typical range, what to look at beside it."""
    found = re.fullmatch(
        r"Higher: (?P<higher>.*?)\. Typical: (?P<typical>.*)\. Beside it: (?P<beside>.*)\.", reading, re.DOTALL
    )
    if found is None:
        raise ValueError(f"a reading that does not have its three parts: {reading!r}")
    return {"Higher means": found["higher"], "Typical": found["typical"], "Look at beside it": found["beside"]}


def built_in() -> Mapping[str, Observable]:
    """The catalogue without what someone registered in this process."""
    return {name: entry for name, entry in catalogue().items() if entry.compute.__module__.startswith("kerneltrack.")}


def write(page: Path) -> None:
    """The page of observables as the site shows it."""
    page.write_text("".join(_lines(built_in())), encoding="utf-8")


def _lines(entries: Mapping[str, Observable]) -> Iterator[str]:
    yield observables_page.INTRODUCTION
    yield (
        "Each card says what the number is, its formula, and how it is read: what a higher value means, a typical range "
        "of ordinary networks in ordinary training (no bound unless it says so), and what to look at beside it.\n\n"
    )
    for heading, group in groupby(entries.values(), key=chapter):
        yield f"## {heading}\n\n"
        for entry in group:
            yield _card(entry, entries)
    yield observables_page.ENDING


def _card(entry: Observable, entries: Mapping[str, Observable]) -> str:
    """A heading, for the search and for links, and below it what a reader wants to know."""
    facts = {
        "Formula": f'<span class="formula-text">{escape(entry.formula)}</span>',
        **{label: _linked(text, entries) for label, text in parts(entry.reading).items()},
        "Measured": "by default"
        if entry.default
        else f'on request: <code>observables=["default", "{entry.name}"]</code>',
        "Unit, size": ", ".join(
            [_unit(entry.units), "one per " + " × ".join(entry.dims) if entry.dims else "one number"]
        ),
        "Needs": ", ".join(sorted(entry.needs)),
        "Source": escape(entry.source),
    }
    rows = "".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in facts.items())
    return (
        f'### `{entry.name}`\n\n{entry.long_name[0].upper()}{entry.long_name[1:]}.\n\n<dl class="card">{rows}</dl>\n\n'
    )


def _unit(units: str) -> str:
    return "no unit" if units == "1" else escape(units)


def _linked(text: str, entries: Mapping[str, Observable]) -> str:
    """Names of other observables lead to their cards."""

    def link(found: re.Match[str]) -> str:
        code = f"<code>{escape(found[1])}</code>"
        return f'<a href="#{found[1].replace("_", "-")}">{code}</a>' if found[1] in entries else code

    return "".join(
        re.sub(r"`([^`]+)`", link, piece) if piece.startswith("`") else escape(piece)
        for piece in re.split(r"(`[^`]+`)", text)
    )
