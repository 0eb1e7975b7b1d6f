"""Forecasts. Oracles: real trainings of linear models in float64, of which every forecast is exact; a quadratic at the edge; the
recursion of momentum written out; laws.

Tolerances: a training and its forecast differ by some tens of roundings of 2⁻⁵², float32 eigenvectors by 2⁻²⁴ each.
"""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.forecasting import forecast_lines, rate_of
from kerneltrack.analysis.forecasting.recursion import factors, memory_of
from kerneltrack.analysis.forecasting.squares import Squares
from kerneltrack.conventions import Momentum
from kerneltrack.errors import AnalysisError
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot
from tests.analysis.altered import stored
from tests.archive import at_once

EXACT = 1e-12
LOSSES = {
    "half_mse": lambda f, y: (f - y).square().sum(dim=1).mean() / 2,
    "mse": functional.mse_loss,
    "cross_entropy": functional.cross_entropy,
}
#: Every kind of a linear training: loss, learning rate, momentum.
TRAININGS = {
    "half_mse": ("half_mse", 0.2, {}),
    "mse": ("mse", 0.2, {}),
    "heavy ball": ("half_mse", 0.1, {"momentum": 0.5, "dampening": 0.2}),
    "nesterov": ("half_mse", 0.05, {"momentum": 0.6, "nesterov": True}),
    "cross_entropy": ("cross_entropy", 0.4, {}),
    "cross_entropy, heavy ball": ("cross_entropy", 0.2, {"momentum": 0.6, "dampening": 0.3}),
}
#: Steps of the long runs at which a state is measured, and from which forecasts are made.
FROM, AFTER = (0, 40), (1, 2, 15)


def problem(loss):
    """A linear model of 8 points, 3 features and 3 outputs, in float64: of two, the mean of squares has the slope of half_mse."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model, x, (y[:, 0] > 0).long() if loss == "cross_entropy" else y


def trained(loss, rate, given, *, start, changed, path=None):
    """(L, ‖m‖²) before each update, with the rate changed from ``start`` on; tracked where there is a path."""
    model, x, y = problem(loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, **given)
    tracked = nullcontext() if path is None else kt.Tracker(
        path, model, optimizer, probe=kt.Probe(x, y), loss=loss, schedule=kt.schedule.At(FROM), output="full",
        observables=["linearization_error", "probe_loss"], keep_kernel="none",
    )  # fmt: skip
    told = []
    with tracked as tracker:
        for step in range(FROM[1] + AFTER[-1] + 1):
            optimizer.param_groups[0]["lr"] = rate if step < start else changed
            with tracker.update((x, y)) if tracker else nullcontext():
                optimizer.zero_grad()
                f = model(x)
                f.retain_grad()
                value = LOSSES[loss](f, y)
                value.backward()
                told.append((value.item(), (len(x) * f.grad).square().sum().item()))
                optimizer.step()
    return np.array(told)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name → the run whose rate is kept."""
    folder = tmp_path_factory.mktemp("linear")

    @cache
    def run(name):
        loss, rate, given = TRAININGS[name]
        trained(loss, rate, given, start=0, changed=rate, path=folder / f"{name}.h5")
        return load(folder / f"{name}.h5").only

    return run


CASES = [(name, start) for name in TRAININGS for start in FROM if not (start and name.startswith("cross_entropy, "))]


@pytest.mark.parametrize(("name", "start"), CASES)
def test_of_a_linear_model_both_rates_are_forecast_to_rounding(runs, name, start):
    """Loss and residual, against the training that keeps the rate and the one that changes it."""
    loss, rate, given = TRAININGS[name]
    found = runs(name).forecast(rate / 3, steps=AFTER, at=start)
    # eigenvectors are stored in float32; of a memory β^t is left of its start
    tolerance = 1e-6 if loss == "cross_entropy" else max(EXACT, 30 * given.get("momentum", 0) ** start if start else 0)
    effects = []
    for course in (found.kept, found.changed):
        real = trained(loss, rate, given, start=start, changed=course.rate)
        for k in AFTER:
            value, squares = real[start + k]
            assert course.loss[found.at(k)] == pytest.approx(value, rel=tolerance)
            assert np.sum(course.residual[found.at(k)] ** 2) == pytest.approx(squares, rel=tolerance)
        assert (course.reason, course.horizon) == ("", AFTER[-1])
        effects.append(np.array([real[start + k][0] for k in AFTER]))
    there = [found.at(k) for k in AFTER]
    np.testing.assert_allclose(found.effect[there], effects[1] - effects[0], rtol=0, atol=tolerance * found.loss)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_same_rate_has_no_effect(runs, name):
    found = runs(name).forecast("×1", steps=9, at=0)
    assert np.array_equal(found.effect, np.zeros(len(found.updates)))
    assert np.array_equal(found.kept.residual, found.changed.residual)


