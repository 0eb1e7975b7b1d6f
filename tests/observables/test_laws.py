"""Laws that every observable of the catalogue obeys, on a state in which everything was measured.

Oracle: the same state seen differently (points in another order, eigenvectors of the other sign, other units). What has
no name for a single point must not change.
"""

import dataclasses
import functools

import numpy as np
import pytest

from kerneltrack.observables import State, Update, catalogue, compute, select
from kerneltrack.observables.datasets import energy_k
from kerneltrack.regression import laplace
from kerneltrack.spectrum import kernel_estimates
from kerneltrack.spectrum.decomposition import eigensystem

SAMPLES, OTHERS, OUTPUTS, WIDTH = 8, 6, 3, 5
LAYERS = ("first", "head")
PARAMETERS = {"first": slice(0, 20), "head": slice(20, 40)}
ORDER = np.random.default_rng(2).permutation(SAMPLES)
#: Two modes of equal eigenvalues by the number of outputs, between two neighbours of the archive's grid of k.
TWINS = {OUTPUTS: [10, 11], 1: [2, 3]}


@functools.cache
def measured(outputs=OUTPUTS, *, permuted=False, scale=1.0, twins=False):
    """A state at θ_t, its initial and previous ones, with every field filled. With one output the targets are classes.

    The points stand in another order where ``permuted``; ``scale`` multiplies outputs and targets, as a change of units
    does; with ``twins`` two eigenvalues are equal.
    """
    rng = np.random.default_rng(0)
    order = ORDER if permuted else np.arange(SAMPLES)
    jacobians = [rng.standard_normal((SAMPLES + OTHERS, outputs, 40)) for _ in range(2)]
    jacobians.append(jacobians[1] + 0.3 * rng.standard_normal((SAMPLES + OTHERS, outputs, 40)))
    if twins:
        jacobians = [with_equal_singular_values(jacobian, TWINS[outputs]) for jacobian in jacobians]
    functions = scale * rng.standard_normal((9, SAMPLES, outputs))
    if outputs == 1:
        functions[0] = scale * np.sign(functions[0])
    answers = np.random.default_rng(4).standard_normal((OTHERS, outputs))
    activations = rng.standard_normal((2, SAMPLES, WIDTH))
    features = rng.standard_normal((3, SAMPLES, WIDTH))
    targets = functions[0][order]
    states: list[State] = []
    for index, jacobian in enumerate(scale * np.array(jacobians)):
        here = jacobian[:SAMPLES][order]
        parts = {name: np.einsum("nop,mqp->nmoq", here[..., cut], here[..., cut]) for name, cut in PARAMETERS.items()}
        kernel = sum(parts.values())
        pairs = eigensystem(kernel)
        elsewhere = jacobian[SAMPLES:].reshape(OTHERS * outputs, -1)
        vectors = eigensystem(elsewhere @ elsewhere.T).vectors
        seen = functions[1 + index][order]
        states.append(
            State(
                eigensystem=pairs,
                kernel=kernel,
                outputs=seen,
                targets=targets,
                residual=seen - targets,
                probe_loss=0.7,
                learning_rates=(0.1,),
                stability=0.6,
                stability_halves=0.7,
                sharpness=0.5,
                hessian_sharpness=0.6,
                hessian_ratio=0.7,
                batch_curvatures=np.array([0.4, 0.9]),
                batch_ratios=np.array([0.2, 0.3]),
                regression=functions[8][order],
                layer_kernels=parts,
                layer_traces={n: float(np.einsum("nnoo->", k)) for n, k in parts.items()},
                activations={"first": activations[index % 2][order]},
                gates={"first": activations[index % 2][order] ** 3},
                readout_parameters=("weight", "bias"),
                parameter_distance=0.3,
                layer_distances={"first": 0.1, "head": 0.2},
                layer_weights={"first": np.array([1, 2, 1.5, 0.7]), "head": np.array([2, 1, 1.5, 0.9])},
                training_outputs=functions[3][order],
                anchored_outputs=functions[7][order],
                optimizer_kernel=3 * parts["first"] + parts["head"],
                conjugate=scale**2 * features[index][order] @ features[index][order].T,
                cross_time=np.einsum("nop,mqp->nmoq", here, scale * jacobians[0][:SAMPLES][order]),
                estimates=kernel_estimates(pairs.matrix(), pairs, targets=targets.reshape(SAMPLES * outputs, -1)),
                laplace=laplace(
                    here.reshape(SAMPLES * outputs, -1) @ elsewhere.T,
                    np.sum(here.reshape(SAMPLES * outputs, -1) ** 2, axis=1),
                    eigensystem(elsewhere @ elsewhere.T),
                    scale * answers.reshape(-1, 1)[: len(elsewhere)],
                ),
                extension=here.reshape(SAMPLES * outputs, -1) @ elsewhere.T @ vectors,
                settings={
                    "loss": "half_mse",
                    "dtype": "float64",
                    "layers": LAYERS,
                    "step": index,
                    "lag": 1,
                    "in_training": "no",
                },
            )
        )
    update = Update(
        slope=-0.4,
        batch_slope=-0.2,
        batch_bend=0.1,
        bend=0.3,
        output_change=functions[4][order],
        linear_change=functions[5][order] + functions[6][order],
        kernel_change=2 * functions[5][order],
        layer_linear_changes={"first": functions[5][order], "head": functions[6][order]},
        layer_kernel_changes={"first": functions[5][order], "head": functions[5][order]},
    )
    return dataclasses.replace(states[2], initial=states[0], previous=states[1], lagged=states[1], update=update)


