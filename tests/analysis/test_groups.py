"""Pairs and triples of consecutive states. Oracles: courses with a drift and an oscillation of period 2 put in by hand."""

import csv
import json

import numpy as np
import pytest
import xarray as xr

from kerneltrack.analysis.commands.export import to_csv, to_netcdf
from kerneltrack.analysis.derived import learning_rate_changes, oscillation, pair_numbers, quantity, title_of
from kerneltrack.analysis.derived.quantities import check_across_sizes
from kerneltrack.analysis.derived.stages import judge
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.motion import pairs_table
from kerneltrack.analysis.trajectory import Run, Trajectory
from kerneltrack.errors import AnalysisError


def built(steps, window, lag=None, rates=0.1, **numbers):
    """A run of these rows in memory; whole where the eigenvalue is finite, which it is in first states alone."""
    rows = len(steps)
    columns = {
        "step": np.asarray(steps),
        "window": np.asarray(window, dtype="u1"),
        "status": np.zeros(rows, dtype="u1"),
        "trace": np.arange(1.0, rows + 1),
        **{name: np.asarray(values, dtype=float) for name, values in numbers.items()},
    }
    if lag is not None:
        columns["lag"] = np.asarray(lag, dtype=float)
    data = {name: ("snapshot", values) for name, values in columns.items()}
    data["eigenvalues"] = (("snapshot", "mode"), np.where(np.asarray(window) == 0, 1.0, np.nan)[:, None])
    data["learning_rate"] = (("snapshot", "param_group"), np.full((rows, 1), rates))
    dataset = xr.Dataset(data, attrs={"settings": json.dumps({"dtype": "float32"})})
    return Run(dataset=dataset, probe="train", stored_count=5)


TRIPLES = [0, 1, 2, 10, 11, 12, 21, 22, 23]


def swinging(steps, drift, swing):
    """a_t = 7 + drift·t + swing·(−1)^t."""
    steps = np.asarray(steps)
    return 7 + drift * steps + swing * (-1.0) ** steps


@pytest.mark.parametrize("drift", [0.0, 0.3, -2.0])
def test_a_triple_tells_the_oscillation_from_the_drift(drift):
    """Law: the mean is the course at the middle state, the half-difference the oscillation with its sign, both exactly."""
    run = built(TRIPLES, [0, 1, 2] * 3, [np.nan, 1, 2] * 3)
    at, mean, half = run.pairs(swinging(TRIPLES, drift, 0.5))
    assert at.tolist() == [0, 10, 21]
    np.testing.assert_allclose(mean, 7 + drift * (at + 1), rtol=1e-14)
    np.testing.assert_allclose(half, -0.5 * (-1.0) ** at, atol=1e-13)


def test_a_pair_holds_half_of_the_drift():
    """Of a triple without its third number too, and of arrays along more axes row by row."""
    pairs = [0, 1, 10, 11]
    _, mean, half = built(pairs, [0, 1] * 2).pairs(swinging(pairs, 0.3, 0.5))
    np.testing.assert_allclose((mean, half), ([7.15, 10.15], [0.15 - 0.5, 0.15 - 0.5]), rtol=1e-13)
    numbers = swinging(TRIPLES, 0.3, 0.5)
    numbers[2::3] = np.nan
    _, _, lacking = built(TRIPLES, [0, 1, 2] * 3).pairs(np.stack([numbers, numbers], axis=1))
    np.testing.assert_allclose(lacking, [[0.15 - 0.5] * 2, [0.15 - 0.5] * 2, [0.15 + 0.5] * 2], rtol=1e-13)


