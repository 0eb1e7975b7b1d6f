"""Stability and linearisation errors against a network whose every step is known in closed form."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.observables import Update, compute, cosine, relative_squared_error, select

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
    update = Update(
        output_change=change,
        linear_change=0.9 * change,
        kernel_change=0.5 * change,
    )
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
    state = problem.state(stability=learning_rate * largest / (2 * samples))
    assert compute(select("stability_bound"), state)["stability_bound"] == pytest.approx(2 * samples / learning_rate)


def test_a_flat_loss_has_no_bound(problem):
    values = compute(select(["stability_ratio", "stability_bound"]), problem.state(stability=0.0))
    assert values["stability_ratio"] == 0
    assert math.isnan(values["stability_bound"])
    assert "not positive" in values.reasons["stability_bound"]


def test_no_loss_is_not_zero_loss(problem):
    assert compute(select("probe_loss"), problem.state())["probe_loss"] == 0.5
    assert compute(select("probe_loss"), problem.state(probe_loss=math.nan)).reasons["probe_loss"]