def with_equal_singular_values(jacobian, twins):
    """The Jacobian whose kernel on the probe has two equal eigenvalues."""
    left, values, right = np.linalg.svd(jacobian[:SAMPLES].reshape(-1, 40), full_matrices=False)
    values[twins] = values[twins].mean()
    changed = jacobian.copy()
    changed[:SAMPLES] = ((left * values) @ right).reshape(jacobian[:SAMPLES].shape)
    return changed


def with_bases(state, change):
    """Every state's eigenvectors (M, k) replaced by what ``change`` makes of them."""

    def changed(other):
        pairs = other.eigensystem
        return dataclasses.replace(other, eigensystem=dataclasses.replace(pairs, vectors=change(pairs.vectors.copy())))

    earlier = {name: changed(getattr(state, name)) for name in ("initial", "previous", "lagged")}
    return dataclasses.replace(changed(state), **earlier)


def flipped(state):
    """Every eigenvector of every state with the other sign, or not, at random."""
    rng = np.random.default_rng(1)
    return with_bases(state, lambda vectors: vectors * rng.choice([-1, 1], size=vectors.shape[1]))


def turned(state, twins):
    """The eigenvectors of two equal eigenvalues turned in their plane, in every state by another angle."""
    rng = np.random.default_rng(1)

    def turn(vectors):
        cosine, sine = np.cos(angle := rng.uniform(0.5, 1.0)), np.sin(angle)
        vectors[:, twins] = vectors[:, twins] @ np.array([[cosine, -sine], [sine, cosine]])
        return vectors

    return with_bases(state, turn)


#: What a state does not have, by its number of outputs: three outputs are neither classes nor one kernel; one output has
#: no other one, and a quarter of so few modes no exponent.
CLASSES = (
    "class_pair_r2", "class_pair_r2_null", "class_pair_r2_score", "class_three_level_share", "class_three_level_share_null",
)  # fmt: skip
EXPONENTS = ("spectrum_exponent", "target_exponent")
#: Of classes under a cross-entropy; the loss here is a mean of squares.
LOGISTIC = ("kernel_logistic_loss", "kernel_logistic_accuracy", "network_accuracy")
#: Of the third of three states in a row; with laws of its own (test_oscillation.py, test_edge_mode.py).
TRIPLES = (
    "oscillation_loss",
    "oscillation_loss_seen",
    "oscillation_leading_share",
    "edge_swing",
    "edge_swing_predicted",
)
NOT_HERE = {
    OUTPUTS: {"class_diagonal", "class_within", "class_between", *CLASSES, *EXPONENTS, *LOGISTIC, *TRIPLES},
    1: {"kernel_specialization", "cross_output_share", *EXPONENTS, *LOGISTIC, *TRIPLES},
}
EVERYTHING = [
    pytest.param(outputs, entry.name, id=f"{entry.name}-{outputs}")
    for outputs, absent in NOT_HERE.items()
    for entry in catalogue().values()
    if entry.name not in absent
]


@pytest.fixture(scope="module")
def values():
    """By the number of outputs, everything."""
    return {outputs: compute(tuple(catalogue().values()), measured(outputs)) for outputs in NOT_HERE}


@pytest.mark.parametrize("outputs", NOT_HERE)
def test_everything_can_be_computed(values, outputs):
    assert set(values[outputs].reasons) == NOT_HERE[outputs]
    assert set(values[outputs]) == set(catalogue())
    for name, value in values[outputs].items():
        if name in NOT_HERE[outputs]:
            continue
        missing = np.isnan(value)
        # the last eigenvalue has no gap, the readout no activations, and the other probe fewer modes than this one
        fewer = sum(k > OTHERS * outputs for k in energy_k(SAMPLES * outputs))
        allowed = {"gap": 1, "target_energy_out_of_sample": fewer, "output_energy_out_of_sample": fewer}
        expected = 1 if name.startswith("activation") or name == "gate_flips" else allowed.get(name, 0)
        assert missing.sum() == expected, (name, value)


