"""The paper's numbers are those that were measured, and its form is the journal's.

Oracles: the tables of docs/benchmarks*.md, the catalogue, and PyYAML. Whoever measures anew is told which sentence to mend.
"""

from __future__ import annotations

import re

import yaml

from kerneltrack import observables
from tests.lowest import ROOT

PAPER = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
FRONT, TEXT = PAPER.split("---\n", 2)[1:]
WORDS = " ".join(TEXT.split())


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_form_is_the_journals():
    front = yaml.safe_load(FRONT)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(front)
    assert 750 <= len(TEXT.split()) <= 1750
    for head in ("Summary", "Statement of need", "State of the field", "References"):
        assert f"# {head}\n" in TEXT


def test_every_citation_has_its_entry_and_every_entry_is_cited():
    entries = set(
        re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"@(\w+)", TEXT)) == entries


def test_the_speeds_are_the_benchmarks():
    found = re.findall(
        r"kerneltrack takes ([\d.]+)× that and is ([\d.]+)× as fast as the best peer", page("benchmarks.md")
    )
    floors, speeds = (sorted(map(float, column)) for column in zip(*found, strict=True))
    assert len(found) == 12
    faster = [speed for speed in speeds if speed > 1.1]
    assert len(faster) == 10
    assert f"between {faster[0]:.1f} and {faster[-1]:.1f} times as fast as the best peer in ten of the twelve" in WORDS
    level = [speed for speed in speeds if speed <= 1.1]
    assert f"{100 * (min(level) - 1):.0f} % and {100 * (max(level) - 1):.0f} % faster in two language models" in WORDS
    assert f"between {floors[0]:.1f} and {floors[-1]:.1f} times the arithmetic floor" in WORDS
    errors = re.findall(r"\| kerneltrack · \w+ \|.*?\| (\S+) \| *\|", page("benchmarks.md"))
    assert len(errors) == 12
    assert r"$4\cdot 10^{-6}$" in WORDS
    assert max(map(float, errors)) == 4e-6


def test_the_costs_are_the_measured_ones():
    row = next(line for line in page("benchmarks-overhead.md").splitlines() if line.startswith("| ResNet-8, trace"))
    seconds = float(re.search(r"\| ([\d.]+) s \(", row)[1])
    short, long = re.findall(r"([\d.]+)% of (?:10,000|100,000) updates", row)
    assert f"took {seconds:.1f} seconds by the trace" in WORDS
    assert f"{float(short):.0f} % of 10,000 updates, and {float(long):.0f} % of 100,000" in WORDS
    appended = [
        float(row.split("|")[3])
        for row in page("benchmarks-archive.md").splitlines()
        if re.match(r"\| [\d,]+ \| with", row)
    ]
    assert f"The median append took {min(appended):.0f} to {max(appended):.0f} milliseconds" in WORDS


def test_the_catalogue_is_as_large():
    assert len(observables.catalogue()) > 100
    assert "more than a hundred observables" in WORDS