def test_under_cross_entropy_a_rate_above_the_edge_is_not_followed(runs):
    """ρ goes with the rate: of ½ at 0.4 it is 1½ at three times that, and 0.95 at 1.9 times."""
    run = runs("cross_entropy")
    ratio = ("snapshot", np.full(len(run), 0.5))
    run = replace(run, dataset=run.dataset.assign(stability_ratio=ratio))
    assert "ρ = 1.5)" in run.forecast("×3", steps=3, at=0).changed.reason
    assert run.forecast("×1.9", steps=3, at=0).changed.reason == ""


# -- the recursion of momentum -----------------------------------------------------------------------------------------

SPEEDS = np.array([1e-6, 0.004, 0.05, 0.4, 1.1, 2.4])


def by_hand(speeds, momentum, memory, updates):
    """r after so many updates of SGD as torch has it, from r = 1."""
    r, b = np.ones_like(speeds), memory.copy()
    for _ in range(updates):
        b = momentum.beta * b + (1 - momentum.dampening) * r
        r = r - speeds * (r + momentum.beta * b if momentum.nesterov else b)
    return r


@pytest.mark.parametrize("momentum", [Momentum(), Momentum(0.9), Momentum(0.8, 0.3), Momentum(0.7, 0.0, True)])
def test_factors_are_the_recursion_written_out_and_compose(momentum):
    memory = np.linspace(-1, 3, len(SPEEDS)) if momentum.beta else np.zeros(len(SPEEDS))
    plain = Momentum(0.0) if not momentum.beta else momentum
    told = factors(SPEEDS, np.array([0, 1, 5, 12]), momentum, memory)
    for k, found in zip((0, 1, 5, 12), told, strict=True):
        np.testing.assert_allclose(found, by_hand(SPEEDS, plain, memory, k), rtol=1e-11, atol=1e-13)
    if not momentum.beta:
        np.testing.assert_allclose(told[3], told[2] * factors(SPEEDS, np.array([7]), momentum, memory)[0], rtol=1e-13)


@pytest.mark.parametrize("momentum", [Momentum(0.9), Momentum(0.8, 0.3), Momentum(0.7, 0.0, True)])
def test_the_memory_is_that_of_a_long_run_and_the_gain_on_slow_modes(momentum):
    """Oracles: the recursion from another start, run until the second root has died out; the gain of the conventions."""
    slow = SPEEDS[:2] if momentum.beta < 0.9 else SPEEDS[:1]
    r, b = np.ones_like(slow), np.zeros_like(slow)
    for _ in range(400):
        b = momentum.beta * b + (1 - momentum.dampening) * r
        r = r - slow * (r + momentum.beta * b if momentum.nesterov else b)
    np.testing.assert_allclose(memory_of(slow, momentum, 400), b / r, rtol=1e-10)
    taken = momentum.beta * memory_of(slow[:1], momentum, 400) + 1 - momentum.dampening
    step = 1 + momentum.beta * taken if momentum.nesterov else taken
    # the root is 1 − h·gain to first order, h = 1e-6 and 1/(1 − β) ≤ 10: 1e-4 in all
    np.testing.assert_allclose(step, momentum.gain(), rtol=2e-4)


# -- the edge ----------------------------------------------------------------------------------------------------------


def at_the_edge(**changes):
    """Two modes, the first of which is at the edge at rate 0.5: 0.5·4·8/8 = 2."""
    given = {
        "values": np.array([32.0, 4.0]), "coefficients": np.array([0.6, 1.0]), "slope": 1.0, "samples": 8, "kept": 0.5,
        "momentum": Momentum(), "begun": 50,
    }  # fmt: skip
    return Squares(**{**given, **changes})


UPDATES = np.array([0, 1, 2, 9, 200])


