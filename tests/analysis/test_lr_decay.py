"""Learning-rate changes. Oracle: the closed form of the synthetic run, recomputed here from its truth."""

import dataclasses
import json

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.derived.rate_changes import learning_rate_changes
from kerneltrack.analysis.lr_decay import seeds as over_seeds
from kerneltrack.analysis.lr_decay.seeds import effects_over_seeds, seed_sentence, seed_table
from kerneltrack.analysis.lr_decay.wording import (
    change_table,
    factor_table,
    old_bound,
    sentence,
    trend_sentence,
    trend_table,
)
from kerneltrack.errors import AnalysisError
from tests.analysis.h5_by_hand import Raw, numbers, sig


@pytest.fixture(scope="module")
def effects(archives):
    return lr_decay_effects(load(archives[0]), load(archives[1]))


def at(effects, offset):
    return next(m for m in effects.changes[0].after if m.offset == offset)


def test_the_change_is_found_where_it_was_made(effects, synthetic):
    (change,) = effects.changes
    assert (change.change.step, change.change.exact) == (synthetic.HALVED, True)
    assert (change.change.old, change.change.new) == ((0.25,), (0.125,))
    assert change.before.step == synthetic.HALVED
    assert [m.offset for m in change.after] == [1, 10, 100, synthetic.LAST - synthetic.HALVED]


def test_every_moment_holds_the_stored_numbers(effects, truth, synthetic):
    for m in (effects.changes[0].before, *effects.changes[0].after):
        values, residual = truth.eigenvalues[m.step], truth.coefficients[m.step]
        assert m.numbers["eigenvalue_10"] == values[9]
        energy = np.sum(residual[:20] ** 2) / np.sum(residual**2)
        np.testing.assert_allclose(m.numbers["residual_energy_20"], energy, rtol=1e-13)  # a few float64 roundings


def test_predicted_and_measured_factors_agree_on_a_kernel_that_stands_still(effects, truth, synthetic):
    factors = effects.changes[0].factors
    values = truth.eigenvalues[synthetic.HALVED][: synthetic.TOP_K]
    np.testing.assert_allclose(factors.predicted, np.abs(1 - 0.125 * values / synthetic.N), rtol=1e-14)
    np.testing.assert_allclose(factors.predicted_old, np.abs(1 - 0.25 * values / synthetic.N), rtol=1e-14)
    # Eigenvectors are stored in float32: a coefficient c_i picks up 2^-24 of ‖m‖ at most, about 1e-7 ‖m‖/|c_i|.
    residual = truth.coefficients[synthetic.HALVED]
    slack = 2**-23 * np.linalg.norm(residual) / np.abs(residual[: synthetic.TOP_K]) * 4
    assert np.all(np.abs(factors.measured - factors.predicted) < slack)
    assert np.any(
        np.abs(factors.measured - factors.predicted_old) > slack
    )  # negative control: the old rate does not fit


def test_mse_halves_the_factor_s_curvature_denominator(archives, synthetic, truth, tmp_path):
    """torch's MSELoss with O = 1 is twice the half-MSE loss: 1 − 2ηλ/N."""
    path = synthetic.write(tmp_path / "mse.h5", synthetic.snapshots(truth), synthetic.record(truth, loss="mse"))
    factors = lr_decay_effects(load(path)).changes[0].factors
    np.testing.assert_allclose(
        factors.predicted,
        np.abs(1 - 2 * 0.125 * truth.eigenvalues[synthetic.HALVED][: synthetic.TOP_K] / synthetic.N),
        rtol=1e-14,
    )


def test_differences_are_run_minus_control_at_the_same_step(effects, truth, control_truth, synthetic):
    later = at(effects, 100)
    step = synthetic.HALVED + 100
    assert later.difference["eigenvalue_1"] == truth.eigenvalues[step][0] - control_truth.eigenvalues[step][0]
    assert later.difference["eigenvalue_1"] > 0  # towards the new bound, while the control stays


def test_words_claim_an_effect_only_with_a_control(archives, effects):
    with_control = sentence(effects.changes[0], effects.energy_k)
    alone = lr_decay_effects(load(archives[0]))
    without = sentence(alone.changes[0], alone.energy_k)
    assert "was followed by" in with_control
    assert "Effect, against the control" in with_control
    assert "was followed by" in without
    assert "ffect" not in without
    assert any("No effect is claimed" in note for note in change_table(alone.changes[0], alone.energy_k).notes)


