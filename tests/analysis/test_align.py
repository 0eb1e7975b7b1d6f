"""Alignment, windows, pairs, groups, sweeps. Oracles: loops over what was written, and laws with known exponents."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from kerneltrack.analysis import load
from kerneltrack.analysis.comparison.align import aligned, positions, stacked
from kerneltrack.analysis.comparison.comparison import compare
from kerneltrack.analysis.comparison.sweep import power_law, sweep, sweep_table
from kerneltrack.analysis.derived.flow_time import flow_time
from kerneltrack.analysis.derived.quantities import key_of, quantity
from kerneltrack.analysis.trajectory import Trajectory
from kerneltrack.errors import AnalysisError


def test_flow_time_is_the_sum_over_every_update(archives, truth, synthetic):
    """Oracle: η added up one update at a time; the change is pinned, so nothing is approximated."""
    run = load(archives[0]).only
    rates = [0.125 if step >= synthetic.HALVED else 0.25 for step in range(synthetic.LAST)]
    np.testing.assert_allclose(flow_time(run), [sum(rates[:s]) for s in run.steps], rtol=1e-12)


def test_flow_time_knows_what_the_trigger_pinned(synthetic, truth, tmp_path):
    """No row right before the change: the schedule's own trigger says that the old rate held to the end."""
    asked = "OnLearningRateChange(after=(0, 1))"
    rows = [
        dataclasses.replace(s, trigger=asked if s.step == synthetic.HALVED else s.trigger)
        for s in synthetic.snapshots(truth)
        if s.step != synthetic.HALVED - 1
    ]
    run = load(synthetic.write(tmp_path / "pinned.h5", rows, synthetic.record(truth))).only
    assert flow_time(run)[run.row(synthetic.HALVED)] == pytest.approx(0.25 * synthetic.HALVED)


def test_by_flow_time_each_run_is_at_its_last_state_before_the_level(archives):
    both = load(archives)
    levels, rows = positions(both, "flow_time")
    for run, chosen in zip(both, rows, strict=True):
        times = flow_time(run)
        for level, row in zip(levels, chosen, strict=True):
            assert times[row] <= level
            assert row + 1 == len(run) or times[row + 1] > level
    assert levels[0] == 0
    assert levels[-1] == min(flow_time(run)[-1] for run in both)


def optimized_by(run, kind, **group):
    """The run as another optimizer's, as its provenance tells it."""
    told = json.dumps({**run.provenance, "run": {"optimizers": [{"class": kind, "groups": [{"lr": 0.25, **group}]}]}})
    return dataclasses.replace(run, dataset=run.dataset.assign_attrs(provenance=told))