def test_groups_are_found_by_their_lag_and_without_it_by_their_place():
    """Where steps jump a pair is two apart; an archive of before has no lag, and its pairs are one apart."""
    jumping = built([0, 2, 10, 12, 13], [0, 1, 0, 1, 0], [np.nan, 2, np.nan, 2, np.nan])
    assert jumping.groups.first.tolist() == [0, 2]
    before = built([7, 8, 20, 21, 33, 35], [0, 1] * 3)
    assert before.groups.first.tolist() == [0, 2]
    lost = built([0, 1, 5, 10, 11], [0, 1, 2, 0, 1])  # the third of a group whose others a failure took
    assert lost.groups.third.tolist() == [-1, -1]
    with pytest.raises(AnalysisError, match=r"no pairs.*window=2"):
        built([0, 5], [0, 0]).pairs(np.zeros(2))


def test_every_scalar_has_its_mean_and_half_difference_by_name(tmp_path):
    """In the row of the first state: quantities, CSV, netCDF and the report's table."""
    numbers = {"probe_loss": swinging(TRIPLES, 0.0, 0.5), "gap": np.where(np.arange(9) % 3, np.nan, 1.0)}
    numbers["kernel_distance_from_previous"] = np.ones(9)
    run = built(TRIPLES, [0, 1, 2] * 3, [np.nan, 1, 2] * 3, **numbers)
    half = np.full(9, np.nan)
    half[::3] = -0.5 * (-1.0) ** run.steps[::3]
    np.testing.assert_allclose(quantity(run, "probe_loss_pair_half_difference"), half, atol=1e-13)
    np.testing.assert_allclose(quantity(run, "probe_loss_pair_mean")[::3], 7, rtol=1e-13)
    # what no pair holds twice is not among them, nor what compares over another gap in each state
    assert set(pair_numbers(run)) == {"trace", "probe_loss"}
    to_csv(run, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["probe_loss_pair_mean"] for row in rows] == ["7.0", "", ""] * 3
    assert [row["window"] for row in rows] == ["0", "1", "2"] * 3
    to_netcdf(run, tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as dataset:
        np.testing.assert_allclose(dataset["probe_loss_pair_half_difference"], half, atol=1e-13)
    table = pairs_table(run)
    loss = next(row for row in table.rows if row[0] == title_of("probe_loss"))
    assert loss[1:5] == ["3", "21", "7.00", "0.500"]
    assert pairs_table(built([0, 5], [0, 0])) is None


def test_the_mean_of_what_grows_with_the_probe_is_refused_across_sizes():
    runs = [built([0, 1], [0, 1]), Run(dataset=built([0, 1], [0, 1]).dataset, probe="train", stored_count=9)]
    with pytest.raises(AnalysisError, match="grows with the number"):
        check_across_sizes(Trajectory(tuple(runs)), ["trace_pair_mean"])


def test_at_the_edge_the_mean_over_both_phases_counts():
    """ρ alternates between 0.5 and 1.5: neither phase is held at the edge, their mean is. Each pair counts once."""
    steps = np.sort(np.concatenate([np.arange(0, 300, 10), np.arange(1, 300, 10)]))
    climb = np.interp(steps, [0, 150, 300], [0.02, 1.0, 1.0]) * (1 + 0.005 * np.sin(steps))
    ratio = climb + 0.5 * (-1.0) ** steps * (steps >= 150)
    window = np.tile([0, 1], 30)
    edge = [s for s in judge(built(steps, window, stability_ratio=ratio))[0] if s.name == "edge of stability"]
    assert [(stage.first, stage.last, stage.snapshots) for stage in edge] == [(150, 290, 15)]
    single = judge(built(steps, 0 * window, stability_ratio=ratio))[0]
    assert not [stage for stage in single if stage.name == "edge of stability"]


def test_a_light_state_between_hides_no_change_of_the_rate():
    """The state at a change was asked for there: exact, also where a pair's second state lies since the row before."""
    steps, window = [0, 1, 20, 21, 40, 41, 50], [0, 1, 0, 1, 0, 0, 0]
    run = built(steps, window)
    rates = np.where(np.asarray(steps) < 40, 0.1, 0.01)[:, None]
    trigger = np.array(["Log(2, pairs=3)"] * 4 + ["OnLearningRateChange(after=(0, 1))"] * 3, dtype=object)
    data = run.dataset.assign(learning_rate=(("snapshot", "param_group"), rates), trigger=("snapshot", trigger))
    (change,), trends = learning_rate_changes(Run(dataset=data, probe="train"))
    assert (change.step, change.exact, change.before, trends) == (40, True, 4, ())


def descent(rate, width=1, until=400, seed=0):
    """Gradient descent on ½‖Jθ − y‖²/N from θ = 0: the outputs at every step, the targets, and the eigenpairs of J Jᵀ."""
    rng = np.random.default_rng(seed)
    jacobian, y = rng.standard_normal((6 * width, 4)), rng.standard_normal(6 * width)
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    outputs = [np.zeros(6 * width)]
    for _ in range(until):
        outputs.append(outputs[-1] - rate / values[0] * jacobian @ jacobian.T @ (outputs[-1] - y))
    return np.array(outputs), y, values, vectors


def triple_of(steps, outputs, y, vectors, loss="half_mse", reduction="full", width=1):
    """The run that holds these steps' outputs and the eigenvectors."""
    run = built(steps, [0, 1, 2] * (len(steps) // 3), probe_loss=np.mean((outputs[steps] - y) ** 2, axis=1) * width / 2)
    apart = np.arange(vectors.shape[1], 0.0, -1)  # no cluster; of the eigenvalues nothing else is asked
    data = run.dataset.drop_vars("eigenvalues").assign(
        outputs=(("snapshot", "sample", "output"), outputs[steps].reshape(len(steps), -1, width)),
        eigenvalues=(("snapshot", "mode"), np.where(run.dataset.window == 0, 1.0, np.nan)[:, None] * apart),
        eigenvectors=(
            ("snapshot", "sample", "kernel_output", "vector"),
            np.stack([vectors.reshape(-1, width, vectors.shape[1])] * len(steps)),
        ),
    )
    settings = {"dtype": "float64", "loss": loss, "output": reduction}
    return Run(dataset=data.assign_attrs(settings=json.dumps(settings)), probe="train", stored_count=6)


def test_on_a_quadratic_at_the_edge_all_oscillation_is_in_the_first_mode():
    """ηλ_1/N = 2: v_1 goes to and fro for ever, the others have settled. Oracle: the difference of losses, measured."""
    outputs, y, _, vectors = descent(2.0)
    steps = np.array([300, 301, 302, 350, 351, 352])
    found = oscillation(triple_of(steps, outputs, y, vectors))
    centre = (outputs[300] + 2 * outputs[301] + outputs[302]) / 4
    measured = np.mean((outputs[300:302] - y) ** 2) / 2 - np.mean((centre - y) ** 2) / 2
    np.testing.assert_allclose(found.excess, measured, rtol=1e-10)
    np.testing.assert_allclose(found.leading, 1, rtol=1e-10)
    only = triple_of(steps, outputs, y, vectors[:, 1:])
    np.testing.assert_allclose(oscillation(only).leading, 0, atol=1e-10)
    assert found.steps.tolist() == [301, 351]
    assert "100 % of that oscillation" in said(triple_of(steps, outputs, y, vectors), "Oscillation").sentence


def test_the_null_of_the_oscillation_is_over_all_modes():
    """By hand: a random direction has 5/18 of itself in five of 18 modes, those of 6 samples with three outputs.

    Fails where samples are counted: 5/6.
    """
    outputs, y, _, vectors = descent(2.0, width=3)
    null = said(triple_of(np.array([300, 301, 302]), outputs, y, vectors, width=3), "Oscillation").null
    assert null.startswith(f"{5 / 18:.2g} of it")


def test_below_the_edge_nothing_oscillates_but_rounding():
    """Settled at ηλ_1/N = 1: outputs stand still, and what is left of their difference is rounding, which is none."""
    outputs, y, _, vectors = descent(1.0, until=3000)
    found = oscillation(triple_of(np.array([2990, 2991, 2992]), outputs, y, vectors))
    assert np.isnan(found.excess).all()


@pytest.mark.parametrize("loss", ["half_mse", "mse", "cross_entropy"])
def test_the_excess_is_that_of_the_loss(loss):
    """Oracle: the loss itself at the mean and at both phases; of cross-entropy to second order in a small oscillation."""
    rng = np.random.default_rng(1)
    mean, delta, y = (scale * rng.standard_normal((6, 3)) for scale in (1, 1e-3, 1))
    labels = rng.integers(0, 3, 6)

    def value(f):
        if loss == "cross_entropy":
            return np.mean(np.log(np.exp(f).sum(axis=1)) - f[np.arange(6), labels])
        return np.sum((f - y) ** 2) / (12 if loss == "half_mse" else 18)

    outputs = np.stack([mean - delta, mean + delta, mean - delta]).reshape(3, -1)
    run = triple_of(np.arange(3), outputs, y.ravel(), np.eye(18)[:, :5], loss=loss, width=3)
    measured = (value(mean - delta) + value(mean + delta)) / 2 - value(mean)
    # the fourth order is δ²/12 of the second; differences of numbers near 1 have an error of 1e-16 in 1e-7
    np.testing.assert_allclose(oscillation(run).excess, measured, rtol=1e-5)


def test_what_cannot_be_told_of_an_oscillation_says_so():
    outputs, y, _, vectors = descent(2.0, until=10)
    steps = np.array([6, 7, 8])
    pair = triple_of(steps, outputs, y, vectors).dataset.isel(snapshot=slice(0, 2))
    with pytest.raises(AnalysisError, match=r"no triples.*window=3"):
        oscillation(Run(dataset=pair, probe="train"))
    with pytest.raises(AnalysisError, match="half_mse, mse, or cross_entropy"):
        oscillation(triple_of(steps, outputs, y, vectors, loss="mine"))
    with pytest.raises(AnalysisError, match="outputs themselves"):
        oscillation(triple_of(steps, outputs, y, vectors, reduction="callable"))


def said(run, title):
    return next((finding for finding in findings(run) if finding.title == title), None)


def test_how_fast_the_kernel_turns_is_said_in_words():
    """4 mrad an update in the first hundred updates, 1 mrad at the end: four times slower."""
    steps = np.sort(np.concatenate([np.arange(0, 1000, 20), np.arange(1, 1000, 20)]))
    window = np.tile([0, 1], 50)
    omega = np.where(window, np.where(steps < 101, 4e-3, 1e-3), np.nan)
    found = said(built(steps, window, kernel_angular_velocity=omega), "Kernel turning")
    assert found.value == "1.0 mrad an update"
    assert "×4.0 slower than in the first 100 updates" in found.sentence
    assert "to and fro" not in found.sentence
    for ratio, told in ((0.5, False), (1.0, True)):
        edge = built(steps, window, kernel_angular_velocity=omega, stability_ratio=np.where(window, np.nan, ratio))
        assert ("to and fro" in said(edge, "Kernel turning").sentence) == told
    uneven = np.where(np.arange(100) % 7, 1e-3, np.nan)
    assert said(built(steps, 0 * window, kernel_angular_velocity=uneven), "Kernel turning") is None


def test_what_goes_to_and_fro_is_said_in_words():
    run = built(TRIPLES, [0, 1, 2] * 3, probe_loss=swinging(TRIPLES, 0.0, 0.7))
    found = said(run, "Period 2")
    assert "went to and fro by 10 % of its mean" in found.sentence
    assert "drift" not in found.sentence
    assert "half of an update's drift" in said(built([0, 1], [0, 1], probe_loss=[1.0, 0.9]), "Period 2").sentence
    assert said(built([0, 5], [0, 0]), "Period 2") is None
