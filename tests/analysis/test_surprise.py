"""What surprises first, small lines, and the run at a glance. Oracles: the archive's own numbers, and findings made by hand."""

import dataclasses
import html
import json
import math
import re

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.figures.panels import Series
from kerneltrack.analysis.figures.panels.courses import label_ends, line_plot
from kerneltrack.analysis.figures.style import PAPER
from kerneltrack.analysis.report.cards import cards_of, order_table
from kerneltrack.analysis.report.findings import MAKERS, findings
from kerneltrack.analysis.report.sparkline import HEIGHT, WIDTH, sparkline
from kerneltrack.analysis.statements import TIERS, Finding, Held, by_surprise
from kerneltrack.analysis.text import number
from kerneltrack.errors import AnalysisError


@pytest.fixture(scope="module")
def found(archives):
    run, control = (load(path).only for path in archives)
    return {one.title: one for one in findings(run, lr_decay_effects(run, control))}


def finding(title, held=None):
    return Finding(title, "", "", held=held)


def test_the_theory_comes_first_then_chance_then_what_was_expected_and_last_what_has_no_null():
    """Oracle: the order by hand; ties stay as they came."""
    told = [
        finding("no null"),
        finding("little beyond chance", Held("chance", 2.0, 1.0)),
        finding("expected", Held("theory", 0.5, 1.0)),
        finding("far beyond the theory", Held("theory", 0.9, 0.1)),
        finding("less expected", Held("chance", 0.1, 1.0)),
        finding("unknown", Held("chance", math.nan, 1.0)),
        finding("just beyond the theory", Held("theory", 1.0, 1.0)),
        finding("far beyond chance", Held("chance", 30.0, 1.0)),
        finding("no limit", Held("theory", 1.0, 0.0)),
    ]
    assert [one.title for one in by_surprise(told)] == [
        "far beyond the theory", "just beyond the theory", "far beyond chance", "little beyond chance", "expected", "less expected",
        "no null", "unknown", "no limit",
    ]  # fmt: skip
    assert [one.tier for one in by_surprise(told)] == [TIERS[i] for i in (0, 0, 1, 1, 2, 2, 3, 3, 3)]


def test_what_findings_are_held_against_is_what_the_archive_says(found, truth, control_truth, synthetic):
    """Oracle: the closed form of the synthetic run."""
    last, target = synthetic.LAST, truth.basis.T @ truth.target
    energy = np.sum(target[:20] ** 2) / np.sum(target**2)
    assert found["Target alignment"].held == Held("chance", pytest.approx(energy), pytest.approx(20 / synthetic.N))
    assert found["Kernel motion"].held == Held("theory", 0.1, 0.05)
    assert found["Laziness"].held == Held("theory", 0.4, 0.1)
    assert found["First-order accuracy"].held == Held("theory", 1e-3, 0.1)
    assert found["Class structure"].held == Held("chance", 10.0, 5.0)
    assert found["Edge of stability"].held.limit == 0.95
    ratio = truth.eigenvalues[last][0] / control_truth.eigenvalues[last][0]
    told = found["Learning-rate change"].held
    assert (told.against, told.limit) == ("chance", 1.1)
    assert told.measured >= ratio > 1.5
    assert found["Cost"].held is found["Rounding"].held is None


def test_a_finding_without_a_control_is_held_against_nothing(archives):
    run = load(archives[0]).only
    (change,) = [one for one in findings(run, lr_decay_effects(run)) if one.title == "Learning-rate change"]
    assert (change.held, change.tier) == (None, TIERS[3])


def test_a_course_is_the_archive_s(found, truth, synthetic):
    told = found["Edge of stability"].course
    assert [step for step, _ in told] == list(truth.eigenvalues)
    ratios = [v[0] * truth.rates[s] / (2 * truth.count) for s, v in truth.eigenvalues.items()]
    np.testing.assert_allclose([value for _, value in told], ratios)
    assert found["Cost"].course == ()
    target = truth.basis.T @ truth.target
    for title, right in {
        "Class structure": [0.1 + 0.3 * step / synthetic.LAST for step in truth.eigenvalues],
        "Target alignment": [np.sum(target[:20] ** 2) / np.sum(target**2)] * len(told),
        "Laziness": [0.4] * len(told),
        "Kernel motion": [0.1] * len(told),
        "First-order accuracy": [1e-3] * len(told),
    }.items():
        np.testing.assert_allclose([value for _, value in found[title].course], right)


