"""Laws that every observable of the catalogue obeys, on a state in which everything was measured.

Oracle: the same state seen differently (points in another order, eigenvectors of the other sign, other units). What has
no name for a single point must not change.
"""

import dataclasses

import numpy as np
import pytest

from kerneltrack.observables import State, Update, catalogue, compute, select
from kerneltrack.spectrum import eigensystem

SAMPLES, OTHERS, OUTPUTS, WIDTH = 8, 6, 3, 5
LAYERS = ("first", "head")
PARAMETERS = {"first": slice(0, 20), "head": slice(20, 40)}


def measured(order=None, scale=1.0):
    """A state at θ_t, its initial and previous ones, with every field filled; points in the given order.

    ``scale`` multiplies outputs and targets, as a change of units does.
    """
    rng = np.random.default_rng(0)
    order = np.arange(SAMPLES) if order is None else order
    jacobians = [rng.standard_normal((SAMPLES + OTHERS, OUTPUTS, 40)) for _ in range(2)]
    jacobians.append(jacobians[1] + 0.3 * rng.standard_normal((SAMPLES + OTHERS, OUTPUTS, 40)))
    functions = scale * rng.standard_normal((9, SAMPLES, OUTPUTS))
    activations = rng.standard_normal((2, SAMPLES, WIDTH))
    features = rng.standard_normal((3, SAMPLES, WIDTH))
    targets = functions[0][order]
    states: list[State] = []
    for index, jacobian in enumerate(scale * np.array(jacobians)):
        here = jacobian[:SAMPLES][order]
        parts = {name: np.einsum("nop,mqp->nmoq", here[..., cut], here[..., cut]) for name, cut in PARAMETERS.items()}
        kernel = sum(parts.values())
        pairs = eigensystem(kernel)
        elsewhere = jacobian[SAMPLES:].reshape(OTHERS * OUTPUTS, -1)
        vectors = eigensystem(elsewhere @ elsewhere.T).vectors
        outputs = functions[1 + index][order]
        states.append(
            State(
                eigensystem=pairs, kernel=kernel, outputs=outputs, targets=targets, residual=outputs - targets,
                probe_loss=0.7, learning_rates=(0.1,), stability=0.6, regression=functions[8][order],
                layer_kernels=parts, layer_traces={n: float(np.einsum("nnoo->", k)) for n, k in parts.items()},
                activations={"first": activations[index % 2][order]}, parameter_distance=0.3,
                layer_distances={"first": 0.1, "head": 0.2}, training_outputs=functions[3][order],
                anchored_outputs=functions[7][order], optimizer_kernel=3 * parts["first"] + parts["head"],
                conjugate=scale**2 * features[index][order] @ features[index][order].T,
                cross_time=np.einsum("nop,mqp->nmoq", here, scale * jacobians[0][:SAMPLES][order]),
                extension=here.reshape(SAMPLES * OUTPUTS, -1) @ elsewhere.T @ vectors,
                settings={"loss": "half_mse", "dtype": "float64", "layers": LAYERS, "step": index},
            )
        )  # fmt: skip
    update = Update(
        output_change=functions[4][order], linear_change=functions[5][order] + functions[6][order],
        kernel_change=2 * functions[5][order],
        layer_linear_changes={"first": functions[5][order], "head": functions[6][order]},
        layer_kernel_changes={"first": functions[5][order], "head": functions[5][order]},
    )  # fmt: skip
    return dataclasses.replace(states[2], initial=states[0], previous=states[1], update=update)


def flipped(state):
    """Every eigenvector of every state with the other sign, or not, at random."""
    rng = np.random.default_rng(1)

    def flip(pairs):
        return dataclasses.replace(pairs, vectors=pairs.vectors * rng.choice([-1, 1], size=pairs.size))

    initial, previous = (
        dataclasses.replace(other, eigensystem=flip(other.eigensystem)) for other in (state.initial, state.previous)
    )
    return dataclasses.replace(state, eigensystem=flip(state.eigensystem), initial=initial, previous=previous)


#: One output; targets that are classes (test_classes.py has their laws); more modes than 24 (test_shape.py).
NOT_HERE = {
    "cka_with_initial_unbiased", "class_diagonal", "class_within", "class_between", "class_block_share",
    "spectrum_exponent", "target_exponent",
}  # fmt: skip
EVERYTHING = [entry for entry in select("all") if entry.name not in NOT_HERE]


@pytest.fixture(scope="module")
def values():
    return compute(EVERYTHING, measured())


def test_everything_can_be_computed(values):
    assert not values.reasons
    assert set(values) == set(catalogue()) - NOT_HERE
    for name, value in values.items():
        missing = np.isnan(value)
        # the last eigenvalue has no gap, the readout no activations, and the other probe fewer modes than this one
        allowed = {"gap": 1, "target_energy_out_of_sample": 2, "output_energy_out_of_sample": 2}
        expected = 1 if name.startswith("activation") or name == "gate_flips" else allowed.get(name, 0)
        assert missing.sum() == expected, (name, value)


@pytest.mark.parametrize("name", [entry.name for entry in EVERYTHING])
def test_the_order_of_the_probe_does_not_matter(values, name):
    order = np.random.default_rng(2).permutation(SAMPLES)
    found = compute(select(name), measured(order))[name]
    if {"sample", "sample_2"} <= set(catalogue()[name].dims):  # a kernel follows the points
        axis = catalogue()[name].dims.index("sample")
        expected = np.take(np.take(values[name], order, axis), order, axis + 1)
    elif name.startswith("ledger"):  # coefficients: their sign is that of their eigenvector
        found, expected = np.abs(found), np.abs(values[name])
    else:
        expected = values[name]
    # eigenvectors are known to ε λ_1/gap, here below 1e-11
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [entry.name for entry in EVERYTHING if not entry.name.startswith("ledger")])
def test_the_signs_of_eigenvectors_do_not_matter(values, name):
    np.testing.assert_allclose(compute(select(name), flipped(measured()))[name], values[name], rtol=1e-12, atol=1e-14)


#: Power of the unit of outputs in every observable that is not a pure number.
DIMENSION = {
    "trace": 2, "frobenius": 2, "noise_floor": 2, "eigen_residual": 2, "target_rayleigh": 2, "residual_rayleigh": 2,
    "kernel_radius_from_initial": 2, "layer_trace": 2, "layer_frobenius": 2, "stability_bound": 2, "jacobian_change": 1,
    "conjugate_kernel": 2, "layer_kernel": 2, "optimizer_eigenvalues": 2,
    "ledger_kernel_flow": 1, "ledger_remainder": 1, "ledger_curvature": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", [entry.name for entry in EVERYTHING if entry.name != "predicted_factor"])
def test_other_units_of_the_output_change_only_what_has_a_unit(values, name):
    # f → 4f, y → 4y, so J → 4J and Θ → 16Θ: powers of two, exact in floating point but for the eigensolver's path.
    # (The learning rate has units too, so predicted_factor is no number of the state alone.)
    factor = 4.0 ** DIMENSION.get(name, 0)
    found = compute(select(name), measured(scale=4.0))[name]
    np.testing.assert_allclose(found, factor * values[name], rtol=1e-9, atol=1e-9 * factor)
