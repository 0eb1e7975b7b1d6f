"""Real networks beside their linearisations: against functions that are linear, a twin in function space, and Jacobians by hand."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("real-networks")

import image_tasks  # noqa: E402
from image_claims import Runs, beyond_twice_its_error, claims, gap, why_not  # noqa: E402
from image_networks import NETWORKS, build  # noqa: E402
from image_page import figure, page  # noqa: E402
from image_runs import Descent, Watch, compared, linearised, loss_of  # noqa: E402
from image_tasks import task  # noqa: E402
from squares_by_sgd import Task  # noqa: E402

FOLDER = STUDIES / "real-networks"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Trained once."""
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("real-networks"))


@pytest.fixture
def small():
    """A network of one convolution in float64, and a task of 6 points and 3 classes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double().eval()
    x, labels = torch.randn(10, 1, 4, 4, dtype=torch.float64), torch.arange(10) % 3
    y = nn.functional.one_hot(labels, 3).double() - 1 / 3
    return network, Task(x[:6], y[:6], x[6:], labels[6:])


def jacobian(network, x):
    """(N·O, P) by reverse mode, row by row."""
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(network.parameters()), retain_graph=True)])
        for value in network(x).flatten()
    ]
    return torch.stack(rows)


def test_a_network_whose_readout_alone_learns_is_its_own_linearisation(small):
    """f is linear in what is trained: the same numbers to rounding, and no error at θ_T."""
    network, some = small
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    found = compared(network, some, Descent(0.2, 4, epochs=5, level=0.0), seed=0)
    assert found["net"]["epochs"] == 5
    assert found["net"]["loss"] < 0.9
    assert found["net"] == pytest.approx(found["lin"], rel=1e-10)
    assert found["anchored"] < 1e-20


def test_the_error_at_the_network_s_own_end_is_by_its_definition(small):
    """‖J_0(θ_T − θ_0) − (f_T − f_0)‖²/‖f_T − f_0‖² on unseen points, by the Jacobian's rows."""
    network, some = small
    rows, start = jacobian(network, some.unseen).detach(), network(some.unseen).detach().flatten()
    theta = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    found = compared(network, some, Descent(0.2, 4, epochs=4, level=0.0), seed=0)
    step = torch.cat([p.detach().flatten() for p in network.parameters()]) - theta
    moved = network(some.unseen).detach().flatten() - start
    want = (rows @ step - moved).square().sum() / moved.square().sum()
    assert found["anchored"] == pytest.approx(float(want), rel=1e-8)
    assert found["anchored"] > 1e-6


