"""Alignments and their exact nulls, against explicit matrices and every permutation of a few points.

Oracles: Frobenius products of matrices placed by hand, all 720 permutations of six points, drawn ones of sixty.
"""

import itertools
import math
import re

import numpy as np
import pytest

from kerneltrack.observables import catalogue, cka, compute, permuted_cka, permuted_pair_alignment, select, unbiased_cka
from kerneltrack.observables.target_alignment import pair_alignment

OWN = ["kernel_target_alignment", "kernel_target_alignment_centred"]
FLAT = ["kernel_target_alignment_flattened", "kernel_target_alignment_centred_flattened"]


def cosine(a, b):
    return np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def summed(problem, reduction):
    """Θ(n, m) and the targets as columns, by a loop over outputs: of "sum" the kernel of Σ_o f_o, else Σ_o Θ_oo."""
    kernel = problem.kernel(reduction)
    if reduction == "sum":
        return kernel, problem.targets.sum(axis=1, keepdims=True)
    if kernel.ndim == 2:
        return kernel, problem.targets
    blocks = [kernel[:, :, o, o] if kernel.ndim == 4 else kernel[:, :, o] for o in range(problem.targets.shape[1])]
    return sum(blocks), problem.targets


def centring(samples, outputs=1):
    return np.kron(np.eye(samples) - 1 / samples, np.eye(outputs))


def flat(problem, reduction):
    """The whole kernel matrix and the targets as one vector; of "trace" with several outputs there is none."""
    matrix = problem.matrix(reduction)
    return matrix, problem.columns(problem.targets, reduction)