def test_at_the_edge_of_a_quadratic_what_oscillates_stays_and_its_energy_goes_with_the_rate():
    """ηλ/N = 2 along the first axis: ±0.6 for ever; at half the rate it is gone at once. Oracle: descent, written out."""
    law = at_the_edge(values=np.array([32.0, 4.0]))
    kept, halved = (law.follow(rate, UPDATES, furthest=np.inf) for rate in (0.5, 0.25))
    for rate, found in ((0.5, kept), (0.25, halved)):
        r = law.coefficients
        for k in range(UPDATES[-1] + 1):
            if k in UPDATES:
                np.testing.assert_allclose(found.residual[k == UPDATES][0], r, rtol=1e-12, atol=1e-300)
            r = r - rate * law.values / 8 * r
    excess = 0.6**2 / (2 * 8)  # ‖δ‖²/2N, of half squares exactly
    assert kept.loss[-1] == pytest.approx(excess, rel=1e-12)
    assert halved.loss[1] == pytest.approx((1 - 0.125) ** 2 / 16, rel=1e-12)


@pytest.mark.parametrize("momentum", [Momentum(), Momentum(0.9), Momentum(0.6, 0.0, True)])
def test_above_the_edge_a_mode_is_held_and_may_be_growing(momentum):
    """Its size stays; the error allows for what a quadratic does: |z|^k. Below the edge of the other rate it dies out."""
    edge = {0.0: 2.0, 0.9: 2 * 1.9, 0.6: (2 + 2 * 0.6) / (1 + 2 * 0.6)}[momentum.beta]
    law = at_the_edge(values=np.array([16 * 1.01 * edge, 4.0]), momentum=momentum)
    assert law.above == (1,)
    assert law.oscillation == pytest.approx(0.36 / 1.36)
    kept = law.follow(0.5, UPDATES, furthest=np.inf)
    np.testing.assert_allclose(kept.residual[:, 0], 0.6 * (-1.0) ** UPDATES)
    grown = by_hand(np.array([1.01 * edge]), momentum, memory_of(np.array([1.01 * edge]), momentum, 50), 9)
    if not momentum.beta:
        assert kept.slack[3] == pytest.approx((grown[0] ** 2 - 1) * 0.36 / 16, rel=1e-9)
    assert kept.slack[-1] > kept.slack[1] > kept.slack[0] == 0
    changed = law.follow(0.25, UPDATES, furthest=np.inf)
    assert abs(changed.residual[-1, 0]) < 1e-3
    over = law.follow(0.6, UPDATES, furthest=np.inf)
    assert np.isnan(over.loss[1:]).all()
    assert np.isfinite(over.loss[0])
    assert "at 0.6 mode 1 stands above the edge" in over.reason


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_signs_of_eigenvectors_change_no_number_of_the_outputs(rate):
    """And the residual along them by their sign alone."""
    law = at_the_edge()
    turned = at_the_edge(coefficients=law.coefficients * [-1, 1])
    one, two = (each.follow(rate, UPDATES, furthest=np.inf) for each in (law, turned))
    for name in ("loss", "way", "pull"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert np.array_equal(one.residual * [-1, 1], two.residual)


def test_a_forecast_of_a_forecast_is_the_forecast():
    """Composition in k, at both rates. Oracle: from the coefficients that were forecast."""
    law = at_the_edge(values=np.array([31.0, 4.0]))
    for rate in (0.5, 0.25):
        whole = law.follow(rate, np.array([0, 12]), furthest=np.inf)
        half = law.follow(rate, np.array([0, 5]), furthest=np.inf)
        rest = at_the_edge(values=law.values, coefficients=half.residual[-1])
        rest = rest.follow(rate, np.array([0, 7]), furthest=np.inf)
        np.testing.assert_allclose(rest.residual[-1], whole.residual[-1], rtol=1e-12)
        assert rest.loss[-1] == pytest.approx(whole.loss[-1], rel=1e-12)


# -- the horizon -------------------------------------------------------------------------------------------------------


def test_the_horizon_is_where_the_way_outgrows_the_errors(archives, truth):
    """Oracle: κ and the way, by NumPy from the truth. Beyond it everything is NaN, and the reason says which update it was."""
    run = load(archives[0]).only
    found = run.forecast("x0.5", steps=40, at=100)
    speeds, r = truth.eigenvalues[100] / truth.count, truth.coefficients[100]
    way = {k: np.linalg.norm(((1 - 0.25 * speeds) ** k - 1) * r) for k in range(41)}
    moved = np.linalg.norm(r - truth.coefficients[0])
    per_way = max(np.sqrt(1e-3) / way[1], np.sqrt(0.4) / moved)
    last = max(int(k) for k in found.updates if per_way * way[int(k)] <= 0.5)
    assert found.kept.horizon == last < 40
    np.testing.assert_allclose(found.kept.way_error, [per_way * way[int(k)] for k in found.updates], rtol=1e-9)
    assert np.array_equal(np.isnan(found.kept.loss), found.updates > last)
    assert np.array_equal(np.isnan(found.kept.residual).all(axis=1), found.updates > last)
    assert f"beyond {last} update" in found.kept.reason
    assert found.horizon <= found.changed.horizon
    i = found.at(last)
    off = per_way * way[last] ** 2
    pull = np.linalg.norm((1 - 0.25 * speeds) ** last * r) / truth.count
    assert found.kept.loss_error[i] == pytest.approx(pull * off + off**2 / (2 * truth.count), rel=1e-9)


def test_without_a_measured_error_there_is_no_horizon(archives):
    run = load(archives[0]).only
    lacking = stored(run, without=("linearization_error", "anchored_linearization_error"))
    for at in (None, 100):
        with pytest.raises(AnalysisError, match=r"how far a linear model holds.*expected linearization_error"):
            lacking.forecast("x0.5", at=at)


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "trace": ({"output": "trace"}, "'trace' reduction of 2 outputs.*output=\"full\""),
    "callable": ({"output": "callable"}, "reduction of 2 outputs"),
    "parameters": ({"parameters": ["0.weight"]}, "some of the parameters.*params=None"),
    "loss": ({"loss": None}, "the loss is not known.*loss='half_mse'"),
    "hinge": ({"loss": "hinge"}, "the loss is hinge"),
    "gauge": ({"gauge": "softmax"}, "gauge of softmax leaves out"),
    "cross-entropy": (
        {"loss": "cross_entropy"},
        "neither its kernel nor every eigenvector.*keep_kernel='all'.*top_k=48",
    ),
}
OPTIMIZERS = {
    "Adam": ({"class": "Adam", "groups": [{}]}, "the optimizer is Adam"),
    "weight decay": ({"class": "SGD", "groups": [{"weight_decay": 0.1}]}, "weight_decay"),
    "two": ({"class": "SGD", "groups": [{"momentum": 0.9}, {"momentum": 0.1}]}, "different momentum"),
    "young": ({"class": "SGD", "groups": [{"momentum": 0.98}]}, "fewer than 3/"),
}


