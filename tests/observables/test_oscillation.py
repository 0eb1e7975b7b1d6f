"""What goes to and fro. Oracle: gradient descent on a quadratic, where the edge is a closed form, and the losses themselves."""

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.observables import Triple, mode_shares, predicted_excess, seen_excess
from kerneltrack.observables.oscillation import mean_loss
from kerneltrack.probe import Probe

NAMES = ("oscillation_loss", "oscillation_loss_seen", "oscillation_leading_share")


def test_at_the_edge_of_a_quadratic_all_of_it_is_in_the_first_mode():
    """ηλ_1/N = 2 keeps v_1 going; the other modes have settled. The gap is the difference of losses, to 1e-10."""
    rng = np.random.default_rng(0)
    jacobian, y = rng.standard_normal((6, 4)), rng.standard_normal(6)
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    f, course = np.zeros(6), []
    for _ in range(400):
        f = f - 2 / values[-1] * jacobian @ jacobian.T @ (f - y)
        course.append(f[:, None])
    triple = Triple(*course[-3:])
    target = y[:, None]
    gap = np.mean((course[-1] - target) ** 2) / 2 - np.mean((triple.mean - target) ** 2) / 2
    assert predicted_excess("half_mse", triple) == pytest.approx(gap, rel=1e-10)
    assert seen_excess("half_mse", triple, target) == pytest.approx(gap, rel=1e-10)
    np.testing.assert_allclose(mode_shares(vectors[:, ::-1], triple.delta), [1, 0, 0, 0, 0], atol=1e-10)


@pytest.mark.parametrize(("loss", "tolerance"), [("half_mse", 1e-10), ("mse", 1e-10), ("cross_entropy", 1e-3)])
def test_seen_is_predicted_whatever_drifts(loss, tolerance):
    """Law: exact for squares. Of cross-entropy what is left is of third order, swing times drift²."""
    rng = np.random.default_rng(1)
    mean, swing, drift = (scale * rng.standard_normal((6, 3)) for scale in (1, 1e-2, 2e-2))
    y = np.eye(3)[rng.integers(0, 3, 6)]
    triple = Triple(mean - swing - drift, mean + swing, mean - swing + drift)
    np.testing.assert_allclose(triple.drift, drift, atol=1e-15)
    np.testing.assert_allclose(triple.delta, swing, atol=1e-15)
    seen, predicted = seen_excess(loss, triple, y), predicted_excess(loss, triple)
    assert seen == pytest.approx(predicted, rel=tolerance)
    # negative control: without the drift's part it is not
    before, now, after = (mean_loss(loss, f, y) for f in (triple.before, triple.now, triple.after))
    assert (before + 2 * now + after) / 4 - mean_loss(loss, triple.mean, y) > 1.2 * predicted


def test_points_of_a_cross_entropy_weigh_as_much_as_their_targets_sum_to():
    """Soft targets, and points without any (masked). What is left is of third order, swing times drift²: 1e-4 of it.

    Negative control: without the weights.
    """
    rng = np.random.default_rng(2)
    mean, swing, drift = (scale * rng.standard_normal((6, 3)) for scale in (1, 1e-2, 1e-3))
    y = rng.random((6, 3)) * np.array([[0], [0], [1], [2], [3], [4]])
    triple = Triple(mean - swing - drift, mean + swing, mean - swing + drift)
    seen = seen_excess("cross_entropy", triple, y)
    assert seen == pytest.approx(predicted_excess("cross_entropy", triple, y), rel=1e-3)
    assert abs(predicted_excess("cross_entropy", triple) / seen - 1) > 0.1


def test_shares_do_not_depend_on_the_basis_of_equal_eigenvalues():
    """Law: a rotation inside the cluster of modes 4 to 7, which the fifth cuts, changes nothing; its shares are alike."""
    rng = np.random.default_rng(3)
    vectors, delta = np.linalg.qr(rng.standard_normal((9, 9)))[0], rng.standard_normal((9, 1))
    turned = vectors.copy()
    turned[:, 3:7] = vectors[:, 3:7] @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    ends = np.array([1, 2, 3, 7, 8, 9])
    found, other = (mode_shares(v, delta, ends) for v in (vectors, turned))
    np.testing.assert_allclose(found, other, rtol=1e-12)
    squares = ((vectors.T @ delta) ** 2)[:, 0] / np.sum(delta**2)
    np.testing.assert_allclose(found, [*squares[:3], *[squares[3:7].mean()] * 2], rtol=1e-12)
    assert abs(mode_shares(vectors, delta).sum() / mode_shares(turned, delta).sum() - 1) > 1e-3  # negative control
    np.testing.assert_allclose(mode_shares(vectors[:, :2], delta, ends), squares[:2], rtol=1e-12)


