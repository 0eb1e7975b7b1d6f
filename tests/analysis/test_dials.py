"""The dials' figures and sentences. Oracle: the closed forms that the synthetic run is made of (``dials`` in conftest.py)."""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived import alignment_order, oscillation
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report import dials
from kerneltrack.analysis.report.motion import oscillating
from kerneltrack.errors import AnalysisError


@pytest.fixture(scope="module")
def run(synthetic, tmp_path_factory):
    rows, record = synthetic.one_more_kind("dials")
    return load(synthetic.write(tmp_path_factory.mktemp("dials") / "run.h5", rows, record)).only


def drawn(figure, panel):
    return {line.get_label(): line.get_ydata() for line in figure.axes[panel].lines}


def test_sharpness_is_drawn_raw_and_over_its_bound(run, truth, synthetic):
    raw, scaled = (drawn(choose("sharpness")(Scene(run)), panel) for panel in (0, 1))
    rates = np.array([truth.rates[step] for step in synthetic.STEPS])
    ratio = np.array([truth.eigenvalues[step][0] for step in synthetic.STEPS]) * rates / (2 * synthetic.N)
    expected = {
        "Gauss–Newton": 2 * ratio / rates,
        "Hessian": 2.5 * ratio / rates,
        "batch": 3 / rates,
        "bound": 2 / rates,
    }
    for label, values in expected.items():
        np.testing.assert_allclose(raw[label], values, rtol=1e-12)
    halves = (1 + 1.5 * np.array(synthetic.STEPS) / synthetic.LAST) / 2
    expected = {
        "ρ, Gauss–Newton": ratio,
        "Hessian": 1.25 * ratio,
        "batch": 0 * ratio + 1.5,
        "q/2, the real update": halves,
        "q/2 on its batch": 2 * halves,
    }
    for label, values in expected.items():
        np.testing.assert_allclose(scaled[label], values, rtol=1e-12)


def test_the_sentence_on_sharpness_has_the_medians_of_the_last_third(run, truth, synthetic):
    """Four of thirteen snapshots: steps 301, 310, 400 and 700; q is 2 (1 + 1.5 t/700) on its own batch, and above 2 in all."""
    found = dials.sharpness(run)
    last = [truth.eigenvalues[t][0] * truth.rates[t] / (2 * synthetic.N) for t in synthetic.STEPS[-4:]]
    assert found.value == f"the Hessian's λ₁: {1.25 * np.median(last):.2g}"
    assert f"at {1.25 * np.median(last):.2g} and batches along their gradients at 1.5 (medians)" in found.sentence
    assert "has 80 % of the Hessian's" in found.sentence
    q = [2 + 3 * t / 700 for t in synthetic.STEPS[-4:]]
    assert f"q = {np.median(q):.2g} (median)" in found.sentence
    assert "model of its own batch's loss is higher than before, in 4 of 4 snapshots" in found.sentence
    of_the_probe = dials.sharpness(dataclasses.replace(run, dataset=run.dataset.drop_vars("one_step_criterion_batch")))
    assert "of the probe's loss is higher than before, in 1 of 4 snapshots" in of_the_probe.sentence  # from step 467 on
    assert "momentum" not in found.sentence


def test_with_momentum_the_criterion_is_called_one_of_single_steps(run):
    attrs = dict(run.dataset.attrs)
    attrs["provenance"] = (
        attrs["provenance"].replace('"momentum": 0', '"momentum": 0.9').replace('"momentum":0', '"momentum":0.9')
    )
    told = dials.sharpness(dataclasses.replace(run, dataset=run.dataset.assign_attrs(attrs)))
    assert told.sentence.endswith("With momentum this judges single steps.")


def test_without_the_numbers_nothing_is_said(archives):
    """Gauss–Newton alone has its own sentence; the figure says what to measure."""
    bare = load(archives[0]).only
    assert dials.sharpness(bare) is None
    with pytest.raises(AnalysisError, match=r"needs .*hessian_sharpness"):
        choose("sharpness")(Scene(bare))


@pytest.fixture(scope="module")
def swinging(synthetic, tmp_path_factory):
    rows, record = synthetic.one_more_kind("oscillation")
    return load(synthetic.write(tmp_path_factory.mktemp("swing") / "run.h5", rows, record)).only


def test_the_oscillation_is_drawn_by_its_part_of_the_loss_and_by_mode(swinging, synthetic):
    """By hand: ‖δ‖² = 0.1 (1 + t/100)², a tenth of it along v_4; eigenvectors are stored in float32, 1e-7 each."""
    figure = choose("oscillation")(Scene(swinging))
    loss, modes = drawn(figure, 0), drawn(figure, 1)
    excess = 0.1 * (1 + np.array([0, 1, 2])) ** 2 / (2 * synthetic.N)
    np.testing.assert_allclose(loss["predicted"], excess, rtol=1e-10)
    np.testing.assert_allclose(loss["seen"], excess, rtol=1e-10)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 101, 201]
    np.testing.assert_allclose([modes[f"v{i}"][0] for i in "₁₂₃₄₅"], [0.9, 0, 0, 0.1, 0], atol=1e-6)