@pytest.fixture(scope="module")
def run(two_outputs):
    return load(two_outputs[0]).only


def with_provenance(run, **told):
    provenance = {**run.provenance, "run": {**run.provenance["run"], **told}}
    return replace(run, dataset=run.dataset.assign_attrs(provenance=json.dumps(provenance)))


@pytest.mark.parametrize("case", REFUSED)
def test_what_decides_no_forecast_is_refused_with_its_remedy(run, case):
    settings, words = REFUSED[case]
    with pytest.raises(AnalysisError, match=f"no forecast: .*{words}"):
        stored(run, settings=settings).forecast("x0.5", at=100)


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_other_optimizers_are_refused(run, case):
    optimizer, words = OPTIMIZERS[case]
    with pytest.raises(AnalysisError, match=words):
        with_provenance(run, optimizers=[optimizer]).forecast("x0.5", at=100)


def test_clipped_gradients_and_held_out_points_are_refused(run):
    with pytest.raises(AnalysisError, match="gradients are clipped"):
        with_provenance(run, clipping="norm at 1").forecast("x0.5", at=100)
    with pytest.raises(AnalysisError, match=r"held out.*probe="):
        replace(run, in_training="no").forecast("x0.5", at=100)


def test_part_of_the_residual_outside_the_modes_leaves_single_modes(run, two_outputs):
    """Leading eigenpairs: the first modes as before, no loss, and the reason."""
    whole = run.forecast("x0.5", at=100, steps=3)
    cut = run.dataset.isel(mode=slice(5))
    found = replace(run, dataset=cut).forecast("x0.5", at=100, steps=3)
    assert np.isnan(found.kept.loss).all()
    assert "% of the residual lies outside the modes" in found.kept.reason
    assert "eigenpairs='all'" in found.kept.reason
    np.testing.assert_allclose(found.kept.residual, whole.kept.residual[:, :5], rtol=1e-12)


