"""The summary as a whole: its text, its JSON, its command, its page. Oracles: the report's own findings, and the code's limits."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.derived import DRAWS, HELD, MOVED
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.limits import AT_THE_EDGE
from kerneltrack.analysis.report.verdicts import ALIGNED, EDGE, LAZY_OR_RICH, RATE
from kerneltrack.analysis.report.verdicts.aligned import REACHED
from kerneltrack.analysis.report.verdicts.edge import SAMPLE
from kerneltrack.analysis.report.verdicts.lazy_or_rich import LIMITS
from kerneltrack.errors import AnalysisError
from tests.analysis.altered import stored
from tests.docs import running


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


@pytest.fixture(scope="module")
def control(archives):
    return load(archives[1]).only


def test_every_finding_of_the_report_stands_in_the_summary_once(run, control):
    found = run.summary(control)
    told = [*found.findings, *(finding for verdict in found.verdicts for finding in verdict.findings)]
    report = findings(run, lr_decay_effects(run, control))
    assert sorted(told, key=repr) == sorted(report, key=repr)
    text = str(found)
    assert {text.count(finding.sentence) for finding in report} == {1}


def test_the_answers_come_first(run):
    found = run.summary()
    lines = str(found).splitlines()
    asked = [(v.question, v.answer.upper()) for v in found.verdicts]
    assert [(line[: len(q)], line.rstrip().endswith(a)) for line, (q, a) in zip(lines[2:], asked, strict=False)] == [
        (q, True) for q, _ in asked
    ]
    assert {q for q, _ in asked} == {LAZY_OR_RICH, EDGE, ALIGNED, RATE}


def test_every_answer_has_its_threshold_and_source(run):
    for verdict in run.summary().verdicts:
        assert verdict.threshold
        assert verdict.source
        assert verdict.because


def test_asking_for_another_question_names_those_there_are(run):
    with pytest.raises(KeyError, match="Lazy or rich"):
        run.summary()["Is it good?"]


def test_the_command_prints_the_same(archives, run, control, capsys):
    assert main(["summary", str(archives[0]), "--control", str(archives[1])]) == 0
    assert capsys.readouterr().out == f"{run.summary(control)}\n"
    assert main(["summary", str(archives[0]), "--control", str(archives[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(run.summary(control).to_dict()))


def test_what_an_archive_says_cannot_move_the_cursor(run):
    hostile = stored(run, settings={"stability_scope": "\x1b[2Jgone\n"})
    assert "\x1b" not in str(hostile.summary())
    assert "gone" in str(hostile.summary())


def test_an_archive_with_little_in_it_is_undecided(run):
    """The spectrum alone; oracle: nothing but that is stored."""
    bare = dataclasses.replace(
        run, dataset=run.dataset[["eigenvalues", "learning_rate"]].assign_coords(run.dataset["step"].coords)
    )
    answers = {verdict.question: verdict.answer for verdict in bare.summary().verdicts}
    assert answers == {LAZY_OR_RICH: "undecided", EDGE: "undecided", ALIGNED: "undecided", RATE: "undecided"}


def test_nothing_measured_is_refused(run):
    nothing = stored(run, without=["eigenvalues"], trace=np.nan)
    with pytest.raises(AnalysisError, match="no snapshot of this probe holds a measurement"):
        nothing.summary()


def test_the_page_runs_as_written(archives, tmp_path, monkeypatch, capsys):
    """Oracles: its own assertion; that every command of it ends well; and the limits of its table, from the code."""
    monkeypatch.chdir(tmp_path)
    for name, path in zip(("run.h5", "control.h5"), archives, strict=True):
        shutil.copy(path, name)
    names = running.run("how-to/summary")
    capsys.readouterr()
    printed = []
    for line in running.blocks("how-to/summary", "sh")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0
        printed.append(capsys.readouterr().out)
    run, control = names["run"], names["control"]
    assert printed[:2] == [f"{run.summary()}\n", f"{run.summary(control)}\n"]
    assert json.loads(printed[2])["verdicts"][0]["answer"] == run.summary()[LAZY_OR_RICH].answer


def test_the_limits_on_the_page_are_those_of_the_code():
    page = (running.DOCS / "how-to" / "summary.md").read_text(encoding="utf-8")
    for name, (_, lazy, rich) in LIMITS.items():
        assert f"`{name}` below {lazy:g}" in page
        assert np.isnan(rich) or f"`{name}` at least {rich:g}" in page
    assert f"reaches {AT_THE_EDGE:g}, and its median from then on is within {HELD[0]:g} and {HELD[1]:g}" in page
    assert f"fewer than {100 * REACHED:g} % of {DRAWS} permutations" in page
    assert f"×{MOVED:g} or more from the control's" in page
    assert f"or by ×{SAMPLE:g} where" in page
