"""Linearised Laplace, evidence and information. Oracle: Bayesian linear regression in weight space with J from autograd."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from kerneltrack import Probe, eigensystem
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.observables import State, compute, select
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

NAMES = ["posterior_variance", "posterior_calibration", "ntk_gp_nll", "log_evidence", "information_gain"]


class Case:
    """A small network with two probes, measured at one step; J and the rest by autograd."""

    def __init__(
        self, output="full", loss="half_mse", *, linear=False, split="validation", step=1, seed=0, targets=True
    ):
        torch.manual_seed(seed)
        inner = [nn.Linear(3, 2, bias=False)] if linear else [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)]
        self.model = nn.Sequential(*inner).double()
        data = torch.Generator().manual_seed(1)
        self.x, self.new = (torch.randn(n, 3, generator=data).double() for n in (9, 6))
        noise = (0.1 * torch.randn(n, 2, generator=data).double() for n in (9, 6))
        self.y, self.there = (x[:, :2] + e for x, e in zip((self.x, self.new), noise, strict=True))
        rule = UpdateRule.of(
            [torch.optim.SGD(self.model.parameters(), lr=0.1)], {id(p): n for n, p in self.model.named_parameters()}
        )
        probes = Probe(self.x, self.y), Probe(self.new, self.there if targets else None, identity={"split": split})
        known = None if loss is None else ProbeLoss.of(loss)
        first, second = (Instrument(probe=p, loss=known, output=output, observables=select(NAMES)) for p in probes)
        source = first.measure(self.model, rule, step=step)
        self.reading = second.measure(self.model, rule, step=step, source=(first, source))
        self.values, self.reasons = self.reading.values, self.reading.reasons

    def jacobian(self, x):
        """(N·O, P)."""
        names = [n for n, _ in self.model.named_parameters()]
        rows = torch.func.jacrev(lambda p: torch.func.functional_call(self.model, dict(zip(names, p, strict=True)), x))(
            tuple(p.detach() for p in self.model.parameters())
        )
        return torch.cat([r.reshape(x.shape[0] * 2, -1) for r in rows], 1).numpy()

    def flat(self, tensor):
        return tensor.detach().numpy().reshape(-1)

    def by_weights(self):
        """(variance, squared error) of the new points' outputs, at the δ and σ² that were found."""
        found = self.reading.state.laplace.evidence
        j, new = self.jacobian(self.x), self.jacobian(self.new)
        covariance = np.linalg.inv(found.precision * np.eye(j.shape[1]) + j.T @ j / found.noise)
        errors = (self.flat(self.there) - self.flat(self.model(self.new))) ** 2
        return np.einsum("ij,jk,ik->i", new, covariance, new), errors, found


@pytest.fixture(scope="module")
def case():
    return Case()


def test_variance_calibration_and_likelihood_are_those_of_weight_space(case):
    """Condition of the covariance at most 1e6 here: 1e-8."""
    variance, errors, found = case.by_weights()
    np.testing.assert_allclose(case.values["posterior_variance"], variance.reshape(6, 2).mean(1), rtol=1e-8)
    total = variance + found.noise
    assert case.values["posterior_calibration"] == pytest.approx(np.mean(errors / total), rel=1e-8)
    nll = np.mean(np.log(2 * np.pi * total) + errors / total) / 2
    assert case.values["ntk_gp_nll"] == pytest.approx(nll, rel=1e-8)


def test_prior_and_noise_are_of_the_data_less_what_the_linear_model_starts_from(case):
    """y − f + Jθ by autograd; its density at what was found is no lower than around it."""
    j, found = case.jacobian(case.x), case.reading.state.laplace.evidence
    theta = np.concatenate([p.detach().numpy().ravel() for p in case.model.parameters()])
    data = case.flat(case.y) - case.flat(case.model(case.x)) + j @ theta

    def density(precision, noise):
        return multivariate_normal(np.zeros(18), j @ j.T / precision + noise * np.eye(18)).logpdf(data)

    best = density(found.precision, found.noise)
    assert found.log_evidence == pytest.approx(best, rel=1e-9)
    for a, b in ((1.05, 1), (1 / 1.05, 1), (1, 1.05), (1, 1 / 1.05)):
        assert density(a * found.precision, b * found.noise) < best