def test_the_swing_at_the_edge_is_drawn_beside_its_balance_and_told_where_both_are_known(swinging):
    """By hand: 0.1 (1 + t/100)² in each third state, over 1.5 in balance; a balance of zero has no ratio."""
    lines = drawn(choose("edge-swing")(Scene(swinging)), 0)
    np.testing.assert_allclose(lines["seen"][np.isfinite(lines["seen"])], [0.1, 0.4, 0.9], rtol=1e-12)
    np.testing.assert_allclose(lines["in balance"][np.isfinite(lines["seen"])], [0.2 / 3, 0.8 / 3, 0.6], rtol=1e-12)
    told = oscillating(swinging).sentence
    assert "swing is ×1.5 of that at which the sharpness would stand still (median over 3 triples)." in told
    still = swinging.dataset.assign(edge_swing_predicted=0 * swinging.dataset["edge_swing_predicted"])
    assert "stand still" not in oscillating(dataclasses.replace(swinging, dataset=still)).sentence
    bare = dataclasses.replace(swinging, dataset=swinging.dataset.drop_vars("edge_swing"))
    assert "stand still" not in oscillating(bare).sentence
    with pytest.raises(AnalysisError, match="edge_swing"):
        choose("edge-swing")(Scene(bare))
    few = swinging.dataset["edge_swing"].where(swinging.steps != 2)
    fewer = dataclasses.replace(swinging, dataset=swinging.dataset.assign(edge_swing=few))
    assert "stand still" not in oscillating(fewer).sentence  # of two triples no median is told


def test_the_drift_of_a_triple_is_told_apart(swinging):
    found = oscillation(swinging)
    np.testing.assert_allclose(found.drift, 1e-4, rtol=1e-10)
    np.testing.assert_allclose(found.leading, 1, rtol=1e-6)
    loss = np.arange(1.0, len(swinging) + 1)
    middle = np.searchsorted(swinging.steps, found.steps)
    weighed = dataclasses.replace(swinging, dataset=swinging.dataset.assign(probe_loss=("snapshot", loss)))
    np.testing.assert_allclose(oscillation(weighed).share, found.excess / loss[middle], rtol=1e-12)


def test_weights_are_drawn_by_layer_and_said_of_the_last_snapshot(run, synthetic):
    """By hand: 0.2 and 0.5 of t/700, the middle layer has none."""
    lines = drawn(choose("lazy-rich")(Scene(run)), 1)
    assert {label for label in lines if not label.startswith("_")} == {"0", "4"}
    np.testing.assert_allclose(lines["4"], 0.5 * np.array(synthetic.STEPS) / synthetic.LAST, rtol=1e-12)
    found = dials.weights(run)
    assert "step 700 the weights of layer 4 had changed by 0.50" in found.sentence
    assert "those of 0 the least, by 0.20" in found.sentence


def first(steps, loss):
    """The first step at which a loss has lost a tenth."""
    return next(t for t, value in zip(steps, loss, strict=True) if value <= 0.9 * loss[0])


def test_which_came_first_is_told_from_nine_tenths_and_a_tenth(run, truth, synthetic):
    """The alignment is 0.1 + 0.004 t up to 0.5, and first above 0.45 at t = 100; the loss in closed form."""
    loss = [np.sum(c**2) for c in truth.coefficients.values()]
    found = alignment_order(run)
    assert (found.aligned, found.fallen) == (100, first(synthetic.STEPS, loss))
    assert found.order == "after"
    assert f"at step {found.aligned}, and" in dials.silent_alignment(run).sentence
    figure = choose("lazy-rich")(Scene(run))
    assert {line.get_xdata()[0] for line in figure.axes[3].lines if str(line.get_label()).startswith("_")} >= {
        found.aligned, found.fallen,
    }  # fmt: skip


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_part_of_a_loss_that_does_not_start_above_zero_is_not_drawn(run, first):
    """Dividing by it would draw infinities, or a fall as a rise; the alignment is drawn as it is without."""
    loss = np.r_[first, run.values("probe_loss")[1:]]
    lines = drawn(
        choose("lazy-rich")(Scene(dataclasses.replace(run, dataset=run.dataset.assign(probe_loss=("snapshot", loss))))),
        3,
    )
    assert "alignment" in lines
    assert "loss" not in lines
    neither = run.dataset.drop_vars(["probe_loss", "kernel_target_alignment"])
    panel = choose("lazy-rich")(Scene(dataclasses.replace(run, dataset=neither))).axes[3]
    assert [text.get_text() for text in panel.texts] == ["not measured"]


def test_there_is_no_order_where_alignment_stood_from_the_start_or_nothing_fell(archives, run):
    bare = load(archives[0]).only
    with pytest.raises(AnalysisError, match="from the start"):
        alignment_order(bare)
    assert dials.silent_alignment(bare) is None
    assert dials.weights(bare) is None
    flat = run.dataset.assign(probe_loss=("snapshot", np.ones(len(run))))
    with pytest.raises(AnalysisError, match="not fallen by a tenth"):
        alignment_order(dataclasses.replace(run, dataset=flat))
    below = run.dataset.assign(probe_loss=("snapshot", -1.0 - np.arange(len(run))))
    with pytest.raises(AnalysisError, match="does not start above zero"):
        alignment_order(dataclasses.replace(run, dataset=below))
