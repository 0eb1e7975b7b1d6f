"""Every observable of kernels and eigenvectors that live on a device. Oracle: the same of NumPy's arrays.

Kernels and eigenvectors are a CPU's tensors that refuse what a card's refuse (tests/elsewhere.py): a NumPy function that is given
one raises. Both sides have the same eigenvectors, so that rounding alone tells them apart, 1e-10 of the largest entry.
"""

import dataclasses

import numpy as np
import pytest
import torch

from kerneltrack.linear_algebra import to_numpy
from kerneltrack.observables import (
    Observable,
    Update,
    catalogue,
    compute,
    disjoint_halves,
    kernel_regression,
    measurement,
    select,
)
from kerneltrack.spectrum.decomposition import eigensystem
from tests.elsewhere import Elsewhere, elsewhere
from tests.observables.conftest import REDUCE, Problem

LARGE = ("kernel", "cross_time", "optimizer_kernel", "conjugate", "extension")


def moved(state, move=elsewhere):
    """The state with everything of N² numbers elsewhere, its earlier states too."""
    found = {name: move(getattr(state, name)) for name in LARGE if getattr(state, name) is not None}
    found["eigensystem"] = dataclasses.replace(state.eigensystem, vectors=move(state.eigensystem.vectors))
    if state.layer_kernels:
        found["layer_kernels"] = {layer: move(kernel) for layer, kernel in state.layer_kernels.items()}
    for name in ("initial", "previous", "lagged"):
        if getattr(state, name) is not None:
            found[name] = moved(getattr(state, name), move)
    return dataclasses.replace(state, **found)


def whole(reduction, *, classes=False, formed=True):
    """A state of everything that observables need, and earlier ones."""
    states = []
    for seed in range(3):
        problem = Problem(samples=12, parameters=80, seed=seed)
        if classes:
            problem.targets = np.eye(3)[np.arange(12) % 3]
        kernel, rng = problem.kernel(reduction), np.random.default_rng(seed)
        weights = np.linspace(0.3, 2, 80)
        weighted = REDUCE[reduction](
            np.einsum("nop,p,mqp->nmoq", problem.jacobian, weights, problem.jacobian, optimize=True)
        )
        features = rng.standard_normal((12, 5))
        change = problem.outputs / 9
        states.append(
            problem.state(
                reduction,
                kernel=kernel if formed else None,
                cross_time=kernel * 0.9,
                optimizer_kernel=weighted,
                conjugate=features @ features.T,
                readout_parameters=("weight", "bias"),
                extension=rng.standard_normal((problem.matrix(reduction).shape[0], 4)),
                layer_traces={"a": 1.0, "b": 2.0},
                layer_kernels={"a": 0.25 * kernel, "b": 0.75 * kernel},
                activations={"a": features},
                gates={"a": features},
                stability=0.5,
                stability_halves=0.6,
                sharpness=2.0,
                hessian_sharpness=2.5,
                hessian_ratio=0.7,
                batch_curvatures=np.array([0.4, 0.9]),
                batch_ratios=np.array([0.2, 0.3]),
                parameter_distance=1.0,
                layer_distances={"a": 1.0, "b": 2.0},
                layer_weights={"a": np.ones(4), "b": 2 * np.ones(4)},
                jacobian_difference=0.1,
                learning_rates=(0.1,),
                update=Update(
                    slope=-0.4,
                    batch_slope=-0.2,
                    batch_bend=0.1,
                    bend=0.3,
                    output_change=change,
                    linear_change=0.9 * change,
                    kernel_change=0.8 * change,
                    layer_linear_changes={"a": 0.4 * change, "b": 0.5 * change},
                    layer_kernel_changes={"a": 0.3 * change, "b": 0.5 * change},
                ),
                **dict.fromkeys(
                    ("anchored_outputs", "regression", "logistic", "training_outputs"), problem.outputs / 3
                ),
                settings={
                    "dtype": "float64",
                    "layers": ["a", "b"],
                    "loss": "cross_entropy" if classes else "half_mse",
                    "lag": 2,
                    "in_training": "no",
                    "step": 7,
                },
            )
        )
    state, initial, previous = states
    return dataclasses.replace(state, initial=initial, previous=previous, lagged=previous)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("formed", [True, False])
