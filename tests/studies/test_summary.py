"""The page of all claims, against the pages that it is made of."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))

import summary
from claims import Claim, table

ANSWERS = ("yes", "**no**", "not decided", "only recalled", "only read")


def answers(page):
    """By hand: the last cell of whatever row ends as a claim does."""
    return re.findall(r"\| (yes|\*\*no\*\*|not decided|only recalled|only read) \|$", page, re.MULTILINE)


def test_the_page_is_what_its_script_writes():
    assert (summary.HERE / "summary.md").read_text(encoding="utf-8") == summary.summary()


def test_every_study_with_a_table_of_claims_is_there_and_none_of_its_claims_is_lost():
    """The folders and the answers on their pages, counted without the script's reading of tables."""
    pages = [p for p in summary.HERE.glob("*/README.md") if summary.HEADER in p.read_text(encoding="utf-8")]
    text = summary.summary()
    assert {p.parent.name for p in pages} == {
        s.name for s in summary.studies((summary.HERE / "README.md").read_text("utf-8"))
    }
    want = [answer for page in pages for answer in answers(page.read_text(encoding="utf-8"))]
    no, yes = want.count("**no**"), want.count("yes")
    assert (
        f"{len(want)} claims of {len(pages)} studies, {yes} hold, {no}\ndo not, {len(want) - yes - no} are not" in text
    )
    assert text.count("/README.md#") == len(want)  # a line each


def test_every_link_leads_to_a_heading_of_its_page():
    """An anchor is made of the heading as GitHub and the site make it; here it is looked for by letters alone."""

    def letters(text):
        return re.sub(r"[\W_]", "", text.lower())

    for name, anchor in set(re.findall(r"\]\(([\w-]+)/README\.md#([^)]+)\)", summary.summary())):
        page = (summary.HERE / name / "README.md").read_text(encoding="utf-8")
        assert letters(anchor) in {letters(line) for line in page.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_claim_is_read_as_it_was_written(answer):
    """The writer of every study's table, and a bar within a cell."""
    holds = {"yes": True, "**no**": False}.get(answer)
    abstract, tag = ("it rises", "derived") if answer == "not decided" else ("", answer.removeprefix("only "))
    claim = Claim("‖a‖ | b", abstract, "|x| < 1", tag if "only" in answer else "derived", "1 | 2", holds)
    other = "| other | table |\n| --- | --- |\n| x | y |\n"
    page = f"# A study\n\n{other}\n## What came out, at last\n\n{table([claim])}\nend\n{other}"
    (line,) = summary.claims("a-study", page)
    assert (line.claim, line.answer, line.heading) == (r"‖a‖ \| b", answer, "What came out, at last")
    assert line.measured == r"1 \| 2"
    assert "(a-study/README.md#what-came-out-at-last)" in line.row()


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        ("short; whole", "short; whole"),
        ("a" * 100 + "; " + "b" * 100, "a" * 100 + " …"),
        ("a" * 60 + "; (" + "b" * 60 + ", " + "c" * 100 + ")", "a" * 60 + " …"),
        (("a" * 50 + " ") * 5, ("a" * 50 + " ") * 3 + "…"),
    ],
    ids=["short", "clause", "bracket", "no clause"],
)
def test_a_long_cell_ends_behind_a_clause_and_never_within_a_bracket(cell, want):
    assert summary.shortened(cell) == want


def test_every_row_of_every_table_has_the_cells_of_its_head():
    """Cells counted by hand, on every page: a bar that is not escaped makes one more, and the host shows no table then."""
    for page in summary.HERE.glob("*/README.md"):
        width = None
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = line.replace(r"\|", "").count("|") if line.startswith("|") else None
            assert width is None or cells in (width, None), (page.parent.name, line)
            width = cells