def test_training_the_linearisation_is_heavy_ball_in_function_space(small):
    """Twin: f moves by J v on all points, v ← βv + Jᵀ r of the minibatch; the minibatches are drawn here again."""
    network, some = small
    linear, theta = linearised(network)
    rows, start = jacobian(network, some.x).detach(), network(some.x).detach().flatten()
    learned = Descent(0.2, 4, epochs=3, level=0.0).learn(linear, list(theta.values()), some, seed=5)
    step, velocity = torch.zeros(rows.shape[1], dtype=torch.float64), torch.zeros(rows.shape[1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        for chosen in torch.randperm(6, generator=generator).split(4):
            residual = torch.zeros(6, 3, dtype=torch.float64)
            outputs = (start + rows @ step).reshape(6, 3)
            residual[chosen] = (outputs - some.y)[chosen] / len(chosen)
            velocity = 0.9 * velocity + rows.T @ residual.flatten()
            step = step - 0.2 * velocity
    np.testing.assert_allclose(learned.outputs(some.x).flatten(), (start + rows @ step).numpy(), atol=1e-12)
    assert learned.epochs == 3


def test_training_ends_at_its_level_or_says_that_it_diverged(small):
    network, some = small
    twin = copy.deepcopy(network)
    level = 0.5 * loss_of(network, some)
    learned = Descent(0.1, 6, epochs=500, level=level).learn(network, list(network.parameters()), some, seed=0)
    before = Descent(0.1, 6, epochs=learned.epochs - 1, level=0.0).learn(twin, list(twin.parameters()), some, seed=0)
    assert learned.loss <= level < before.loss
    with pytest.raises(RuntimeError, match="smaller rate"):
        Descent(1e200, 6, epochs=3, level=0.0).learn(twin, list(twin.parameters()), some, seed=0)


def test_the_kernel_s_numbers_are_those_of_jacobians(small):
    """‖ΔJ‖₂ and λ_min by singular values in float64; ‖ΔΘ‖ and cosine of (1/O) Σ_o Θ_oo by the same rows."""
    network, some = small
    watch = Watch(network, some, probe=5, few=3, others=4)
    start = jacobian(network, some.x).detach()
    Descent(0.3, 6, epochs=4, level=0.0).learn(network, list(network.parameters()), some, seed=0)
    now, found = jacobian(network, some.x).detach(), watch.ended(network)
    change, smallest = torch.linalg.svdvals((now - start)[:9])[0], torch.linalg.svdvals(start[:9])[-1]
    assert found["stability"] == pytest.approx(float(3 * change / smallest), rel=1e-8)
    assert found["smallest"] == pytest.approx(float(smallest**2), rel=1e-8)
    old, new = (torch.einsum("nop,mop->nm", *[j.reshape(6, 3, -1)[:5]] * 2) / 3 for j in (start, now))
    assert found["change"] == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-8)
    assert found["cosine"] == pytest.approx(float((new * old).sum() / new.norm() / old.norm()), rel=1e-10)
    cross, within = start.reshape(6, 3, -1)[:5], torch.cat([some.x[:5], some.unseen])
    rows = jacobian(network, within)  # of the trained network
    kernel = torch.einsum("nop,mop->nm", rows.reshape(9, 3, -1), rows.reshape(9, 3, -1)[:5]).detach() / 3
    ridge = 1e-3 * kernel[:5].trace() / 5
    told = kernel[5:] @ torch.linalg.solve(kernel[:5] + ridge * torch.eye(5, dtype=torch.float64), some.y[:5])
    assert found["regressed"][1] == pytest.approx(float((told.argmax(1) == some.labels).double().mean()))
    assert cross.shape[0] == 5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_starts_small_and_scales_with_its_multiplier(name):
    """Samples do not meet: a batch is its rows. Channels double with c, so parameters of inner layers grow fourfold."""
    shape = (16, 3, 32, 32) if name == "WRN-10" else (16, 1, 16, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    network = build(name, 0.25, x, 4, seed=0)
    whole = network(x)
    torch.testing.assert_close(whole[:3], network(x[:3]), rtol=1e-4, atol=1e-6)
    assert whole.std() < 0.3
    sizes = [sum(p.numel() for p in build(name, c, x[:2], 4, seed=0).parameters()) for c in (0.25, 0.5)]
    assert 2.5 < sizes[1] / sizes[0] <= 4.2
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert bool(norms) == (name == "WRN-10")
    for norm in norms[:1]:  # the input of the first one is the first convolution's output
        seen = network[0](x)
        torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_tasks_are_what_their_names_say(monkeypatch):
    """Counts and pixels by hand; the halves of the photographs have other ranges, so a patch says where it is from."""
    pair, ten, permuted, random = (
        task(name, "digits", 40, 30, seed=1) for name in ("pair", "ten", "permuted", "random")
    )
    assert pair.y.shape == (40, 2)
    assert set(pair.labels.tolist()) == {0, 1}
    assert ten.x.shape == (40, 1, 16, 16)
    torch.testing.assert_close(ten.x.flatten(1).norm(dim=1), torch.full((40,), 16.0))
    assert not torch.equal(ten.x, permuted.x)
    for one, other in ((ten.x, permuted.x), (ten.unseen, permuted.unseen)):
        torch.testing.assert_close(one.flatten(1).sort().values, other.flatten(1).sort().values, atol=1e-5, rtol=1e-5)
    gram = [each.x.flatten(1) @ each.x.flatten(1).T for each in (ten, permuted)]
    torch.testing.assert_close(*gram, atol=1e-3, rtol=1e-4)  # one order for all images
    torch.testing.assert_close(ten.x, random.x)
    assert (ten.y.argmax(1) == random.y.argmax(1)).double().mean() < 0.4
    with pytest.raises(ValueError, match="more than"):
        task("pair", "digits", 1000, 30, seed=1)
    rng = np.random.default_rng(0)
    halves = [np.concatenate([rng.random((40, 40, 3)), 5 + rng.random((40, 40, 3))], axis=1) for _ in range(3)]
    monkeypatch.setattr(image_tasks, "photographs", lambda: halves)
    patches = task("patches", "digits", 9, 6, seed=0)
    assert patches.x.max() < patches.unseen.min()
    torch.testing.assert_close(patches.x.std(dim=(0, 2, 3)), torch.ones(3))
    assert patches.labels.tolist() == [0, 1, 2, 0, 1, 2]


def made_up(gaps, stability=(9.0, 3.0, 1.0), chance=0.1):
    """Runs of one network over c = ¼, ½, 1 with these gaps, the same shares for the tasks of the order, and the control."""
    runs = []
    for seed in range(3):
        kinds = [("ten", c, g, s) for c, g, s in zip((0.25, 0.5, 1.0), gaps, stability, strict=True)]
        kinds += [("pair", 1.0, gaps[-1] / 2, 1.0), ("permuted", 1.0, 2 * gaps[-1], 1.0), ("random", 1.0, 0.0, 1.0)]
        for name, c, g, s in kinds:
            lin = chance if name == "random" else 0.5 + 0.001 * seed
            parts = {"net": {"unseen": lin + g, "seen": 1.0}, "lin": {"unseen": lin, "seen": 0.9}}
            still = {"change": s, "anchored": s, "stability": s, "regressed": [0.5, 0.6]}
            runs.append({"network": "LeNet-5", "task": name, "multiplier": c, "seed": seed, **parts, **still})
    return Runs(runs)


def answers(runs):
    return [row.holds for row in claims(runs, test=500)]


def test_each_claim_holds_where_it_should_and_falls_where_it_should():
    """Made-up runs with known gaps: above and shrinking; then negative, growing, stable, and a control that knows."""
    assert answers(made_up((0.3, 0.2, 0.1))) == [True, True, True, True, True, True, None, True]
    assert answers(made_up((0.1, 0.2, 0.3)))[1] is False
    assert answers(made_up((0.1, 0.0, -0.1)))[:3] == [False, True, False]
    assert answers(made_up((0.3, 0.2, 0.1), stability=(0.4, 0.6, 0.49)))[3:6] == [False, False, False]
    assert answers(made_up((0.3, 0.2, 0.1), chance=0.2))[-1] is False
    reasons = list(why_not(made_up((0.1, 0.0, -0.1)), {"harder tasks, larger gaps"}))
    assert len(reasons) == 2
    assert "LeNet-5, ten: 100 → 100 → 100" in reasons[0]
    assert gap(made_up((0.3, 0.2, 0.1)).all[0]) == pytest.approx(30)


def test_a_reason_says_whether_a_slope_rises_or_is_not_known():
    """Made-up runs without noise, whose slopes are what they were made with; and one whose seeds go against each other."""
    key = "the wider, the less the kernel moves"
    (_, rises) = why_not(made_up((0.3, 0.2, 0.1), stability=(1.0, 2.0, 4.0)), {key})
    assert rises.endswith("LeNet-5, ten: it rises.")
    runs = made_up((0.3, 0.2, 0.1))
    for run in runs.all:
        run["change"] = run["multiplier"] ** (run["seed"] - 1)
    (_, unclear) = why_not(runs, {key})
    assert "LeNet-5, ten: the interval holds 0" in unclear


def test_a_gap_counts_beyond_two_standard_errors_and_a_slope_with_its_interval():
    """Means 1 and 1.5 with standard errors 0.577 and 0.289; a slope that one seed of three turns round decides nothing."""
    assert not beyond_twice_its_error(np.array([0.0, 1.0, 2.0]))
    assert beyond_twice_its_error(np.array([1.0, 1.5, 2.0]))
    runs = made_up((0.3, 0.2, 0.1))
    for run in runs.all:
        if run["seed"] == 0 and run["task"] == "ten":
            run["net"] = {"unseen": run["lin"]["unseen"] + 0.4 * run["multiplier"], "seen": 1.0}
    assert answers(runs)[1] is False


def test_the_wider_network_is_the_more_linear_one(smoke):
    runs = Runs.of(smoke)
    narrow, wide = (runs.some(task="ten", multiplier=c)[0] for c in (0.5, 2.0))
    assert all(wide[key] < narrow[key] for key in ("anchored", "change", "stability"))


def test_a_figure_and_a_page_are_made_of_results_alone(smoke, tmp_path):
    figure(smoke, tmp_path / "real.png")
    assert (tmp_path / "real.png").stat().st_size > 10_000
    assert re.search(r"\d of \d claims that can be decided hold", page(smoke))


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
