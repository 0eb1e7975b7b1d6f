"""What is not chosen costs nothing. Oracle: passes, counted at the network's last layer and at ``torch.autograd.grad``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import analyses

#: As few points as take the passes that the page's 60 take.
SMALL = {"points": 20, "width": 8}


@pytest.fixture(scope="module")
def base():
    return analyses.measured((), **SMALL)


def rows():
    """The page's table, by choice."""
    lines = analyses.PAGE.read_text(encoding="utf-8").splitlines()
    return dict(line.strip("| ").split(" | ", 1) for line in lines if " | " in line)


@pytest.mark.parametrize("beside", ["loss-weighted spectrum", "optimizer's spectrum, one rate"])
def test_what_follows_from_what_is_there_takes_no_pass(base, beside):
    names = [n for choice in analyses.FREE if "spectrum" not in choice for n in analyses.CHOICES[choice]]
    found = analyses.measured((*names, *analyses.CHOICES[beside]), **SMALL)
    assert (found.forward, found.backward) == (base.forward, base.backward)


def test_a_choice_that_needs_passes_takes_them(base):
    """Negative control: the counter sees them."""
    found = analyses.measured(analyses.CHOICES["q on its batch"], **SMALL)
    assert found.forward > base.forward
    assert found.backward > base.backward


def test_batches_take_what_the_page_says_however_often_they_are_measured(base):
    """Three calls and five passes a batch, of four; the check of second derivatives six and eight, once."""
    name = "batch sharpness, 4 batches"
    found = analyses.measured(analyses.CHOICES[name], repeats=2, **SMALL)
    more = found.forward - base.forward, found.backward - base.backward
    assert more == (4 * 3 + 6, 4 * 5 + 8)
    assert rows()[name].startswith(f"{found.forward} (+{more[0]}) | {found.backward} (+{more[1]}) | ")
    assert rows()["the default set"].startswith(f"{base.forward} (+0) | {base.backward} (+0) | ")


def test_the_page_says_which_choices_are_free():
    said = rows()
    for name in analyses.CHOICES:
        free = said[name].count("(+0)") == 2
        assert free == (name in (*analyses.FREE, "the default set")), name
