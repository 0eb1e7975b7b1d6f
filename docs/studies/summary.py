"""Every claim of every study on one page: what the tangent kernel predicts, and what it does not.

    python docs/studies/summary.py

The studies are those of README.md's table; the claims are the tables of their pages, which their scripts write. Nothing
is measured here, and no number is typed by hand. Writes summary.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HEADER = "| claim | abstract says | expected (tag) | measured | holds? |"
BAR = re.compile(r"(?<!\\)\|")  # "\|" is a bar within a cell
LONGEST = 180

PAGE = """\
# What the tangent kernel predicts, and what it does not

Every claim of every paper that is [redone here](README.md), one line each: {count} claims of {studies} studies, {yes} hold, {no}
do not, {open} are not decided. Written by `python docs/studies/summary.py` from the studies' own pages; no number on it is typed by
hand. A claim is decided against the paper's abstract and what is derived, never against what is only recalled. "Measured" is the
beginning of what the study's table says: spread, seeds and the reasons stand there, behind the link.

## What does not hold

{failed}
## What holds

{held}
## What is not decided

A size that is too small, or an expectation that is only read or recalled: the measurement stands, and decides nothing.

{undecided}
## How to run them

| study | of | command |
| --- | --- | --- |
{commands}
"""


@dataclass(frozen=True)
class Study:
    """A row of README.md's table: name, the cell that says of which paper it is, command."""

    name: str
    paper: str
    command: str

    @property
    def page(self) -> Path:
        return HERE / self.name / "README.md"


@dataclass(frozen=True)
class Line:
    """A claim as its study's page has it, and the heading above it."""

    study: str
    heading: str
    claim: str
    expected: str
    measured: str
    answer: str

    def row(self) -> str:
        link = f"[{self.study}]({self.study}/README.md#{anchor(self.heading)})"
        return f"| {self.claim} | {shortened(self.expected)} | {shortened(self.measured)} | {link} |"


def studies(readme: str) -> list[Study]:
    """The rows of the README's table of studies, in its order."""
    found = re.findall(r"^\| \[([\w-]+)\]\([\w-]+/README\.md\) \| (.+) \| (`[^`]+`) \|$", readme, re.MULTILINE)
    return [Study(*cells) for cells in found]


def claims(study: str, page: str) -> Iterator[Line]:
    """The rows of every table of claims on a study's page."""
    heading, inside = "", False
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            inside = False
        elif line == HEADER:
            inside = True
        elif inside and not line.startswith("| ---"):
            claim, _, expected, measured, answer = (cell.strip() for cell in BAR.split(line)[1:-1])
            yield Line(study, heading, claim, expected, measured, answer)


def anchor(heading: str) -> str:
    """The heading's address on its page: small letters, hyphens for spaces, the rest of punctuation gone."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def shortened(cell: str) -> str:
    """The beginning of a long cell, up to its last full clause within LONGEST characters."""
    if len(cell) <= LONGEST:
        return cell
    clauses = [m.start() for m in re.finditer(r"[;,:](?= )", cell) if m.start() < LONGEST and level(cell[: m.start()])]
    end = clauses[-1] if clauses else cell.rindex(" ", 0, LONGEST)
    return f"{cell[:end]} …"


def level(text: str) -> bool:
    """Whether every bracket of a text is closed."""
    return text.count("(") == text.count(")") and text.count("[") == text.count("]")


def listed(lines: list[Line]) -> str:
    head = ["| claim | expected | measured | study |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *(line.row() for line in lines)]) + "\n"


def summary() -> str:
    """The page."""
    found = studies((HERE / "README.md").read_text(encoding="utf-8"))
    lines = [line for study in found for line in claims(study.name, study.page.read_text(encoding="utf-8"))]
    held = [line for line in lines if line.answer == "yes"]
    failed = [line for line in lines if line.answer == "**no**"]
    undecided = [line for line in lines if line not in held and line not in failed]
    return PAGE.format(
        count=len(lines),
        studies=len(found),
        yes=len(held),
        no=len(failed),
        open=len(undecided),
        failed=listed(failed),
        held=listed(held),
        undecided=listed(undecided),
        commands="\n".join(f"| [{s.name}]({s.name}/README.md) | {s.paper} | {s.command} |" for s in found),
    )


if __name__ == "__main__":
    (HERE / "summary.md").write_text(summary(), encoding="utf-8")