def test_a_control_in_another_state_is_none(archives, synthetic, tmp_path, control_truth):
    shifted = dataclasses.replace(
        control_truth, eigenvalues={s: 1.01 * v for s, v in control_truth.eigenvalues.items()}
    )
    path = synthetic.write(tmp_path / "other.h5", synthetic.snapshots(shifted), synthetic.record(shifted))
    effects = lr_decay_effects(load(archives[0]), load(path))
    assert "another state" in effects.changes[0].no_control
    assert "Effect" not in sentence(effects.changes[0], effects.energy_k)


def test_a_control_that_changed_the_rate_too_is_none(archives):
    effects = lr_decay_effects(load(archives[0]), load(archives[0]))
    assert "did not keep the learning rate" in effects.changes[0].no_control


def test_the_old_bound_is_that_of_the_old_rate(effects, synthetic):
    assert old_bound(effects.changes[0]) == pytest.approx(2 * synthetic.N / 0.25, rel=1e-15)


def test_tables_carry_value_control_and_difference(effects):
    table = change_table(effects.changes[0], effects.energy_k)
    labels = [row[0].strip() for row in table.rows]
    assert labels[:3] == ["λ₁", "control", "difference"]
    assert table.columns[1:4] == ["before", "+1", "+10"]
    assert factor_table(effects.changes[0]).rows[0][0] == "1"


def test_what_was_never_measured_has_no_row(archives, control_truth, synthetic, tmp_path):
    """A control that starts at the change knows no distance from initialisation: no rows of dashes for it."""
    lacking = synthetic.snapshots(control_truth, drop={"kernel_distance_from_initial"})
    path = synthetic.write(tmp_path / "late.h5", lacking, synthetic.record(control_truth))
    effects = lr_decay_effects(load(archives[0]), load(path))
    table = change_table(effects.changes[0], effects.energy_k)
    row = next(i for i, cells in enumerate(table.rows) if cells[0] == "kernel distance from start")
    assert table.rows[row + 1][0].strip() != "control"
    assert all("–" not in cells[1:] for cells in table.rows if cells[0].strip() == "control")
    assert "λ₁₀₀" not in {cells[0] for cells in table.rows}  # there are 48 modes


def test_json_has_no_nan_and_survives_a_round_trip(effects):
    text = json.dumps(effects.to_dict(), allow_nan=False)
    assert json.loads(text)["changes"][0]["step"] == effects.changes[0].change.step


def test_an_inexact_change_gives_both_steps_and_no_factor(synthetic, truth, tmp_path):
    rows = [
        s
        for s in synthetic.snapshots(truth)
        if s.step not in (synthetic.HALVED - 1, synthetic.HALVED, synthetic.HALVED + 1)
    ]
    path = synthetic.write(tmp_path / "sparse.h5", rows, synthetic.record(truth))
    (change,) = lr_decay_effects(load(path)).changes
    assert (change.change.earliest, change.change.step) == (201, synthetic.HALVED + 10)
    assert change.before.step == 200
    assert change.factors is None
    assert "somewhere in steps 201 to 310" in change.no_factors
    assert "Between steps 200 and 310" in sentence(change, ())


def test_the_schedule_s_trigger_pins_a_change(synthetic, truth, tmp_path):
    rows = [
        dataclasses.replace(
            s, trigger="OnLearningRateChange(after=(0, 1, 10, 100))" if s.step == synthetic.HALVED else s.trigger
        )
        for s in synthetic.snapshots(truth)
        if s.step != synthetic.HALVED - 1
    ]
    path = synthetic.write(tmp_path / "pinned.h5", rows, synthetic.record(truth))
    assert lr_decay_effects(load(path)).changes[0].change.exact
    late = [dataclasses.replace(s, trigger=s.trigger.replace("(0, ", "(")) for s in rows]
    path = synthetic.write(tmp_path / "late.h5", late, synthetic.record(truth))
    assert (
        not lr_decay_effects(load(path)).changes[0].change.exact
    )  # negative control: without offset 0 it is not pinned


