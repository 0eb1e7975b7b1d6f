"""The conjugate kernel against a network that is its own readout: f = Wφ, so that Θ = φφᵀ ⊗ I_O and nothing else."""

import numpy as np
import pytest

from kerneltrack.observables import State, compute, select
from kerneltrack.spectrum.decomposition import eigensystem

SHARE = "conjugate_kernel_share"


def linear_readout(reduction="full", samples=6, outputs=3, width=4, below=0.0):
    """Θ of f = Wφ by W, and ``below`` times a second kernel of the same trace from layers below."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((samples, width))
    conjugate = features @ features.T
    kernel = np.einsum("nm,op->nmop", conjugate, np.eye(outputs))
    other = rng.standard_normal((samples * outputs, 40))
    other = (other @ other.T).reshape(samples, outputs, samples, outputs).transpose(0, 2, 1, 3)
    kernel = kernel + below * other * np.einsum("nnoo->", kernel) / np.einsum("nnoo->", other)
    kernel = {"full": kernel, "diagonal": np.einsum("nmoo->nmo", kernel), "trace": np.einsum("nmoo->nm", kernel)}[
        reduction
    ]
    return State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction=reduction,
        conjugate=conjugate,
        readout_parameters=("weight",),
        outputs=features @ rng.standard_normal((width, outputs)),
        targets=rng.standard_normal((samples, outputs)),
    )


@pytest.mark.parametrize("reduction", ["full", "diagonal", "trace"])
def test_the_share_is_one_over_one_plus_what_is_below(reduction):
    assert compute(select(SHARE), linear_readout(reduction))[SHARE] == pytest.approx(1)
    assert compute(select(SHARE), linear_readout(reduction, below=3.0))[SHARE] == pytest.approx(1 / 4)


def test_the_kernel_s_eigenvalues_are_the_features_singular_values_squared_o_times():
    """Oracle: Θ = K ⊗ I_O has every eigenvalue of K O times."""
    state = linear_readout()
    kernel = compute(select("conjugate_kernel"), state)["conjugate_kernel"]
    np.testing.assert_allclose(np.repeat(np.linalg.eigvalsh(kernel)[::-1], 3), state.eigensystem.values, atol=1e-12)


def test_alignment_of_a_trace_kernel_is_that_of_its_readout():
    """tr over outputs of K ⊗ I is O·K, and alignment does not see scale."""
    names = ["kernel_target_alignment", "kernel_target_alignment_null"]
    values = compute(select([*names, *(f"conjugate_{name}" for name in names)]), linear_readout("trace"))
    for name in names:
        assert values[f"conjugate_{name}"] == pytest.approx(values[name])


def test_without_a_readout_it_says_so():
    state = linear_readout()
    bare = State(eigensystem=state.eigensystem, outputs=state.outputs)
    assert compute(select(SHARE), bare).reasons[SHARE] == "not measured: conjugate"