def test_findings_are_plain_values(found):
    for one in found.values():
        told = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert told["tier"] == one.tier
        assert set(told) == {"title", "value", "sentence", "null", "figure", "tier", "held"}
        assert (told["held"] is None) == (one.tier == TIERS[3])


def test_every_maker_s_limit_is_told_on_the_page(page, found):
    """The cards stand in the order of surprise, and the table below them has each with its limit."""
    told = [html.unescape(t) for t in re.findall(r'<article class="card.*?<h3>(.*?)</h3>', page, re.DOTALL)]
    assert told == [one.title for one in by_surprise(found.values())]
    table = order_table(cards_of(list(found.values())))
    assert [row[0] for row in table.rows] == [title for title in told if found[title].held is not None]
    assert "no common unit" in page
    assert len(MAKERS) > len(table.rows) > 7
    assert page.count('class="spark"') == sum(len(one.course) > 1 for one in found.values())


@pytest.mark.parametrize(
    ("values", "heights"),
    [((0.0, 5.0, 10.0), (0, 0.5, 1)), ((1.0, 10.0, 100.0), (0, 0.5, 1)), ((3.0, 3.0), (0.5, 0.5))],
)
def test_a_sparkline_spans_its_values(values, heights):
    """Oracle: their places by hand: linear, a logarithm over two decades, and the middle where nothing changes."""
    line = sparkline("x", [(10 * i, v) for i, v in enumerate(values)])
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", line.path), dtype=float)
    np.testing.assert_allclose(points[:, 1], [HEIGHT - 3 - (HEIGHT - 6) * h for h in heights], atol=0.051)
    assert points[0, 0] == 3
    assert points[-1, 0] == WIDTH - 3
    assert (
        line.words == f"x: from {number(values[0])} at step 0 to {number(values[-1])} at step {10 * (len(values) - 1)}"
    )
    assert sparkline("x", [(0, 1.0)]) is None


def test_the_run_at_a_glance(archives, truth, control_truth):
    """Oracle: the truth that both archives were written from."""
    figure = choose("overview")(Scene(*(load(path).only for path in archives)))
    lines = {(i, line.get_label()): line.get_data() for i, ax in enumerate(figure.axes) for line in ax.lines}
    assert [ax.get_ylabel() for ax in figure.axes] == ["λ₁", "loss", "alignment", "angle (rad)"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"training step"}
    assert lines[0, "λ₁"][1].tolist() == [v[0] for v in truth.eigenvalues.values()]
    assert lines[0, "control"][1].tolist() == [v[0] for v in control_truth.eigenvalues.values()]
    bounds = [2 * truth.count / truth.rates[step] for step in truth.eigenvalues]
    np.testing.assert_allclose(lines[0, "bound"][1], bounds)
    np.testing.assert_allclose(lines[3, "angle"][1], np.arccos(0.9))
    np.testing.assert_allclose(lines[2, "by chance"][1], 0.05)


def test_a_run_at_a_glance_needs_two_rows(archives):
    run = load(archives[0]).only
    kept = ["step", "status", "trace", "probe_loss", "learning_rate"]
    bare = dataclasses.replace(run, dataset=run.dataset[[name for name in kept if name in run.dataset]])
    with pytest.raises(AnalysisError, match="'overview' needs 'stability_ratio'"):
        choose("overview")(Scene(bare))


def test_a_line_that_lies_on_another_one_says_so():
    from matplotlib.figure import Figure

    x, rising = np.arange(5), np.arange(5.0)
    apart = rising + np.array([0, 0, 0.1, 0, 0])
    for second, expected in ((rising, "b (on a)"), (apart, "b")):
        ax = Figure().subplots()
        line_plot(ax, x, [Series("a", rising, "red"), Series("b", second, "blue")], PAPER, ylabel="")
        assert {text.get_text() for text in ax.texts} == {"a", expected}
    assert label_ends(ax, x, []) is None
