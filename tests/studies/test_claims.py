"""The table of claims: what stands in it and how it is decided."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "studies"))

import claims
from claims import Claim


def row(*, abstract="", tag="derived", holds=None):
    return Claim("R0", abstract, "up", tag, "1 | 2\n3", holds)


@pytest.mark.parametrize(
    ("claim", "answer"),
    [
        (row(holds=True), "yes"),
        (row(holds=False), "**no**"),
        (row(), "not decided"),
        (row(abstract="it rises", tag="recalled"), "not decided"),
        (row(tag="recalled"), "only recalled"),
        (row(tag="read"), "only read"),
    ],
)
def test_an_answer_says_what_it_rests_on(claim, answer):
    """Recollection alone never decides."""
    assert claims.table([claim]).splitlines()[-1].endswith(f"| {answer} |")


def test_a_cell_stays_one_cell():
    """Bars and line breaks in a measurement would end it: five cells, six bars that are not escaped."""
    line = claims.table([row()]).splitlines()[-1]
    assert line.replace("\\|", "").count("|") == 6


def test_the_verdict_counts_what_is_decided():
    assert claims.verdict([row(holds=True), row(), row(holds=False)]) == (
        "1 of 2 claims that can be decided hold; not: R0."
    )
    assert claims.verdict([row(holds=True)]) == "1 of 1 claims that can be decided hold."


def test_a_spread_is_median_and_range():
    assert claims.spread([3.0, 1.0, 2.0]) == "2 (1 to 3, 3 seeds)"
    assert claims.spread([0.5]) == "0.5"
    assert claims.spread([0.5, 0.5001]) == "0.5 (2 seeds)"
    assert claims.spread([1.0, 2.0], of="runs") == "1.5 (1 to 2, 2 runs)"
