"""What is not chosen costs nothing. Oracle: passes, counted at the network's last layer and at ``torch.autograd.grad``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import analyses


@pytest.fixture(scope="module")
def base():
    return analyses.measured((), points=6, width=4)


@pytest.mark.parametrize("beside", ["loss-weighted spectrum", "optimizer's spectrum, one rate"])
def test_what_follows_from_what_is_there_takes_no_pass(base, beside):
    names = [n for choice in analyses.FREE if "spectrum" not in choice for n in analyses.CHOICES[choice]]
    found = analyses.measured((*names, *analyses.CHOICES[beside]), points=6, width=4)
    assert (found.forward, found.backward) == (base.forward, base.backward)


def test_a_choice_that_needs_passes_takes_them(base):
    """Negative control: the counter sees them."""
    found = analyses.measured(analyses.CHOICES["q on its batch"], points=6, width=4)
    assert found.forward > base.forward
    assert found.backward > base.backward


def test_the_page_says_which_choices_are_free():
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in analyses.PAGE.read_text(encoding="utf-8").splitlines()
        if " | " in line
    )
    for name in analyses.CHOICES:
        free = rows[name].count("(+0)") == 2
        assert free == (name in (*analyses.FREE, "the default set")), name