def test_every_observable_stands_under_the_laws():
    """No name is missing from all states but those that other files hold to the laws.

    Exponents take a hundred modes (test_shape.py); accuracies and logistic regression a cross-entropy (test_logistic.py); what
    goes to and fro three states in a row (test_oscillation.py, test_edge_mode.py).
    """
    assert set.intersection(*NOT_HERE.values()) == {*EXPONENTS, *LOGISTIC, *TRIPLES}


@pytest.mark.parametrize(("outputs", "name"), EVERYTHING)
def test_the_order_of_the_probe_does_not_matter(values, outputs, name):
    found, before = compute(select(name), measured(outputs, permuted=True))[name], values[outputs][name]
    if {"sample", "sample_2"} <= set(catalogue()[name].dims):  # a kernel follows the points
        axis = catalogue()[name].dims.index("sample")
        expected = np.take(np.take(before, ORDER, axis), ORDER, axis + 1)
    elif "sample" in catalogue()[name].dims:
        expected = before[ORDER]
    elif name.startswith("ledger"):  # coefficients: their sign is that of their eigenvector
        found, expected = np.abs(found), np.abs(before)
    else:
        expected = before
    # eigenvectors are known to ε λ_1/gap, here below 1e-11
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("outputs", "name"), [p for p in EVERYTHING if not p.values[1].startswith("ledger")])
def test_the_signs_of_eigenvectors_do_not_matter(values, outputs, name):
    found = compute(select(name), flipped(measured(outputs)))[name]
    np.testing.assert_allclose(found, values[outputs][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("outputs", "name"), EVERYTHING)
def test_how_equal_eigenvalues_choose_their_vectors_does_not_matter(outputs, name):
    """A plane of equal eigenvalues has no axes: only what is told of its two modes alone depends on them."""
    state, twins = measured(outputs, twins=True), TWINS[outputs]
    found, expected = (compute(select(name), s)[name] for s in (turned(state, twins), state))
    if "mode" in catalogue()[name].dims:
        axis = catalogue()[name].dims.index("mode")
        found, expected = np.delete(found, twins, axis), np.delete(expected, twins, axis)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_turn_is_seen_inside_the_plane():
    """Negative control: the measured factor of one of the twins is another one after the turn."""
    state, twins = measured(1, twins=True), TWINS[1]
    found, before = (compute(select("measured_factor"), s)["measured_factor"] for s in (turned(state, twins), state))
    assert np.all(np.abs(found - before)[twins] > 0.01)


#: Power of the unit of outputs in every observable that is not a pure number.
DIMENSION = {
    "trace": 2, "frobenius": 2, "noise_floor": 2, "eigen_residual": 2, "target_rayleigh": 2, "residual_rayleigh": 2,
    "trace_estimate": 2, "trace_estimate_error": 2, "frobenius_estimate": 2, "frobenius_estimate_error": 2,
    "kernel_radius_from_initial": 2, "layer_trace": 2, "layer_frobenius": 2, "stability_bound": 2, "jacobian_change": 1,
    "conjugate_kernel": 2, "layer_kernel": 2, "optimizer_eigenvalues": 2, "class_diagonal": 2, "class_within": 2,
    "class_between": 2, "posterior_variance": 2, "loss_weighted_eigenvalues": 2,
    "ledger_kernel_flow": 1, "ledger_remainder": 1, "ledger_curvature": 1,
}  # fmt: skip


#: The learning rate has units too, and a readout's bias has the kernel 11ᵀ in any: no numbers of the state alone. The logarithm of
#: a density moves by that of the unit (test_bayesian.py).
OTHER_UNITS = {"predicted_factor", "optimizer_factor", "conjugate_kernel_share_with_bias", "ntk_gp_nll", "log_evidence"}


@pytest.mark.parametrize(("outputs", "name"), [p for p in EVERYTHING if p.values[1] not in OTHER_UNITS])
def test_other_units_of_the_output_change_only_what_has_a_unit(values, outputs, name):
    # f → 4f, y → 4y, so J → 4J and Θ → 16Θ: powers of two, exact in floating point but for the eigensolver's path.
    factor = 4.0 ** DIMENSION.get(name, 0)
    found = compute(select(name), measured(outputs, scale=4.0))[name]
    np.testing.assert_allclose(found, factor * values[outputs][name], rtol=1e-9, atol=1e-9 * factor)
