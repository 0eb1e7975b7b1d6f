"""What an update does mode by mode, against gradient descent on a linear model, where the prediction is exact."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import Update, compute, energy_k, loss_curvature, predicted_factor, select
from kerneltrack.spectrum.decomposition import eigensystem

NAMES = ["predicted_factor", "measured_factor"]


def test_the_factor_of_a_hand_made_mode():
    np.testing.assert_allclose(predicted_factor(np.array([8.0, 4.0, 0.0]), 0.5, 2), [1.0, 0.0, 1.0])
    np.testing.assert_allclose(predicted_factor(np.array([4.0]), 0.5, 2, curvature=0.5), [0.5])


@pytest.mark.parametrize("loss", ["half_mse", "mse"])
def test_gradient_descent_on_a_linear_model_is_predicted_exactly(problem, loss):
    # Oracle: one step θ ← θ − η ∇L of f = Jθ with the loss written out.
    samples, outputs = problem.targets.shape
    jacobian = problem.jacobian.reshape(samples * outputs, -1)
    theta = np.random.default_rng(5).standard_normal(jacobian.shape[1])
    f = jacobian @ theta
    y = problem.targets.ravel()
    rate = 0.03
    gradient = jacobian.T @ (f - y) / samples * (1 if loss == "half_mse" else 2 / outputs)
    after = jacobian @ (theta - rate * gradient)
    scale = 1 if loss == "half_mse" else 2 / outputs
    state = problem.state(
        outputs=f.reshape(samples, outputs),
        residual=scale * (f - y).reshape(samples, outputs),
        learning_rates=(rate, rate),
        settings={"loss": loss, "dtype": "float64"},
        update=Update(output_change=(after - f).reshape(samples, outputs), linear_change=np.zeros((samples, outputs))),
    )
    values = compute(select(NAMES), state)
    assert not values.reasons
    np.testing.assert_allclose(values["measured_factor"], values["predicted_factor"], rtol=1e-7)
    errors = [state.coefficients((g - y).reshape(samples, outputs)) for g in (f, after)]
    actual = np.linalg.norm(errors[1], axis=1) / np.linalg.norm(errors[0], axis=1)
    np.testing.assert_allclose(values["measured_factor"], actual, rtol=1e-7)


def test_what_has_no_factor_says_why(problem):
    update = Update(output_change=problem.outputs, linear_change=problem.outputs)
    state = problem.state(learning_rates=(0.1,), settings={"loss": "cross_entropy"}, update=update)
    values = compute(select(NAMES), state)
    for name in NAMES:
        assert np.isnan(values[name]).all()
        assert "not linear in the outputs" in values.reasons[name]
    several = dataclasses.replace(state, learning_rates=(0.1, 0.2), settings={"loss": "half_mse"})
    assert "one learning rate" in compute(select(NAMES), several).reasons["predicted_factor"]
    for reduction in ("sum", "trace", "diagonal"):
        reduced = problem.state(reduction, learning_rates=(0.1,), settings={"loss": "half_mse"})
        assert "which the dynamics mix" in compute(select(NAMES), reduced).reasons["predicted_factor"]
    part = problem.state(learning_rates=(0.1,), settings={"loss": "half_mse", "of_every_parameter": False})
    assert "every parameter that trains" in compute(select(NAMES), part).reasons["predicted_factor"]
    with pytest.raises(ObservableError, match="half_mse or mse"):
        loss_curvature(None, 1)


def test_a_mode_that_is_already_learned_has_no_measured_factor(problem):
    state = problem.state()
    along = state.eigensystem.vectors[:, 2].reshape(problem.outputs.shape)
    state = problem.state(
        residual=along,
        outputs=along,
        targets=0 * along,
        settings={"loss": "half_mse", "dtype": "float64"},
        update=Update(output_change=-0.25 * along, linear_change=along),
    )
    factor = compute(select(NAMES), state)["measured_factor"]
    assert factor[2] == pytest.approx(0.75)
    assert np.isnan(np.delete(factor, 2)).all()


@pytest.mark.parametrize(
    "name", [f"{name}_energy_by_output" for name in ("target", "residual", "output", "displacement")]
)
@pytest.mark.parametrize("reduction", ["full", "diagonal", "trace"])
def test_energies_by_output_are_those_of_each_output_alone(problem, reduction, name):
    # Oracle: the projector on the top eigenspace, applied to φ with every other output set to zero.
    start = np.cos(problem.outputs)
    phi = {
        "target": problem.targets,
        "residual": problem.outputs - problem.targets,
        "output": problem.outputs,
        "displacement": problem.outputs - start,
    }[name.partition("_")[0]]
    matrix = problem.matrix(reduction)
    vectors = np.linalg.eigh(matrix)[1][:, ::-1]
    initial = problem.state(reduction, outputs=start)
    found = compute(select(name), problem.state(reduction, initial=initial))[name]
    for output in range(phi.shape[1]):
        alone = np.zeros_like(phi)
        alone[:, output] = phi[:, output]
        columns = problem.columns(alone, reduction)
        for row, k in enumerate(energy_k(len(matrix))):
            top = vectors[:, :k].T @ columns
            assert found[row, output] == pytest.approx(np.vdot(top, top) / np.vdot(alone, alone), rel=1e-9)


def test_a_class_that_does_not_occur_has_no_energy(problem):
    targets = problem.targets.copy()
    targets[:, 1] = 1e-18  # rounding of the other classes, as far as anyone can tell
    found = compute(select("target_energy_by_output"), problem.state(targets=targets))["target_energy_by_output"]
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(np.delete(found, 1, axis=1)).all()
    summed = compute(select("target_energy_by_output"), problem.state("sum"))
    assert "tell outputs apart" in summed.reasons["target_energy_by_output"]


def test_more_modes_than_were_solved_are_not_invented(problem):
    partial = problem.state(
        eigensystem=eigensystem(problem.kernel("full"), 3), learning_rates=(0.1,), settings={"loss": "half_mse"}
    )
    values = compute(select("predicted_factor"), partial)
    assert values["predicted_factor"].shape == (3,)
    assert not math.isnan(values["predicted_factor"][0])