def test_every_observable_is_the_same_where_the_kernel_lives(reduction, formed, classes):
    """Without a formed kernel it is put together from the eigenpairs. NaN and its reason are the same as well."""
    if reduction == "sum" and classes:
        reduction = "trace"  # one-hot targets are refused there
    here, every = whole(reduction, classes=classes, formed=formed), tuple(catalogue().values())
    there = moved(here)
    found, expected = compute(every, there), compute(every, here)
    assert found.keys() == expected.keys()
    assert found.reasons == expected.reasons
    assert sum(bool(np.isfinite(value).any()) for value in expected.values()) > 60
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        scale = np.abs(np.nan_to_num(value, posinf=0.0, neginf=0.0)).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10 * max(scale, 1e-300), err_msg=name)


def test_what_is_stored_is_numpy(reduction):
    here = whole(reduction)
    stored, expected = (measurement(s, top_k=5, keep_kernel=True) for s in (moved(here), here))
    assert (
        stored.keys()
        == expected.keys()
        >= {"kernel", "cross_time_kernel", "initial_basis", "extension", "eigenvectors"}
    )
    for name, value in expected.items():
        assert type(stored[name]) is np.ndarray
        np.testing.assert_allclose(stored[name], value, atol=1e-10 * np.abs(value).max(), err_msg=name)


def test_a_state_elsewhere_is_put_together_with_one_in_numpy(reduction):
    """As after a resume: the earlier states come out of a checkpoint. Oracle: all in NumPy."""
    here, every = whole(reduction), tuple(catalogue().values())
    mixed = dataclasses.replace(moved(here), initial=here.initial, previous=here.previous, lagged=here.lagged)
    other = dataclasses.replace(here, **{n: moved(getattr(here, n)) for n in ("initial", "previous", "lagged")})
    expected = compute(every, here)
    for state in (mixed, other, mixed.placed(elsewhere(np.zeros(1))), other.in_numpy):
        found = compute(every, state)
        assert found.reasons == expected.reasons
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


def test_an_observable_of_ones_own_is_given_numpy():
    """It was written for NumPy. One that says it takes other arrays is given them."""
    state = moved(whole("trace"))

    def norm(s):
        return float(np.linalg.norm(s.kernel) + np.linalg.norm(s.initial.eigensystem.vectors))

    own = Observable("own", "‖Θ‖", "1", "derived", frozenset({"kernel"}), norm, reading="a number")
    seen = []
    other = dataclasses.replace(own, name="other", compute=lambda s: seen.append(type(s.kernel)) or 0.0, anywhere=True)
    values = compute((own, other), state)
    assert values["own"] == pytest.approx(norm(whole("trace")))
    assert seen == [Elsewhere]
    with pytest.raises(TypeError, match="lives elsewhere"):  # negative control
        compute((dataclasses.replace(own, anywhere=True),), state)
    assert all(entry.anywhere for entry in catalogue().values())


def test_a_state_that_is_there_already_is_not_moved():
    here = whole("full")
    assert here.in_numpy is here
    tensor = torch.zeros(1, dtype=torch.float64)
    there = here.placed(tensor)
    assert there.placed(tensor) is there
    assert isinstance(there.initial.kernel, torch.Tensor)
    np.testing.assert_array_equal(there.in_numpy.eigensystem.vectors, here.eigensystem.vectors)


def test_halves_and_regression_are_the_same(problem):
    """Oracle: NumPy."""
    state = problem.state("trace")
    entries = select(["trace", "effective_rank"])
    for name, (first, second) in disjoint_halves(moved(state), entries, splits=2).items():
        expected = disjoint_halves(state, entries, splits=2)[name]
        np.testing.assert_allclose((first, second), expected)
    pairs, cross = eigensystem(state.kernel), state.kernel[:3]
    there = dataclasses.replace(pairs, vectors=elsewhere(pairs.vectors))
    expected = kernel_regression(cross, pairs, problem.targets, ridge=0.1)
    for given in (cross, elsewhere(cross)):
        np.testing.assert_allclose(kernel_regression(given, there, problem.targets, ridge=0.1), expected, atol=1e-10)
    np.testing.assert_allclose(there.extend(elsewhere(cross)), pairs.extend(cross), atol=1e-10)
    np.testing.assert_allclose(to_numpy(there.matrix()), state.kernel, atol=1e-10)