def slow_mode(rate, momentum, steps, speed=1e-3):
    """⟨v, m⟩ at each step of a linear model under torch's SGD, λ/N = ``speed``."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer, course = torch.optim.SGD([weight], lr=rate, momentum=momentum), []
    for _ in range(max(steps) + 1):
        course.append(weight.item())
        weight.grad = speed * weight.detach()
        optimizer.step()
    return np.array(course)[steps]


def test_heavy_ball_s_flow_time_is_that_of_the_rate_that_goes_as_far(archives):
    """Law: on a slow mode SGD at η/(1 − β) and heavy ball at η agree at equal flow time, to the first 1/(1 − β) updates.

    Both residuals are e^(−λt/N) of flow time; at λ/N · η/(1 − β) = 0.0025 a start of 1/(1 − β) updates is 1 % of the residual.
    """
    run = load(archives[0]).only
    run = dataclasses.replace(run, dataset=run.dataset.isel(snapshot=run.steps < 300))
    ball, plain = optimized_by(run, "SGD", momentum=0.9), optimized_by(run, "SGD", momentum=0)
    np.testing.assert_allclose(flow_time(ball), 10 * flow_time(plain), rtol=1e-12)
    for timed, rate, momentum in ((ball, 0.25, 0.9), (plain, 0.25, 0.0)):
        residual = slow_mode(rate, momentum, timed.steps)
        np.testing.assert_allclose(residual, np.exp(-1e-3 * flow_time(timed)), rtol=0.03)
    for kind in ("Adam", "Muon"):
        np.testing.assert_array_equal(flow_time(optimized_by(run, kind, betas=[0.9, 0.999])), flow_time(plain))


def test_flow_times_of_two_optimizers_are_on_two_clocks(archives):
    run, other = load(archives)
    with pytest.raises(AnalysisError, match=r"different optimizers.*got Adam, SGD"):
        positions(Trajectory((run, optimized_by(other, "Adam"))), "flow_time")
    positions(Trajectory((run, optimized_by(other, "SGD", momentum=0.9))), "flow_time")
    positions(Trajectory((run, optimized_by(other, "Adam"))), "loss")


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_aligned_rows_are_those_of_the_common_positions(archives, truth, control_truth, synthetic, by):
    data = aligned(load(archives), ["eigenvalue_2"], by=by)
    common = sorted(set(truth.eigenvalues) & set(control_truth.eigenvalues))
    assert data["position"].values.tolist() == common
    expected = [[t.eigenvalues[s][1] / synthetic.N for s in common] for t in (truth, control_truth)]
    np.testing.assert_allclose(data["eigenvalue_2"].values, expected, rtol=1e-14)


def test_samples_that_nobody_counted_are_no_position(archives):
    with pytest.raises(AnalysisError, match=r"no common samples.*run: none; control: none"):
        aligned(load(archives), ["trace"], by="samples")


@pytest.mark.parametrize("lost_first", [True, False])
def test_a_loss_that_a_run_does_not_have_is_no_position(archives, truth, synthetic, tmp_path, lost_first):
    """The loss is NaN in every row of one run, whichever comes first."""
    rows = [
        dataclasses.replace(s, probes={"train": {**s.probes["train"], "probe_loss": np.array(np.nan)}})
        for s in synthetic.snapshots(truth)
    ]
    lost = synthetic.write(tmp_path / "lost.h5", rows, synthetic.record(truth))
    with pytest.raises(AnalysisError, match=r"no common loss.*lost: none"):
        aligned(load([lost, archives[0]][:: 1 if lost_first else -1]), ["trace"], by="loss")


def test_what_only_unmeasured_rows_hold_is_not_there(truth, synthetic, tmp_path):
    """The trace stands in a row that failed and in no other."""
    rows = list(synthetic.snapshots(truth, drop={"trace"}))[:3]
    measured = {**rows[1].probes["train"], "trace": np.array(2.0)}
    rows[1] = dataclasses.replace(rows[1], status="failed", probes={"train": measured})
    run = load(synthetic.write(tmp_path / "run.h5", rows, synthetic.record(truth))).only
    assert run.values("trace")[1] == 2
    assert not run.has("trace")
    assert run.has("eigenvalues")


def test_stacked_runs_are_read_on_demand_and_filled_up(archives, truth, control_truth):
    data = stacked(load(archives), ["trace"])
    assert type(data["trace"].data).__module__.startswith("dask")
    values = data["trace"].values
    assert values[0].tolist() == pytest.approx([v.sum() for v in truth.eigenvalues.values()])
    known = len(control_truth.eigenvalues)
    assert np.isnan(values[1, known:]).all()
    assert np.isfinite(values[1, :known]).all()


def test_windows_keep_both_ends(archives, synthetic):
    run = load(archives[0]).only.window(10, synthetic.HALVED)
    assert run.steps.tolist() == [10, 30, 100, 200, synthetic.HALVED - 1, synthetic.HALVED]
    assert len(run.values("eigenvalues")) == 6
    with pytest.raises(AnalysisError, match="no snapshot between steps 31 and 99"):
        load(archives[0]).only.window(31, 99)


def test_a_period_of_two_is_mean_and_half_difference(synthetic, truth, tmp_path):
    """f = 3 ± 0.5 from step to step: every pair has the mean 3 and the half-difference ∓0.5 of its phase."""
    rows = []
    for snapshot in list(synthetic.snapshots(truth))[:3]:
        for second in (0, 1):
            rows.append(dataclasses.replace(snapshot, step=10 * len(rows) // 2 * 2 + second, window=second))
    steps = [7, 8, 20, 21, 33, 34]
    rows = [dataclasses.replace(row, step=step) for row, step in zip(rows, steps, strict=True)]
    run = load(synthetic.write(tmp_path / "pairs.h5", rows, synthetic.record(truth))).only
    at, mean, half = run.pairs(3 + 0.5 * (-1.0) ** run.steps)
    assert at.tolist() == [7, 20, 33]
    assert mean.tolist() == [3, 3, 3]
    assert half.tolist() == [0.5, -0.5, 0.5]


def test_a_run_without_pairs_says_how_to_get_them(archives):
    run = load(archives[0]).only
    with pytest.raises(AnalysisError, match=r"no pairs.*window=2"):
        run.pairs(run.values("trace"))


@pytest.fixture(scope="module")
def family(synthetic, truth, tmp_path_factory):
    """Three widths × two seeds; the trace is scaled as width^−½, exactly."""
    folder, paths = tmp_path_factory.mktemp("family"), []
    for width in (16, 64, 256):
        for seed in (0, 1):
            rows = list(synthetic.snapshots(truth))[:4]
            for row in rows:
                row.probes["train"]["effective_rank"] = np.array(7 * width**-0.5 * (1 + 0.01 * (-1) ** seed))
            metadata = {"width": width, "seed": seed}
            paths.append(
                synthetic.write(folder / f"w{width}-s{seed}.h5", rows, synthetic.record(truth), metadata=metadata)
            )
    return load(paths)


def test_a_sweep_finds_the_exponent_and_its_interval(family):
    """q = 7 x^−½ (1 ± 0.01), balanced: the slope is −½ exactly. Its error is that of NumPy's covariance."""
    (found,) = sweep(family, "width", ["effective_rank"])
    assert found.slope == pytest.approx(-0.5, abs=1e-12)
    design = np.column_stack([np.log(found.x), np.ones(6)])
    rest = np.log(found.values) - design @ np.linalg.lstsq(design, np.log(found.values), rcond=None)[0]
    error = np.sqrt(rest @ rest / 4 * np.linalg.inv(design.T @ design)[0, 0])
    assert found.error == pytest.approx(error, rel=1e-9)
    assert found.interval == pytest.approx((-0.5 - 2.7764451 * error, -0.5 + 2.7764451 * error), rel=1e-6)
    assert found.steps == (10,) * 6
    assert sweep_table([found]).rows[0][-1] == "−0.50 [−0.51, −0.49]"


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Simulated power laws with Gaussian errors: 95 % of 400 intervals, within three binomial standard errors."""
    rng, x = np.random.default_rng(0), np.repeat([16.0, 64.0, 256.0], 6)
    inside = 0
    for _ in range(400):
        low, high = power_law(x, 3 * x**-0.5 * np.exp(0.2 * rng.standard_normal(18)))[2]
        inside += low <= -0.5 <= high
    assert abs(inside / 400 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)


def test_no_slope_has_its_reason(family):
    assert "three different" in sweep(family[:4], "width", ["effective_rank"])[0].no_slope
    assert "not positive" in power_law(np.array([1.0, 2, 3, 4]), np.array([1.0, -1, 1, 1]))[-1]
    with pytest.raises(AnalysisError, match=r"'optimizer'.*w16-s0 has seed, width"):
        sweep(family, "optimizer", ["effective_rank"])
    with pytest.raises(AnalysisError, match=r"a number in every run"):
        sweep(family, "run.run_id", ["effective_rank"])
    with pytest.raises(AnalysisError, match=r"at step 5.*a value in every run.*none in \['w16-s0'"):
        sweep(family, "width", ["effective_rank"], at=5)


@pytest.mark.parametrize("value", [0.1, 7.0, 1e-9])
def test_what_is_the_same_at_every_width_has_slope_zero(value):
    """Oracle: the law itself; rounding of a mean is no slope."""
    x = np.resize([32.0, 64.0, 128.0, 256.0], 29)  # the mean of so many logarithms is another number
    slope, error, interval, intercept, why = power_law(x, np.full(29, value))
    assert (slope, error, interval, why) == (0.0, 0.0, (0.0, 0.0), "")
    assert intercept == np.log(value)


def test_keys_are_metadata_first_and_provenance_by_path(family):
    assert key_of(family[0], "width") == 16
    assert key_of(family[0], "run.optimizers.0.class") == "SGD"
    assert key_of(family[0], "settings.loss") == "half_mse"
    with pytest.raises(AnalysisError, match="a path into run"):
        key_of(family[0], "private.host")


def test_other_numbers_of_points_of_the_same_data_are_compared_by_lambda_over_n(synthetic, truth, tmp_path):
    half = synthetic.N // 2
    runs = []
    for count, name in ((synthetic.N, "whole"), (half, "half")):
        identity = {"dataset": "digits", "seed": 0, "indices": list(range(count))}
        record = synthetic.record(
            truth,
            fingerprint="sha256:" + name[0].replace("w", "a").replace("h", "b") * 64,
            identity=identity,
            inputs=False,
        )
        rows = list(synthetic.snapshots(truth, drop={"kernel"}))
        if count != synthetic.N:
            record = dataclasses.replace(record, count=half, targets=record.targets[:half])
            for row in rows:
                for key, value in list(row.probes["train"].items()):
                    if np.shape(value)[:1] == (synthetic.N,):
                        row.probes["train"][key] = value[:half]
        runs.append(synthetic.write(tmp_path / f"{name}.h5", rows, record))
    both = load(runs)
    found = compare(both, quantities=["eigenvalue_1"])
    assert "compared as λ_i/N" in found.notes[0]
    expected = truth.eigenvalues[0][0] / np.array([synthetic.N, half])
    np.testing.assert_allclose(found.values["eigenvalue_1"][0], expected, rtol=1e-14)
    with pytest.raises(AnalysisError, match=r"'trace' grows with.*\[24, 48\]"):
        compare(both, quantities=["trace"])


def test_quantities_are_nan_where_nothing_was_measured(synthetic, truth, tmp_path):
    rows = list(synthetic.snapshots(truth))
    rows[2] = dataclasses.replace(rows[2], status="failed", message="x", probes={})
    run = load(synthetic.write(tmp_path / "gap.h5", rows, synthetic.record(truth))).only
    assert np.flatnonzero(np.isnan(quantity(run, "eigenvalue_1"))).tolist() == [2]
    for name, words in (
        ("eigenvalue_99", "a mode from 1 to 48"),
        ("target_energy_3", "k in"),
        ("nonsense", "no such quantity"),
    ):
        with pytest.raises(AnalysisError, match=words):
            quantity(run, name)


def test_the_command_sweeps_and_draws(family, capsys, tmp_path):
    """Table, JSON and figure say the same slope; the figure's line is the fitted law at both ends."""
    import json

    from kerneltrack.analysis.cli import main
    from kerneltrack.analysis.figures.gallery.runs import sweep_figure
    from kerneltrack.analysis.figures.style import PAPER

    words = ["compare", *(run.path for run in family), "--against", "width", "--quantity", "effective_rank"]
    assert main(words) == 0
    assert "−0.50 [−0.51, −0.49]" in capsys.readouterr().out
    assert main([*words, "--json", "--at", "3"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["slope"], found["steps"]) == (pytest.approx(-0.5), [3] * 6)
    assert main([*words, "-o", str(tmp_path / "sweep.svg")]) == 0
    (ax,) = sweep_figure(sweep(family, "width", ["effective_rank"]), PAPER).axes
    line, points = ax.lines
    np.testing.assert_allclose(line.get_ydata()[0] / line.get_ydata()[1], 4.0, rtol=1e-9)
    assert sorted(points.get_ydata()) == sorted(run.values("effective_rank")[-1] for run in family)
    assert main([*words[:-1], "nonsense"]) == 1
    assert "the quantity 'nonsense': expected eigenvalue_1" in capsys.readouterr().err