def expected_of(name, problem, reduction):
    """The cosine, by explicit matrices, of the problem's targets in the order in which they stand."""
    kernel, columns = (summed if name in OWN else flat)(problem, reduction)
    target = columns @ columns.T
    if "centred" in name:
        h = centring(len(problem.targets), len(kernel) // len(problem.targets))
        kernel, target = h @ kernel @ h, h @ target @ h
    return cosine(kernel, target)


@pytest.mark.parametrize("name", [*OWN, *FLAT])
def test_each_alignment_and_its_null_over_every_permutation(problem, reduction, name):
    problem.jacobian, problem.targets, problem.outputs = (
        a[:6] for a in (problem.jacobian, problem.targets, problem.outputs)
    )
    state = problem.state(reduction)
    values = compute(select([name, f"{name}_null"]), state)
    if name in FLAT and reduction == "trace":
        assert np.isnan([*values.values()]).all()
        assert all('needs output="full" or "diagonal"' in reason for reason in values.reasons.values())
        return
    assert values[name] == pytest.approx(expected_of(name, problem, reduction), rel=1e-10)
    targets, found = problem.targets, []
    for order in itertools.permutations(range(6)):
        problem.targets = targets[list(order)]
        found.append(expected_of(name, problem, reduction))
    # a mean of 720 numbers below 1, each right to 1e-15
    assert values[f"{name}_null"] == pytest.approx(np.mean(found), abs=1e-12)


@pytest.mark.parametrize("name", [*OWN, *FLAT])
def test_with_one_output_there_is_one_alignment(problem, name):
    problem.jacobian, problem.targets, problem.outputs = (
        a[:, :1] for a in (problem.jacobian, problem.targets, problem.outputs)
    )
    values = [compute(select([name, f"{name}_null"]), problem.state(r)) for r in ("full", "trace", "diagonal", "sum")]
    plain = name.removesuffix("_flattened")
    first = compute(select([plain, f"{plain}_null"]), problem.state("full"))
    for found in values:
        assert found[name] == pytest.approx(first[plain], rel=1e-10)
        assert found[f"{name}_null"] == pytest.approx(first[f"{plain}_null"], rel=1e-10)


@pytest.mark.parametrize("reduction", ["full", "diagonal", "trace"])
def test_a_kernel_that_is_the_labels_in_every_output_is_aligned(problem, reduction):
    """Θ = YYᵀ ⊗ I_O: one with YYᵀ, and 1/O flattened, because the blocks of the others stand in its norm."""
    labels = np.eye(3)[np.arange(9) % 3]
    problem.targets = problem.outputs = labels
    problem.jacobian = np.einsum("nc,op->nocp", labels, np.eye(3)).reshape(9, 3, 9)
    values = compute(select([OWN[0], FLAT[0]]), problem.state(reduction))
    assert values[OWN[0]] == pytest.approx(1)
    if reduction != "trace":
        assert values[FLAT[0]] == pytest.approx(1 / 3)


def of_sixty():
    rng = np.random.default_rng(4)
    labels = np.eye(10)[np.arange(60) % 10]
    features = labels @ rng.standard_normal((10, 20)) + rng.standard_normal((60, 20))
    return features @ features.T, labels, rng


def test_the_closed_form_is_the_mean_of_drawn_permutations():
    """Of sixty points in ten balanced classes, centred: √(PR(K) · 9)/59. The draws' mean is right to 4 of its errors."""
    kernel, labels, rng = of_sixty()
    h = centring(60)
    kernel, targets = h @ kernel @ h, h @ labels
    drawn = [pair_alignment(kernel, targets[rng.permutation(60)]) for _ in range(2000)]
    told = permuted_pair_alignment(kernel, targets)
    assert abs(told - np.mean(drawn)) < 4 * np.std(drawn) / math.sqrt(2000)
    rank = np.trace(kernel) ** 2 / np.vdot(kernel, kernel)
    assert told == pytest.approx(math.sqrt(9 * rank) / 59, rel=1e-12)
    assert pair_alignment(kernel, targets) > told + 5 * np.std(drawn)


@pytest.mark.parametrize("kernels", [True, False])
def test_the_null_of_cka_is_the_mean_over_every_permutation(problem, reduction, kernels):
    problem.jacobian, problem.targets, problem.outputs = (
        a[:6] for a in (problem.jacobian, problem.targets, problem.outputs)
    )
    keep = {} if kernels else {"kernel": None}
    start, before = problem.state(reduction, **keep), problem.kernel(reduction)
    problem.jacobian = problem.jacobian + 0.4 * np.random.default_rng(1).standard_normal(problem.jacobian.shape)
    after = problem.kernel(reduction)
    orders = [list(order) for order in itertools.permutations(range(6))]
    expected = np.mean([cka(after, before[order][:, order]) for order in orders])
    values = compute(select("cka_with_initial_null"), problem.state(reduction, initial=start, **keep))
    assert values["cka_with_initial_null"] == pytest.approx(expected, rel=1e-9)


def test_the_null_of_cka_is_one_of_participation_ratios():
    kernel, labels, _ = of_sixty()
    h = centring(60)
    ranks = [np.trace(k) ** 2 / np.vdot(k, k) for k in (h @ kernel @ h, h @ labels @ labels.T @ h)]
    assert permuted_cka(kernel, labels @ labels.T) == pytest.approx(math.sqrt(math.prod(ranks)) / 59, rel=1e-12)


def test_unbiased_cka_has_no_null_to_subtract(problem, reduction):
    """Law: its mean over all permutations of the points is zero, whatever the kernels' outputs."""
    before = problem.kernel(reduction)[:5, :5]
    problem.jacobian = problem.jacobian + np.random.default_rng(1).standard_normal(problem.jacobian.shape)
    after = problem.kernel(reduction)[:5, :5]
    orders = [list(order) for order in itertools.permutations(range(5))]
    found = [unbiased_cka(after, before[order][:, order]) for order in orders]
    assert np.mean(found) == pytest.approx(0, abs=1e-13)
    assert np.std(found) > 0.01


def test_constant_targets_have_no_alignment(problem):
    values = compute(select([OWN[1], f"{OWN[1]}_null"]), problem.state(targets=np.full_like(problem.targets, 0.1)))
    assert np.isnan([*values.values()]).all()
    assert all("the targets are constant" in reason for reason in values.reasons.values())


def test_no_alignment_is_measured_without_its_null():
    """The flattened ones are for kernels of every output, and are asked for."""
    names = {entry.name for entry in select("default")}
    assert {*OWN, "cka_with_initial", "cka_with_initial_unbiased"} <= names
    for chosen in (names, set(catalogue())):
        aligned = {
            name for name in chosen if re.search(r"target_alignment(_centred)?(_flattened)?$|^cka_with_initial$", name)
        }
        assert len(aligned) >= 3
        assert {f"{name}_null" for name in aligned} <= chosen