@pytest.mark.parametrize("loss", ["half_mse", "mse", "cross_entropy"])
def test_the_loss_is_torch_s(loss):
    outputs, y = torch.randn(5, 3).double(), torch.arange(5) % 3
    target = nn.functional.one_hot(y, 3).double()
    expected = {
        "half_mse": ((outputs - target) ** 2).sum() / 10,
        "mse": nn.functional.mse_loss(outputs, target),
        "cross_entropy": nn.functional.cross_entropy(outputs, y),
    }[loss]
    assert mean_loss(loss, outputs.numpy(), target.numpy()) == pytest.approx(float(expected), rel=1e-13)


@pytest.fixture(scope="module", params=["half_mse", "cross_entropy"])
def rows(request, tmp_path_factory):
    """A linear model in triples; the swing is put into its weights by hand, δ = ±XV."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 3).double(), torch.arange(8) % 3
    model = nn.Linear(3, 3).double()
    swing = 0.1 * torch.randn(3, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(None))
    path = tmp_path_factory.mktemp("rows") / "run.h5"
    with kt.Tracker(
        path, model, optimizer, probe=Probe(x, y), loss=request.param, log=False,
        schedule=kt.schedule.Every(4, window=3), observables=["trace", *NAMES],
    ) as tracker:  # fmt: skip
        for t in range(6):
            with tracker.update((x, y)), torch.no_grad():
                optimizer.step()
                model.weight += (-1) ** t * 2 * swing
    with kt.open_archive(path) as archive:
        return request.param, (x @ swing.T).numpy(), list(archive)


def test_the_third_state_of_a_triple_has_it_and_every_other_says_why(rows):
    """Oracle: δ = −XV by construction, so ½ tr(SΣ) by hand. A gauge changes nothing of it."""
    loss, swing, found = rows
    outputs = [row.probes["probe"]["outputs"] for row in found]
    p = np.exp((outputs[0] + outputs[1]) / 2)
    p /= p.sum(axis=1, keepdims=True)
    by_hand = {
        "half_mse": np.sum(swing**2) / 16,
        "cross_entropy": (np.sum(p * swing**2) - np.sum(np.sum(p * swing, axis=1) ** 2)) / 16,
    }[loss]
    third = found[2].probes["probe"]
    assert found[2].step == 2
    assert third["oscillation_loss"] == pytest.approx(by_hand, rel=1e-10)
    assert third["oscillation_loss_seen"] == pytest.approx(by_hand, rel=1e-10 if loss == "half_mse" else 0.02)
    assert 0 < third["oscillation_leading_share"] <= 1
    for row in (found[0], found[1], found[3]):
        assert not {*NAMES} & {k for k, v in row.probes["probe"].items() if np.isfinite(v).any()}
    assert "not the third state of a triple" in found[1].message


def test_a_triple_takes_no_pass_that_it_would_not_take_without(tmp_path):
    """Oracle: counted forward calls of the same run with and without the three numbers."""
    counted = []
    for names in (["trace"], ["trace", *NAMES]):
        torch.manual_seed(0)
        model, x, y = nn.Linear(3, 2).double(), torch.randn(4, 3).double(), torch.randn(4, 2).double()
        calls = []
        model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(None))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with kt.Tracker(
            tmp_path / f"{len(names)}.h5", model, optimizer, probe=Probe(x, y), loss="half_mse", log=False,
            schedule=kt.schedule.Every(4, window=3), observables=names,
        ) as tracker:  # fmt: skip
            for _ in range(4):
                with tracker.update((x, y)):
                    optimizer.zero_grad()
                    ((model(x) - y) ** 2).mean().backward()
                    optimizer.step()
        counted.append(len(calls))
    assert counted[0] == counted[1] > 0