@pytest.mark.parametrize(
    "trigger",
    [
        "Log(2, pairs=3) | OnLearningRateChange(after=(0, 1, 10, 100), pairs=3, by=1.25), second of a pair",
        "Every(50) | OnLearningRateChange(after=(0, 1), by=1.25), third of a triple",
    ],
)
def test_a_state_within_a_group_was_not_asked_for_by_the_change(synthetic, truth, tmp_path, trigger):
    """Its trigger names the whole schedule, which did not ask for it. By hand, without the state before the change."""
    rows = [
        dataclasses.replace(s, trigger=trigger if s.step == synthetic.HALVED else s.trigger)
        for s in synthetic.snapshots(truth)
        if s.step != synthetic.HALVED - 1
    ]
    path = synthetic.write(tmp_path / "within.h5", rows, synthetic.record(truth))
    assert not lr_decay_effects(load(path)).changes[0].change.exact


def test_another_offset_may_have_asked_for_the_row(synthetic, truth, tmp_path):
    """A row that lies 100 updates after another such row need not be at the change: which offset it was, no trigger says."""
    asked = "OnLearningRateChange(after=(0, 1, 10, 100), pairs=3, by=1.25)"

    def exact(*at):
        rows = [
            dataclasses.replace(s, trigger=asked if s.step in at else s.trigger)
            for s in synthetic.snapshots(truth)
            if s.step != synthetic.HALVED - 1
        ]
        path = synthetic.write(tmp_path / f"{at[0]}-{len(at)}.h5", rows, synthetic.record(truth))
        return lr_decay_effects(load(path)).changes[0].change.exact

    assert exact(synthetic.HALVED)
    assert not exact(synthetic.HALVED - 100, synthetic.HALVED)
    assert exact(synthetic.HALVED - 200, synthetic.HALVED)  # 200 is none of the offsets
    # A later row decides that only a step here can have asked for.
    assert exact(synthetic.HALVED - 100, synthetic.HALVED, synthetic.HALVED + 1)


def test_a_cosine_schedule_is_a_trend_and_not_many_changes(synthetic, truth, tmp_path):
    rows = [
        dataclasses.replace(s, learning_rates=(0.125 * (1 + np.cos(np.pi * s.step / 1000)),))
        for s in synthetic.snapshots(truth)
    ]
    effects = lr_decay_effects(load(synthetic.write(tmp_path / "cosine.h5", rows, synthetic.record(truth))))
    assert effects.changes == ()
    (course,) = effects.trends
    assert course.rates == (0.25, pytest.approx(0.125 * (1 + np.cos(0.7 * np.pi))))
    # Ση of the schedule itself, step by step; between 13 rows straight lines come within 2 %.
    whole = sum(0.125 * (1 + np.cos(np.pi * t / 1000)) for t in range(synthetic.LAST))
    assert course.trend.travel == pytest.approx(whole, rel=0.02)
    assert "A trend has no before and after" in trend_sentence(course)


def with_rates(synthetic, truth, rate):
    return [dataclasses.replace(s, learning_rates=(rate(s.step),)) for s in synthetic.snapshots(truth)]


