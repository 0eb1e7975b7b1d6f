"""The function-space ledger of one update of f(x) = W₂W₁x, whose every part is known in closed form."""

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, Update, compute, select, update_ledger
from kerneltrack.spectrum.decomposition import eigensystem

NAMES = ["ledger_kernel_flow", "ledger_remainder", "ledger_curvature"]
LAYERS = ["first", "second"]


def step(reduction="full", momentum=0.3, rate=0.05):
    """One heavy-ball step of the network, and the parts of its change by explicit matrix products."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    first, second = rng.standard_normal((4, 3)), rng.standard_normal((2, 4))
    f = x @ first.T @ second.T
    m = f - y
    gradients = {"first": second.T @ m.T @ x / 6, "second": m.T @ x @ first.T / 6}
    inertia = {"first": momentum * rng.standard_normal((4, 3)), "second": momentum * rng.standard_normal((2, 4))}
    change = {name: -rate * (gradients[name] + inertia[name]) for name in LAYERS}

    def linear(name, delta):
        return x @ delta.T @ second.T if name == "first" else x @ first.T @ delta.T

    hidden = x @ first.T
    by_first = np.einsum("oh,nd->nohd", second, x).reshape(6, 2, -1)
    by_second = np.einsum("op,nh->noph", np.eye(2), hidden).reshape(6, 2, -1)
    jacobian = np.concatenate([by_first, by_second], axis=2)
    kernel = np.einsum("nop,mqp->nmoq", jacobian, jacobian)
    kernel = {"full": kernel, "trace": np.einsum("nmoo->nm", kernel)}[reduction]
    update = Update(
        output_change=x @ (first + change["first"]).T @ (second + change["second"]).T - f,
        linear_change=sum(linear(name, change[name]) for name in LAYERS),
        kernel_change=sum(linear(name, -rate * gradients[name]) for name in LAYERS),
        layer_linear_changes={name: linear(name, change[name]) for name in LAYERS},
        layer_kernel_changes={name: linear(name, -rate * gradients[name]) for name in LAYERS},
    )
    state = State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction=reduction,
        outputs=f,
        targets=y,
        residual=m,
        update=update,
        layer_traces=dict.fromkeys(LAYERS, 1.0),
        settings={"layers": LAYERS},
    )
    return state, x @ change["first"].T @ change["second"].T


@pytest.mark.parametrize("reduction", ["full", "trace"])
def test_the_parts_add_up_exactly(reduction):
    state, _ = step(reduction)
    values = compute(select(NAMES), state)
    assert not values.reasons
    by_layer = values["ledger_kernel_flow"] + values["ledger_remainder"]
    parts = by_layer.sum(axis=1) + values["ledger_curvature"]
    total = state.coefficients(state.update.output_change)
    # a sum of five terms of the size of the largest: five roundings
    largest = max(np.abs(values[name]).max() for name in NAMES)
    np.testing.assert_allclose(parts, total, rtol=0, atol=5 * np.finfo(float).eps * largest)


@pytest.mark.parametrize("reduction", ["full", "trace"])
def test_the_curvature_of_a_product_is_the_product_of_the_changes(reduction):
    # (W₂ + δ₂)(W₁ + δ₁) − W₂W₁ − δ₂W₁ − W₂δ₁ = δ₂δ₁.
    state, product = step(reduction)
    found = compute(select("ledger_curvature"), state)["ledger_curvature"]
    np.testing.assert_allclose(found, state.coefficients(product), atol=1e-13)


def test_plain_gradient_descent_leaves_no_remainder():
    state, _ = step(momentum=0.0)
    values = compute(select(NAMES), state)
    np.testing.assert_allclose(values["ledger_remainder"], 0, atol=1e-14)
    assert np.abs(compute(select(NAMES), step()[0])["ledger_remainder"]).max() > 1e-3


def test_gradient_flow_only_takes_residual_off():
    # −⟨flow, m⟩ = η mᵀΘm/N mode by mode: a sum of squares.
    state, _ = step()
    update = state.update
    found = update_ledger(state, update.output_change, update.layer_linear_changes, update.layer_kernel_changes)
    learned = found.learned(state.coefficients(state.residual))
    assert learned.shape == (3, 12)
    assert (learned[0] >= -1e-15).all()
    expected = -np.vdot(update.output_change, state.residual) / np.vdot(state.residual, state.residual)
    assert learned.sum() == pytest.approx(expected)


def test_layers_must_be_the_same():
    state, _ = step()
    update = state.update
    with pytest.raises(ObservableError, match="layers of the two changes differ"):
        update_ledger(state, update.output_change, update.layer_linear_changes, {"first": update.output_change})


def test_a_ledger_that_was_not_kept_is_nan(problem):
    update = Update(output_change=problem.outputs, linear_change=problem.outputs)
    values = compute(select(NAMES), problem.state(update=update, layer_traces=dict.fromkeys(LAYERS, 1.0)))
    assert values["ledger_remainder"].shape == (21, 2, 1)
    assert np.isnan(values["ledger_remainder"]).all()
    assert values.reasons["ledger_remainder"] == "not measured: layer_changes"
