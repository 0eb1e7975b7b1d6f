"""Stability and linearisation errors against a network whose every step is known in closed form.

Rounding: a float32 network beside its float64 twin, which takes the very same step.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch

from kerneltrack.observables import State, Update, compute, cosine, relative_squared_error, select
from kerneltrack.spectrum.decomposition import eigensystem

UPDATE = ["linearization_error", "linearization_cosine", "kernel_flow_error"]


def test_errors_are_squared_and_relative():
    actual = np.array([[3.0], [4.0]])
    assert relative_squared_error(0 * actual, actual) == pytest.approx(1)
    assert relative_squared_error(1.1 * actual, actual) == pytest.approx(0.01)
    assert relative_squared_error(-actual, actual) == pytest.approx(4)
    assert cosine(actual, actual) == pytest.approx(1)
    assert cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(math.sqrt(0.5))


def test_nothing_that_changed_is_nan():
    zero, one = np.zeros(2), np.ones(2)
    assert math.isnan(relative_squared_error(one, zero))
    assert math.isnan(cosine(one, zero))


def test_each_linear_model_is_compared_with_its_own_truth(problem):
    # f_0 is not zero: the anchored error is relative to the way from it, not to the outputs themselves.
    start = problem.state(outputs=np.full_like(problem.outputs, 5.0))
    change = problem.outputs
    way = problem.outputs - 5.0
    update = Update(output_change=change, linear_change=0.9 * change, kernel_change=0.5 * change)
    state = problem.state(initial=start, update=update, anchored_outputs=5.0 + 0.8 * way)
    values = compute(select([*UPDATE, "anchored_linearization_error"]), state)
    assert values["linearization_error"] == pytest.approx(0.01)
    assert values["linearization_cosine"] == pytest.approx(1)
    assert values["kernel_flow_error"] == pytest.approx(0.25)
    assert values["anchored_linearization_error"] == pytest.approx(0.04)


def test_what_an_update_would_have_shown_is_nan_until_it_is_seen(problem):
    chosen = select("default")
    state = problem.state()
    first = compute(chosen, state)
    assert all(math.isnan(first[name]) for name in UPDATE)
    assert first.reasons["linearization_error"] == "not measured: update"
    change = problem.outputs
    state = dataclasses.replace(state, update=Update(output_change=change, linear_change=change))
    second = compute(chosen, state, only={"update"})
    assert set(second) == {entry.name for entry in chosen if "update" in entry.needs}
    assert second["linearization_error"] == 0
    assert "was not measured" in second.reasons["kernel_flow_error"]


def test_the_bound_of_gradient_descent_on_half_mse_is_2n_over_eta(problem):
    # ρ = ηλ_1/(2N), so λ_1/ρ = 2N/η whatever λ_1 is.
    learning_rate, samples = 0.25, len(problem.targets)
    largest = problem.state().eigensystem.values[0]
    state = problem.state(stability=learning_rate * largest / (2 * samples), settings={"loss": "half_mse"})
    assert compute(select("stability_bound"), state)["stability_bound"] == pytest.approx(2 * samples / learning_rate)


def test_a_flat_loss_has_no_bound(problem):
    values = compute(
        select(["stability_ratio", "stability_bound"]), problem.state(stability=0.0, settings={"loss": "mse"})
    )
    assert values["stability_ratio"] == 0
    assert math.isnan(values["stability_bound"])
    assert "not positive" in values.reasons["stability_bound"]


@pytest.mark.parametrize("loss", ["cross_entropy", None, "MyLoss"])
def test_only_a_mean_of_squares_has_a_bound_of_the_kernel_s_eigenvalue(problem, loss):
    """Under cross-entropy S → 0 as the labels are fitted, and λ_1/ρ → ∞ whatever the kernel does."""
    values = compute(select("stability_bound"), problem.state(stability=0.5, settings={"loss": loss}))
    assert math.isnan(values["stability_bound"])
    assert "the loss is not a mean of squares" in values.reasons["stability_bound"]


def test_no_loss_is_not_zero_loss(problem):
    assert compute(select("probe_loss"), problem.state())["probe_loss"] == 0.5
    assert compute(select("probe_loss"), problem.state(probe_loss=math.nan)).reasons["probe_loss"]


ROUNDED = [*UPDATE, "measured_factor", "ledger_curvature"]


def one_step(rate, dtype):
    """A step of a smooth network along a fixed direction (float32 numbers): f, f' − f, J Δθ and the values of all."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator).to(dtype)
    shapes = {"0.weight": (16, 3), "0.bias": (16,), "2.weight": (1, 16), "2.bias": (1,)}
    start = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    step = {name: rate * torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}

    def network(p):
        return torch.tanh(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"]

    end = {name: start[name] + step[name] for name in shapes}
    way = {name: end[name] - start[name] for name in shapes}
    outputs, linear = torch.func.jvp(network, (start,), (way,))
    f, change, linear = (a.to(torch.float64).numpy() for a in (outputs, network(end), linear))
    return f, change - f, linear


def told(rate, dtype, **settings):
    f, change, linear = one_step(rate, dtype)
    kernel = np.eye(len(f)) + f @ f.T
    update = Update(
        output_change=change,
        linear_change=linear,
        kernel_change=linear,
        layer_linear_changes={"all": linear},
        layer_kernel_changes={"all": linear},
    )
    state = State(
        eigensystem=eigensystem(kernel),
        outputs=f,
        residual=f - 1,
        targets=1 + 0 * f,
        update=update,
        settings={"loss": "half_mse", "dtype": str(dtype), **settings},
    )
    return compute(select(ROUNDED), state)


@pytest.mark.parametrize("exponent", range(1, 10))
def test_what_is_rounding_of_the_outputs_has_no_error(exponent):
    """Oracle: the float64 twin, whose error is ∝ η² (Taylor). What float32 tells is within the share that rounding may have.

    A change is told where rounding is at most a tenth of it, so √error is off by 0.1 at most.
    """
    rate = 10.0**-exponent
    exact, found = told(rate, torch.float64), told(rate, torch.float32)
    assert exact["linearization_error"] == pytest.approx(
        told(0.1, torch.float64)["linearization_error"] * (rate / 0.1) ** 2, rel=0.7
    )
    known = math.isfinite(found["linearization_error"])
    assert known == (exponent <= 5)
    for name in ("linearization_error", "kernel_flow_error"):
        assert not known or abs(found[name] ** 0.5 - exact[name] ** 0.5) < 0.1
    for name in ROUNDED:
        assert np.isnan(found[name]).all() != known
        assert known or "change of the outputs is rounding" in found.reasons[name]


@pytest.mark.parametrize("dtype", ["torch.float32", "bfloat16", "torch.float16"])
def test_the_floor_is_that_of_the_dtype_in_which_the_outputs_were_computed(dtype):
    """Outputs that are cast to float64 at the end are no finer than the network before it."""
    assert math.isnan(told(1e-8, torch.float64, computed_in=dtype)["linearization_error"])
    assert math.isfinite(told(1e-8, torch.float64, computed_in="torch.float64")["linearization_error"])


def test_outputs_that_did_not_change_say_so():
    values = told(0.0, torch.float64)
    assert all("change of the outputs is rounding" in values.reasons[name] for name in ROUNDED)


def test_outputs_that_did_not_move_have_no_anchored_error(problem):
    """0/0 is no error of zero and none of infinity, whatever the linearisation says. Fails where it is told as a number."""
    start = problem.state()
    for off in (0.0, 0.1):
        state = problem.state(initial=start, anchored_outputs=start.outputs + off)
        values = compute(select("anchored_linearization_error"), state)
        assert np.isnan(values["anchored_linearization_error"])


def test_outputs_that_moved_by_their_rounding_have_no_anchored_error(problem):
    """One unit in the last place of every output: by construction ‖f_t − f_0‖ ≤ ε‖f_0‖, where eight of those are rounding.

    Fails where nothing but a way of zero is refused. Control: 2²⁰ units are a way, of which a model that makes 0.8 of it
    misses 0.04 of the square; sums round to half a unit, of 0.2 · 2²⁰ units that is 2.4e-6, and twice that of the square.
    """
    start, name = problem.state(), "anchored_linearization_error"
    for units, told_as in ((1, math.nan), (2**20, 0.04)):
        way = units * np.spacing(start.outputs)
        moved = problem.state(initial=start, outputs=start.outputs + way, anchored_outputs=start.outputs + 0.8 * way)
        values = compute(select(name), moved)
        assert values[name] == pytest.approx(told_as, rel=1e-5, nan_ok=True)
        assert ("have not moved" in values.reasons.get(name, "")) == math.isnan(told_as)