def test_a_schedule_that_moves_once_per_epoch_is_a_trend(synthetic, truth, tmp_path):
    """A linear decay in seven epochs of 100 steps: every rate holds for a while, yet nothing is a step."""
    rows = with_rates(synthetic, truth, lambda step: 0.25 * (1 - (step // 100) / 8))
    (course,) = lr_decay_effects(load(synthetic.write(tmp_path / "epochs.h5", rows, synthetic.record(truth)))).trends
    assert course.rates == (0.25, 0.25 * (1 - 7 / 8))


def test_a_staircase_of_halvings_is_steps(synthetic, truth, tmp_path):
    """Negative control of the rule: the first halving takes more than half of the way."""
    rows = with_rates(synthetic, truth, lambda step: 0.25 / 2 ** (step // 150))
    effects = lr_decay_effects(load(synthetic.write(tmp_path / "halvings.h5", rows, synthetic.record(truth))))
    assert effects.trends == ()
    assert [change.change.new[0] for change in effects.changes] == [0.125, 0.0625]  # nothing follows the last


@pytest.mark.parametrize(
    ("settings", "run", "words"),
    [
        ({"loss": "cross_entropy"}, {}, "the loss is cross_entropy"),
        ({}, {"optimizers": [{"class": "Adam", "groups": [{}]}]}, "the optimizer is Adam"),
        ({}, {"optimizers": [{"class": "SGD", "groups": [{"momentum": 0.9}]}]}, "the optimizer has momentum"),
    ],
)
def test_no_prediction_where_modes_do_not_decay_one_by_one(archives, settings, run, words):
    known = load(archives[0]).only
    dataset = known.dataset.copy()
    dataset.attrs = {
        **dataset.attrs,
        "settings": json.dumps({**known.settings, **settings}),
        "provenance": json.dumps({**known.provenance, "run": {**known.provenance["run"], **run}}),
    }
    effects = lr_decay_effects(dataclasses.replace(known, dataset=dataset))
    assert effects.changes[0].factors is None
    assert words in effects.changes[0].no_factors


def test_no_change_is_said_and_not_invented(archives):
    with pytest.raises(AnalysisError, match="never change"):
        lr_decay_effects(load(archives[1]))


def test_a_change_after_which_nothing_was_measured_is_told_from_none(archives):
    run = load(archives[1]).only
    rates = run.dataset["learning_rate"].copy(deep=True)
    rates[-1] = 0.025
    with pytest.raises(
        AnalysisError, match=r"nothing was measured after.*snapshot after step 700, got \[0.25\], and \[0.025\]"
    ):
        lr_decay_effects(dataclasses.replace(run, dataset=run.dataset.assign(learning_rate=rates)))


def test_one_snapshot_has_no_before_and_after(synthetic, truth, tmp_path):
    path = synthetic.write(tmp_path / "one.h5", list(synthetic.snapshots(truth))[:1], synthetic.record(truth))
    with pytest.raises(AnalysisError, match="no before and after"):
        lr_decay_effects(load(path))


def test_a_control_on_another_probe_is_refused(archives, synthetic, control_truth, tmp_path):
    other = synthetic.record(control_truth, fingerprint="sha256:" + "b" * 64)
    path = synthetic.write(tmp_path / "probe.h5", synthetic.snapshots(control_truth), other)
    with pytest.raises(AnalysisError, match=r"different probe fingerprints.*run: sha256:aaaa.*probe: sha256:bbbb"):
        lr_decay_effects(load(archives[0]), load(path))


def test_two_changes_end_at_each_other(synthetic, truth, tmp_path):
    """A staircase: what follows the first change ends where the second begins."""
    rows = [
        dataclasses.replace(s, learning_rates=(0.25 if s.step < 299 else 0.125 if s.step < 400 else 0.0625,))
        for s in synthetic.snapshots(truth)
    ]
    run = load(synthetic.write(tmp_path / "stairs.h5", rows, synthetic.record(truth))).only
    first, second = learning_rate_changes(run)[0]
    assert (run.steps[first.after[-1]], first.new, second.old, second.new) == (310, (0.125,), (0.125,), (0.0625,))
    assert not second.exact


def test_target_moves_are_differences_of_stored_energies(synthetic, truth, tmp_path):
    """Energies that fall up to k = 5 and rise from k = 10 on, written by hand; the sentence says so."""
    rows = list(synthetic.snapshots(truth))
    before, later = np.array([0.3, 0.5, 0.6, 0.7, 0.9, 1.0]), np.array([0.2, 0.4, 0.5, 0.75, 0.95, 1.0])
    for row in rows:
        row.probes["train"]["target_energy"] = later if row.step > synthetic.HALVED else before
    (change,) = lr_decay_effects(load(synthetic.write(tmp_path / "moves.h5", rows, synthetic.record(truth)))).changes
    assert change.target_moves == pytest.approx({1: -0.1, 2: -0.1, 5: -0.1, 10: 0.05, 20: 0.05})
    assert "target energy falling up to k = 5 and rising from k = 10 on" in sentence(change, synthetic.ENERGY_K)
    assert "×2.0 would keep ηλ" in sentence(change, synthetic.ENERGY_K)


def test_a_trend_is_told_over_the_sum_of_learning_rates(synthetic, truth, tmp_path):
    rows = with_rates(synthetic, truth, lambda step: 0.125 * (1 + np.cos(np.pi * step / 1000)))
    (course,) = lr_decay_effects(load(synthetic.write(tmp_path / "cosine.h5", rows, synthetic.record(truth)))).trends
    steps, rates = np.array([r.step for r in rows]), np.array([r.learning_rates[0] for r in rows])
    times = np.array([np.trapezoid(rates[: i + 1], steps[: i + 1]) for i in range(len(rows))])
    assert course.times[0] == 0
    assert course.times[-1] == pytest.approx(times[-1])
    for time, m in zip(course.times, course.moments, strict=True):
        assert time == pytest.approx(times[steps.tolist().index(m.step)])
        assert m.numbers["eigenvalue_1"] == truth.eigenvalues[m.step][0]
    largest = [values[0] for values in truth.eigenvalues.values()]
    agree = sum(np.sign(largest[j] - largest[i]) for i in range(13) for j in range(i + 1, 13)) / (13 * 12 / 2)
    assert course.trends["eigenvalue_1"] == pytest.approx(agree)  # Kendall's τ by its definition, no ties
    assert "τ = " in trend_sentence(course, synthetic.ENERGY_K)
    table = trend_table(course, synthetic.ENERGY_K)
    assert table.rows[0][0] == "learning rate"
    assert len(table.columns) == len(course.moments) + 2


@pytest.fixture(scope="module")
def seeds(synthetic, tmp_path_factory):
    """Three seeds, each with its own control; runs and controls in different orders."""
    folder, runs, controls, truths = tmp_path_factory.mktemp("seeds"), [], [], []
    for seed in (1, 2, 3):
        pair = synthetic.simulate(seed=seed), synthetic.simulate(seed=seed, halve=False, start=synthetic.HALVED)
        for truth, kind, paths in zip(pair, ("run", "control"), (runs, controls), strict=True):
            rows = synthetic.snapshots(truth)
            paths.append(synthetic.write(folder / f"{kind}-{seed}.h5", rows, synthetic.record(truth)))
        truths.append(pair)
    return runs, controls[::-1], truths


def test_effects_over_seeds_are_paired_differences(seeds, synthetic):
    """Oracle: the truth of each seed and of its own control, subtracted here."""
    runs, controls, truths = seeds
    (found,) = effects_over_seeds(load(runs), load(controls))
    assert found.pairs == (("run-1", "control-1"), ("run-2", "control-2"), ("run-3", "control-3"))
    assert (found.step, found.old, found.new) == (synthetic.HALVED, (0.25,), (0.125,))

    def energy(truth, step):
        squares = truth.coefficients[step] ** 2
        return squares[:20].sum() / squares.sum()

    expected = [energy(run, 301) - energy(control, 301) for run, control in truths]
    (d,) = [d for d in found.differences if (d.name, d.offset) == ("residual_energy_20", 1)]
    np.testing.assert_allclose(d.differences, expected, rtol=1e-12)
    assert d.mean == pytest.approx(np.mean(expected))
    assert np.isnan(d.interval).all()  # three seeds: a range, no interval
    assert d.same_sign == sum(np.sign(e) == np.sign(np.mean(expected)) for e in expected)
    assert "Over 3 seeds, each against its own control" in seed_sentence(found, synthetic.ENERGY_K)
    table = seed_table(found, synthetic.ENERGY_K)
    assert table.columns[1] == "+1"
    assert "range over seeds" in table.notes[0]
    json.dumps(found.to_dict(), allow_nan=False)


def test_every_number_of_the_sentence_and_the_table_over_seeds_is_recomputed(seeds, synthetic):
    """Oracle: the six files read with h5py; run less its own control, then mean, range and signs."""
    runs, controls, _ = seeds
    pairs = [(Raw(run), Raw(control)) for run, control in zip(runs, controls[::-1], strict=True)]

    def differences(course, offset):
        row = lambda raw: int(np.flatnonzero(raw.steps == synthetic.HALVED + offset)[0])  # noqa: E731
        return np.array([course(run)[row(run)] - course(control)[row(control)] for run, control in pairs])

    residual = differences(lambda raw: raw.energy("residual", 20), 1)
    largest = differences(lambda raw: raw.values[:, 0], 400)
    agree = [int(np.sum(np.sign(d) == np.sign(d.mean()))) for d in (residual, largest)]
    (found,) = effects_over_seeds(load(runs), load(controls))
    assert numbers(seed_sentence(found, synthetic.ENERGY_K)) == pytest.approx(
        [3, 0.25, 0.125, 300, 20, sig(residual.mean(), 2), agree[0], 3, sig(largest.mean(), 2), 400, agree[1], 3]
    )
    rows = {label: cells for label, *cells in seed_table(found, synthetic.ENERGY_K).rows}
    courses = {
        "λ₁": lambda raw: raw.values[:, 0],
        "λ₁₀": lambda raw: raw.values[:, 9],
        "bound on λ₁ at the coming update": lambda raw: raw.bound,
        "λ₁ over that bound": lambda raw: raw.values[:, 0] / raw.bound,
        "residual energy, first 20": lambda raw: raw.energy("residual", 20),
        "loss on the probe": lambda raw: raw.loss,
    }
    for label, course in courses.items():
        for cell, offset in zip(rows[label], (1, 10, 100, 400), strict=True):
            d = differences(course, offset)
            expected = [sig(v, 2) for v in (d.mean(), d.min(), d.max())]
            # what is left of equal numbers is a rounding
            np.testing.assert_allclose(numbers(cell), expected, rtol=1e-9, atol=1e-12, err_msg=f"{label} +{offset}")


def test_the_figure_over_seeds_draws_the_paired_differences(seeds, synthetic):
    """Oracle: eigenvalues of the written truths, run less its own control at equal steps, seed by seed; and their mean."""
    from kerneltrack.analysis.figures.gallery.runs import seeds_figure
    from kerneltrack.analysis.figures.style import PAPER

    runs, controls, truths = seeds
    (found,) = effects_over_seeds(load(runs), load(controls))
    ax = seeds_figure(found, synthetic.ENERGY_K, PAPER).axes[0]
    offsets = ax.lines[0].get_xdata()
    assert offsets.tolist() == [s - synthetic.HALVED for s in synthetic.STEPS if s > synthetic.HALVED]
    expected = np.array(
        [
            [run.eigenvalues[synthetic.HALVED + o][0] - control.eigenvalues[synthetic.HALVED + o][0] for o in offsets]
            for run, control in truths
        ]
    )
    np.testing.assert_allclose([one.get_ydata() for one in ax.lines[:3]], expected, rtol=1e-12)
    np.testing.assert_allclose(ax.lines[3].get_ydata(), expected.mean(axis=0), rtol=1e-12)
    assert ax.lines[4].get_xydata().tolist() == [[0, 0], [1, 0]]  # zero, where a run is like its control


def test_a_seed_without_its_control_is_refused(seeds, synthetic, truth, tmp_path):
    runs, controls, _ = seeds
    other = synthetic.simulate(halve=True, start=synthetic.HALVED)  # it did change the rate
    path = synthetic.write(tmp_path / "no-control.h5", synthetic.snapshots(other), synthetic.record(other))
    with pytest.raises(AnalysisError, match="run-1 has no control"):
        effects_over_seeds(load(runs), load([path]))
    with pytest.raises(AnalysisError, match="two runs or more"):
        effects_over_seeds(load(runs[:1]), load(controls))


def test_six_seeds_have_an_interval():
    """Student's t of six differences, from a table: t(0.975, 5) = 2.5706."""
    values = np.array([1.0, 2, 3, 4, 5, 6])
    reach = 2.5706 * np.std(values, ddof=1) / np.sqrt(6)
    assert over_seeds._interval(values) == pytest.approx((3.5 - reach, 3.5 + reach), rel=1e-4)


def test_the_command_takes_a_control_for_every_seed(seeds, capsys, tmp_path):
    from kerneltrack.analysis.cli import main

    runs, controls, _ = seeds
    words = ["lr-decay", *map(str, runs), *(w for c in controls for w in ("--control", str(c)))]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Over 3 seeds" in out
    assert "Effect of the learning rate 0.25 → 0.125 at step 300, 3 seeds" in out
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["seeds"][0]["pairs"]) == 3
    assert main([*words, "-o", str(tmp_path / "seeds.svg")]) == 0
    assert "run less control" in (tmp_path / "seeds.svg").read_text(encoding="utf-8")
