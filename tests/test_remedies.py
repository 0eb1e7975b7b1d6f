"""Every error that the caller can mend says what to do. Oracle: the source, read with ``ast``.

A refusal names what would have been right (``expected=``) or what to do now (``remedy=``), and mostly the latter. Reasons
why an observable is NaN and damaged archives are not the caller's to mend and are left out.
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

from kerneltrack.errors import ProbeError

ROOT = Path(__file__).parent.parent
#: Errors about what the caller gave.
MENDABLE = (
    "ProbeError",
    "ScheduleError",
    "KernelError",
    "UnsupportedModelError",
    "MemoryBudgetError",
    "AuditError",
    "TrackerError",
)
#: Errors about what an archive was asked for. What it lacks nobody can mend: of these only the remedies that are there stay.
ASKED = ("AnalysisError", "OutputError")
#: How many name no remedy, because what was expected says it: a number to lower, and to raise with a reason only. Exact, for
#: every one to spare is a remedy that can be dropped unseen.
WITHOUT_REMEDY = {
    "KernelError": 19,  # of kernels from elsewhere, as three of the probes: shapes, which expected= says
    "ProbeError": 12,
    "ScheduleError": 3,
    "AnalysisError": 74,  # of the summary, the forecast and the analyses of one archive: about what it does not hold
    "OutputError": 6,
}
#: What came is wrong by itself, and what to do is its opposite.
PLAIN = {
    "time must not be negative",
    "x1 and x2 give different numbers of outputs",
    "--model {name} cannot be imported",
}


def errors(folder):
    """(class, problem, keywords, place) of every error that is made in a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in (*MENDABLE, *ASKED):
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                problem = ast.unparse(node.args[0]).lstrip("f").strip("'\"") if node.args else ""
                yield node.func.id, problem, named, f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.fixture(scope="module")
def found():
    return [each for folder in ("kerneltrack", "callbacks", "analysis") for each in errors(folder)]


def test_every_refusal_says_what_is_right_or_what_to_do(found):
    """Fails where a remedy is dropped that nothing else takes the place of."""
    mendable = [each for each in found if each[0] in MENDABLE]
    bare = [
        (place, problem) for _, problem, named, place in mendable if not named.keys() & {"expected", "remedy", None}
    ]
    assert [each for each in bare if each[1] not in PLAIN] == []
    assert len(mendable) > 100


def test_few_refusals_have_no_remedy(found):
    """Fails where a remedy is dropped although ``expected=`` stays."""
    without = [(kind, place, problem) for kind, problem, named, place in found if not named.keys() & {"remedy", None}]
    counts = Counter(kind for kind, *_ in without)
    assert counts == WITHOUT_REMEDY, without


def test_a_remedy_is_a_sentence(found):
    """A remedy of one word helps nobody, and the message ends with it."""
    texts = [(named["remedy"], place) for *_, named, place in found if isinstance(named.get("remedy"), ast.Constant)]
    assert [(node.value, place) for node, place in texts if not (node.value.endswith(".") and " " in node.value)] == []
    assert len(texts) > 60


@pytest.mark.parametrize("came", ["float64", "float64.", None])
def test_a_remedy_follows_one_full_stop(came):
    """What came may be another's sentence, with its own stop."""
    said = str(ProbeError("the probe has another precision", got=came, remedy="Convert it."))
    assert said.endswith(". Convert it.")
    assert ".." not in said