def test_of_a_linear_model_nothing_depends_on_where_it_is():
    """y − f + Jθ = y there: two networks of other weights have one variance, to the search's 1e-5 of γ."""
    a, b = (Case(linear=True, seed=seed).values["posterior_variance"] for seed in (0, 1))
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_evidence_and_information_are_densities_and_determinants(case):
    """Of the probe itself, Θ = JJᵀ."""
    j, y = case.jacobian(case.new), case.flat(case.there)
    kernel = j @ j.T
    gamma = 1e-3 * np.trace(kernel) / 12
    assert case.values["information_gain"] == pytest.approx(
        np.linalg.slogdet(np.eye(12) + kernel / gamma)[1] / 2, rel=1e-9
    )
    density = max(
        multivariate_normal(np.zeros(12), kernel / d + s * np.eye(12)).logpdf(y)
        for d in np.geomspace(1e-2, 1e4, 49)
        for s in np.geomspace(1e-4, 1e2, 49)
    )
    assert density / 12 - 1e-12 <= case.values["log_evidence"] < density / 12 + 0.02  # a cell of the grid is 1.33


def test_a_log_density_moves_by_the_log_of_the_unit(case):
    """f, y → 4f, 4y: −ln p grows by ln 4 an output, and the calibration stays."""
    state = case.reading.state
    found, scale = state.laplace, 4.0
    there = dataclasses.replace(found.posterior, variance=scale**2 * found.posterior.variance)
    moved = dataclasses.replace(
        state,
        outputs=scale * state.outputs,
        targets=scale * state.targets,
        laplace=dataclasses.replace(
            found, posterior=there, evidence=dataclasses.replace(found.evidence, noise=scale**2 * found.evidence.noise)
        ),
    )
    values = compute(select(NAMES), moved)
    assert values["ntk_gp_nll"] == pytest.approx(case.values["ntk_gp_nll"] + math.log(4), rel=1e-12)
    assert values["log_evidence"] == pytest.approx(case.values["log_evidence"] - math.log(4), rel=1e-9)
    assert values["posterior_calibration"] == pytest.approx(case.values["posterior_calibration"], rel=1e-12)


def test_a_trace_kernel_has_one_variance_for_all_outputs():
    """Oracle: Σ_o J_oJ_oᵀ as the covariance of each output."""
    case = Case("trace")
    found = case.reading.state.laplace.evidence
    j, new = case.jacobian(case.x).reshape(9, -1), case.jacobian(case.new).reshape(6, -1)
    inverse = np.linalg.inv(j @ j.T + found.precision * found.noise * np.eye(9))
    cross = new @ j.T
    expected = (np.sum(new**2, 1) - np.einsum("ij,jk,ik->i", cross, inverse, cross)) / found.precision
    np.testing.assert_allclose(case.values["posterior_variance"], expected, rtol=1e-8)
    density = max(
        multivariate_normal(np.zeros(6), new @ new.T / d + s * np.eye(6)).logpdf(case.there.numpy().T).sum()
        for d in np.geomspace(1e-2, 1e4, 25)
        for s in np.geomspace(1e-4, 1e2, 25)
    )
    # an output, of which there are twice as many as rows of the kernel; a cell of the grid is 1.78
    assert density / 12 - 1e-12 <= case.values["log_evidence"] < density / 12 + 0.08


def test_evidence_without_a_maximum_is_not_told(case):
    """Targets in the span of a kernel of three modes. Negative control: with noise they have an evidence."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    state = State(
        eigensystem=eigensystem(x @ x.T), reduction="trace", outputs=0 * noise, settings={"loss": "half_mse", "step": 0}
    )
    for targets, told in ((x.sum(1, keepdims=True), False), (x.sum(1, keepdims=True) + noise, True)):
        values = compute(select(["log_evidence"]), dataclasses.replace(state, targets=targets))
        assert np.isfinite(values["log_evidence"]) == told
    without = compute(select(["log_evidence"]), dataclasses.replace(state, targets=x[:, :1]))
    assert "grows without end" in without.reasons["log_evidence"]
    found = case.reading.state.laplace
    state = dataclasses.replace(
        case.reading.state,
        laplace=dataclasses.replace(found, evidence=dataclasses.replace(found.evidence, unbounded=True)),
    )
    reasons = compute(select(NAMES[:3]), state).reasons
    assert set(reasons) == set(NAMES[:3])


@pytest.mark.parametrize(
    ("options", "missing", "words"),
    [
        ({"loss": None}, NAMES[:4], "not a mean of squares"),
        ({"split": "train"}, NAMES[:4], "has seen these labels"),
        ({"split": "somewhere"}, ["log_evidence"], "has seen these labels"),
        ({"loss": None, "targets": False}, NAMES[:4], ""),
        ({"output": "sum"}, NAMES[:3], "a kernel of the outputs themselves"),
    ],
    ids=str,
)
def test_what_is_no_prediction_is_not_told(options, missing, words):
    case = Case(**options)
    assert {n for n in NAMES if not np.isfinite(case.values.get(n, np.nan)).all()} == set(missing)
    assert all(words in case.reasons[name] for name in missing)
