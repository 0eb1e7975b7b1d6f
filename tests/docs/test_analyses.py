"""The ten analyses: each has definition, reading, cost, oracle, panel, sentence, and the page is the table's."""

import importlib
import inspect

import pytest

from kerneltrack.analysis import derived
from kerneltrack.analysis.figures import registered
from kerneltrack.analysis.report.findings import MAKERS
from kerneltrack.observables import NEEDS, catalogue
from tests.docs.pages import ROOT

TESTS = ROOT / "tests"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "docs"))
    analyses_page = importlib.import_module("analyses_page")

#: Stored with every archive, so that nobody asks for them.
STORED = {"eigenvalues", "target_coefficients"}


def test_the_page_is_the_table_s():
    """Run `python docs/analyses_page.py`."""
    assert analyses_page.PAGE.read_text(encoding="utf-8") == analyses_page.markdown(analyses_page.ANALYSES)


def test_there_are_ten():
    questions = [one.question for one in analyses_page.ANALYSES]
    assert len(set(questions)) == len(questions) == 10


@pytest.mark.parametrize("one", analyses_page.ANALYSES, ids=lambda one: one.sentence)
def test_an_analysis_is_whole(one):
    """Definition with reading, need and cost; a function that is documented and read; panel; sentence and its silence; oracle."""
    for name in set(one.observables) - STORED:
        entry = catalogue()[name]
        assert entry.formula
        assert all(word in entry.reading for word in ("Higher: ", "Typical: ", "Beside it: "))
        assert all(NEEDS[need].cost for need in entry.needs)
    for name in one.functions:
        assert name in derived.__all__
        assert inspect.getdoc(getattr(derived, name))
    assert bool(one.functions) == bool(one.reading)
    if one.reading:
        assert all(word in one.reading for word in ("Typical: ", "Beside it: "))
    assert one.figures
    assert set(one.figures) <= set(registered())
    module, _, name = one.maker.partition(".")
    maker = getattr(importlib.import_module(f"kerneltrack.analysis.report.{module}"), name)
    assert maker in MAKERS
    source = inspect.getsource(maker)
    assert f'"{one.sentence}"' in source
    assert f'"{one.figures[0]}"' in source, "the sentence points at its panel"
    assert "return None" in source, "there is a run of which it says nothing"
    assert one.silent
    assert one.oracles
    assert all((TESTS / path).exists() for path in one.oracles)