@pytest.mark.parametrize("asked", ["", "half", "×", "x-1", "x0", "nan", "×inf"])
def test_a_rate_that_is_none_is_refused(asked, capsys, archives):
    with pytest.raises(AnalysisError, match=r"expected a factor, ×0.5 or x0.5, or a learning rate"):
        rate_of(asked, 0.1)
    assert main(["forecast", str(archives[0]), f"--rate={asked}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "words"), [({"at": 5}, "no snapshot at step 5: expected one of 0, 1, 3"), ({"steps": 0}, "from 1 to")]
)
def test_a_step_that_is_none_is_refused(archives, asked, words):
    with pytest.raises(AnalysisError, match=words):
        load(archives[0]).only.forecast(0.1, **asked)


# -- the score ---------------------------------------------------------------------------------------------------------


def fixed(path, *, halve, values=(0.5, 0.2, 0.01)):
    """Three modes whose kernel stands still, N = 3: the rate is 1, and a half from step 20 on where it is halved."""
    residual, rows = np.array([1.0, -1.0, 2.0]), []
    for step in range(41):
        rate = 0.5 if halve and step >= 20 else 1.0
        if step in (0, 19, 20, 21, 30, 40) and (halve or step >= 20):
            measured = {
                "eigenvalues": 3 * np.array(values), "residual_coefficients": residual[:, None],
                "outputs": residual[:, None], "residual": residual[:, None],
                "probe_loss": np.array(residual @ residual / 6), "linearization_error": np.array(1e-20),
                "eigenvectors": np.eye(3, dtype="f4")[:, None],
            }  # fmt: skip
            rows.append(Snapshot(step=step, learning_rates=(rate,), update_applied=True, probes={"train": measured}))
        residual = (1 - rate * np.array(values)) * residual
    record = ProbeRecord(
        name="train", fingerprint="sha256:" + "c" * 64, count=3, targets=np.zeros((3, 1)), target_encoding="real",
        settings={"output": "full", "loss": "half_mse", "dtype": "float64", "stability_scope": "exact", "energy_k": [1, 2, 3]},
    )  # fmt: skip
    run = {"run_id": "r", "optimizers": [{"class": "SGD", "groups": [{"lr": 1.0}]}]}
    return at_once.write(path, rows, record, provenance=Provenance(run=run))


def test_a_forecast_that_came_true_is_scored_so(tmp_path, capsys):
    """Oracle: both trainings in closed form, of which the forecast is exact. On the command line, in lr-decay and in JSON."""
    run, control = fixed(tmp_path / "run.h5", halve=True), fixed(tmp_path / "control.h5", halve=False)
    both = ["forecast", str(run), "--check", "--control", str(control)]
    assert main([*both, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    told, values = found["forecast"], np.array([0.5, 0.2, 0.01])
    assert (found["step"], told["updates"], told["rates"]) == (20, [1, 10, 20], [1.0, 0.5])
    start = (1 - values) ** 20 * [1.0, -1.0, 2.0]
    effects = [np.sum(((1 - values / 2) ** k * start) ** 2 - ((1 - values) ** k * start) ** 2) / 6 for k in (1, 10, 20)]
    np.testing.assert_allclose(told["measured_effect"], effects, rtol=1e-9)
    np.testing.assert_allclose(told["predicted_effect"], effects, rtol=1e-9)
    np.testing.assert_allclose(told["predicted_over_measured"], 1, rtol=1e-9)
    assert told["horizon"] == 20
    assert main(both) == 0
    assert "forecast from the state before: an effect on the loss of +" in capsys.readouterr().out.replace("\n", " ")
    assert main(["lr-decay", str(run), "--control", str(control)]) == 0
    out = capsys.readouterr().out
    assert "Forecast and control, 1 → 0.5 at step 20" in out
    assert main(["forecast", str(run), "--check"]) == 0
    assert "nothing is scored, no control was given" in capsys.readouterr().out.replace("\n", " ")


def test_a_forecast_speaks_of_its_edge_and_its_horizon(archives, truth):
    found = load(archives[0]).only.forecast("x0.5", at=100, steps=40)
    lines = " ".join(forecast_lines(found))
    assert "run from step 100" in lines
    assert "at 0.25, which is kept, or at 0.125" in lines
    assert f"beyond {found.kept.horizon} update" in lines
    above = replace(found, above=(1, 2), oscillation=0.25)
    assert "Above the edge at 0.25: 2 modes, with 25 % of the loss" in " ".join(forecast_lines(above))
