"""The study on bandits: its loop against LinUCB, its network against torch and the library's kernel, its page."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tests.studies.study_scripts import committed_page_is_of_its_results, made_of_results_alone, script

study = script("bandits")

from arm_network import ArmNetwork, Tangents  # noqa: E402
from bandit_claims import OTHERS, Runs, beaten, claims, explored, interval, why_not  # noqa: E402
from bandit_page import figure, page  # noqa: E402
from bandit_runs import Plan, at_random, best, needed, play, refit, unseen  # noqa: E402
from bandit_tasks import TASKS, Task  # noqa: E402
from confidence import Diagonal, Full  # noqa: E402
from strategies import EVIDENCE, GREEDY, STRATEGIES, THEORY, Moment, Strategy, constant, infinite, prescribed  # noqa: E402
from wide_networks import Layer  # noqa: E402

import kerneltrack as kt  # noqa: E402
from kerneltrack import regression  # noqa: E402

PLAN = Plan(12, 12, (6, 6))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("bandits"))


@pytest.fixture
def task():
    """Thirty contexts in four dimensions, three arms."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4))
    return Task(x / np.linalg.norm(x, axis=1, keepdims=True), rng.integers(0, 3, 30), 3)


@pytest.fixture
def learned(task):
    """(network, contexts, arms) after some updates, so that its mirrored halves are no mirrors any more."""
    network, arms = ArmNetwork(3, 4, 8, seed=1), np.arange(9) % 3
    network.learn(task.x[:9], arms, np.ones(9), ridge=0.1, rate=0.05, updates=20)
    return network, task.x[:9], arms


class Linear:
    """f(x, k) = ⟨w_k, x⟩, learned to the end: ridge regression by the normal equations of each arm."""

    width, updates = 4, 0

    def __init__(self, arms, inputs):
        self.w = np.zeros((arms, inputs))

    def look(self, x, arms):
        n = len(x)
        return np.einsum("ij,ij->i", x, self.w[arms]), Tangents(x, arms, np.ones((n, 1)), np.zeros((n, 0)))

    def learn(self, x, arms, rewards, *, ridge, rate, updates):
        for arm in np.unique(arms):
            rows = arms == arm
            design = x[rows].T @ x[rows] + ridge * np.eye(x.shape[1])
            self.w[arm] = np.linalg.solve(design, x[rows].T @ rewards[rows])


def linucb(task, rounds, ridge, alpha, seed):
    """Li et al. 2010 on e_k ⊗ x, brute: A and its explicit inverse in all Kd dimensions, every arm scored alone."""
    rng, size = np.random.default_rng(seed), task.arms * task.x.shape[1]
    a, b, arms, scored = ridge * np.eye(size), np.zeros(size), [], []
    for t in range(rounds):
        inverse = np.linalg.inv(a)
        features = [np.kron(np.eye(task.arms)[k], task.x[t]) for k in range(task.arms)]
        scores = np.array([z @ inverse @ b + alpha * np.sqrt(z @ inverse @ z) for z in features])
        arm = int(rng.choice(np.flatnonzero(scores >= scores.max() - 1e-6 * abs(scores).max())))
        a, b = a + np.outer(features[arm], features[arm]), b + features[arm] * (arm == task.labels[t])
        arms.append(arm)
        scored.append(scores)
    return arms, scored, np.linalg.slogdet(a / ridge)[1]


def test_a_linear_model_plays_linucb(task):
    """The same arms, and in the end the same widths and ln det to 1e-10; with λ = 0.5, and two γ."""
    for alpha in (0.3, 2.0):
        confidence = Full(0.5, 30)
        course = play(task, Linear(3, 4), confidence, Strategy(constant(alpha), 0.5), Plan(29, 29, (1, 1)), seed=3)
        arms, scored, log_determinant = linucb(task, 30, 0.5, alpha, seed=3)
        assert course.arms == arms[:29]
        assert sum(1 - r for r in course.rewards) == pytest.approx(
            sum(a != y for a, y in zip(arms[:29], task.labels, strict=False)), abs=1e-10
        )
        linear = Linear(3, 4)
        linear.learn(task.x[:29], np.array(arms[:29]), np.array(course.rewards), ridge=0.5, rate=0, updates=0)
        values, tangents = linear.look(np.repeat(task.x[29:], 3, axis=0), np.arange(3))
        np.testing.assert_allclose(values + alpha * confidence.widths(tangents), scored[29], rtol=1e-10)
        confidence.add(arms[29])
        assert confidence.log_determinant == pytest.approx(log_determinant, rel=1e-10)


def test_the_kernel_and_the_outputs_are_those_of_the_dense_network(learned):
    """Layers of the other studies on e_k ⊗ x, with the same weights; the kernel is the library's."""
    network, x, arms = learned
    dense = torch.nn.Sequential(Layer(12, 8, 1.0, 1.0), torch.nn.ReLU(), Layer(8, 1, (2 / 8) ** 0.5, 1.0)).double()
    with torch.no_grad():
        dense[0].weight.copy_(torch.tensor(network.first).permute(1, 0, 2).reshape(8, 12))
        dense[2].weight.copy_(torch.tensor(network.readout)[None])
    joint = torch.tensor(np.stack([np.kron(np.eye(3)[arm], each) for arm, each in zip(arms, x, strict=True)]))
    values, tangents = network.look(x, arms)
    np.testing.assert_allclose(values, dense(joint).detach().numpy()[:, 0], rtol=1e-12)
    theta = kt.empirical_ntk(dense, joint)[:, :, 0, 0].numpy()
    np.testing.assert_allclose(tangents.kernel(tangents), theta, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tangents.squares, np.diag(theta), rtol=1e-10)


def test_learning_is_torchs_momentum_on_the_loss_with_its_ridge(task):
    """torch.optim.SGD with momentum 0.9 on ½ Σ (f − y)² + ½ λ‖θ − θ_0‖²; an arm without data stays."""
    network, x, arms, y = ArmNetwork(3, 4, 8, seed=1), task.x[:5], np.array([0, 1, 0, 1, 1]), np.arange(5) / 3
    assert not network.look(x, arms)[0].any() or np.abs(network.look(x, arms)[0]).max() < 1e-15
    first, readout = (torch.tensor(part, requires_grad=True) for part in network.start)
    optimizer = torch.optim.SGD([first, readout], lr=0.03, momentum=0.9)
    for _ in range(7):
        before = torch.einsum("nmd,nd->nm", first[torch.tensor(arms)], torch.tensor(x))
        outputs = 0.5 * before.relu() @ readout
        away = (first - torch.tensor(network.start[0])).square().sum() + (
            readout - torch.tensor(network.start[1])
        ).square().sum()
        optimizer.zero_grad()
        (0.5 * (outputs - torch.tensor(y)).square().sum() + 0.5 * 0.2 * away).backward()
        optimizer.step()
    network.learn(x, arms, y, ridge=0.2, rate=0.03, updates=3)
    network.learn(x, arms, y, ridge=0.2, rate=0.03, updates=4)
    np.testing.assert_allclose(network.first, first.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(network.readout, readout.detach().numpy(), rtol=1e-12)
    assert network.updates == 7
    np.testing.assert_array_equal(network.first[2], network.start[0][2])
    with pytest.raises(RuntimeError, match="smaller share"), np.errstate(all="ignore"):
        network.learn(x, arms, y, ridge=0.2, rate=1e9, updates=60)


def test_a_factor_that_grew_by_rows_is_a_fresh_one_of_gradients_of_their_own_moments(task):
    """Explicit Jacobian rows, each of its own parameters: Cholesky, s by a dense inverse over weights, ln det."""
    network, confidence, strategy = ArmNetwork(3, 4, 8, seed=1), Full(0.2, 12), Strategy(constant(1.0), 0.2)
    rows, add = [], confidence.add

    def spy(row):
        rows.append(dense_gradients(confidence._rows[0])[row])
        add(row)

    confidence.add = spy
    play(task, network, confidence, strategy, PLAN, seed=0)
    g = np.array(rows)
    np.testing.assert_allclose(confidence.kernel, g @ g.T, atol=1e-12)
    np.testing.assert_allclose(confidence.factor, np.linalg.cholesky(g @ g.T + 0.2 * np.eye(12)), atol=1e-12)
    _, new = network.look(task.x[12:15], np.arange(3))
    want = dense_gradients(new)
    inverse = np.linalg.inv(0.2 * np.eye(g.shape[1]) + g.T @ g)
    np.testing.assert_allclose(confidence.widths(new) ** 2, np.einsum("ni,ij,nj->n", want, inverse, want), rtol=1e-10)
    values = kt.eigensystem(g @ g.T).values
    assert confidence.log_determinant == pytest.approx(2 * regression.information_gain(values, 0.2), rel=1e-10)


def dense_gradients(tangents):
    """(n, P): first layers, then the readout."""
    n, (width, inputs) = len(tangents.x), (tangents.back.shape[1], tangents.x.shape[1])
    first = np.zeros((n, 3, width, inputs))
    for i in range(n):
        first[i, tangents.arms[i]] = np.outer(tangents.back[i], tangents.x[i])
    return np.hstack([first.reshape(n, -1), tangents.hidden])


def test_the_diagonal_is_that_of_the_matrix(learned):
    network, x, arms = learned
    confidence, (_, tangents) = Diagonal(0.1, 3, 4, 8), network.look(x, arms)
    confidence.widths(tangents)
    confidence.add(2)
    confidence.add(4)
    g = dense_gradients(tangents)
    u = 0.1 + g[2] ** 2 + g[4] ** 2
    np.testing.assert_allclose(confidence.widths(tangents), np.sqrt(np.sum(g**2 / u, axis=1)), rtol=1e-12)


def test_evidence_is_a_gaussian_density_and_its_widths_are_the_posteriors(learned):
    """SciPy's density of y − f − J(θ_p − θ) along the search's own line; γs against the library's posterior of Θ/δ and σ²."""
    network, x, arms = learned
    x, arms = np.vstack([x, x]), np.tile(arms, 2)  # each twice, with other rewards: so there is noise
    (values, tangents), y = network.look(x, arms), np.array([1.0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    g = dense_gradients(tangents)
    theta = np.r_[network.first.reshape(-1), network.readout]
    start = np.r_[network.start[0].reshape(-1), network.start[1]]
    for centre, away in (("zero", theta), ("start", theta - start)):
        np.testing.assert_allclose(network.prior_mean(values, tangents, centre), values - g @ away, atol=1e-12)
        confidence = Full(1.0, 18)
        for row in range(18):
            confidence.widths(tangents)
            confidence.add(row)
        ridge, noise = refit(network, confidence, centre, (x, arms, y))
        residual, precision = y - values + g @ away, ridge / noise
        assert noise > 0.01

        def density(noise, precision, residual=residual):
            return multivariate_normal.logpdf(residual, cov=g @ g.T / precision + noise * np.eye(18))

        pairs = kt.eigensystem(g @ g.T)
        told = regression.log_evidence(pairs, residual[:, None], noise=noise, precision=precision)
        assert told == pytest.approx(density(noise, precision), rel=1e-8)
        for a, b in itertools.product((0.5, 1.0, 2.0), repeat=2):
            assert density(noise * a, precision * b) <= told + 1e-6
        _, new = network.look(x[:2], np.array([2, 2]))
        cross = new.kernel(tangents)
        found = regression.posterior(cross, new.squares, pairs, y[:, None], noise=noise, precision=precision)
        np.testing.assert_allclose(noise * confidence.widths(new) ** 2, found.variance, rtol=1e-6)
        np.testing.assert_allclose(confidence.factor @ confidence.factor.T, g @ g.T + ridge * np.eye(18), atol=1e-12)
    assert refit(network, confidence, "zero", (x, arms, np.zeros(18))) is None


def test_without_exploration_it_is_greedy_bit_for_bit(task):
    """A loop that knows nothing of widths: the same arms and the same weights, to the last bit."""
    network, twin, rng, arms = ArmNetwork(3, 4, 8, seed=1), ArmNetwork(3, 4, 8, seed=1), np.random.default_rng(0), []
    course = play(task, network, Full(1.0, 12), STRATEGIES[GREEDY], PLAN, seed=0)
    for t in range(12):
        values, _ = twin.look(np.broadcast_to(task.x[t], (3, 4)), np.arange(3))
        arms.append(int(rng.choice(best(values))))
        x, chosen = task.x[: t + 1], np.array(arms)
        k = twin.look(x, chosen)[1]
        rate = 1 / (np.abs(k.kernel(k)).sum(axis=1).max() + 1.0)
        twin.learn(x, chosen, (chosen == task.labels[: t + 1]) * 1.0, ridge=1.0, rate=rate, updates=6)
    assert course.arms == arms
    assert not any(course.explored)
    np.testing.assert_array_equal(network.first, twin.first)
    np.testing.assert_array_equal(network.readout, twin.readout)


def test_the_prescription_by_hand_at_its_start_and_in_infinite_width():
    """The formula written out in numbers at t = 3, m = 64, λ = 1, L = 2, p = 1/20; at t = 0; and with nothing left of m and J."""
    found = prescribed(Moment(3, 64, 0.7, 10, 1.0, 1.0))
    slack = 0.5 * 4.1588830834**0.5  # 64^(−1/6) √ln 64
    front = (1 + slack * 16 * 3 ** (7 / 6)) ** 0.5 * ((0.7 + slack * 16 * 3 ** (5 / 3) + 5.9914645471) ** 0.5 + 1)
    back = 7 * ((6 / 7) ** 5 * 3**0.5 + slack * 11.313708499 * 3 ** (5 / 3) * (1 + 3**0.5))
    assert found == pytest.approx(front + back, rel=1e-9)
    first = Moment(0, 64, 0.0, 0, 1.0, 1.0)
    assert prescribed(first) == infinite(first) == pytest.approx(5.9914645471**0.5 + 1)
    last = Moment(400, 10**300, 250.0, 10**9, 1.0, 1.0)
    assert prescribed(last) == pytest.approx(infinite(last), rel=1e-9)
    log_width = needed(400) * np.log(10)
    assert np.log(16 * 400 ** (7 / 6)) - log_width / 6 + np.log(log_width) / 2 == pytest.approx(0, abs=1e-9)


def test_contexts_are_of_norm_one_and_drawn_arms_are_right_as_often_as_chance_has_it():
    """1/K within three standard errors, of as many rounds as there are contexts."""
    for name, size in (("digits", 1797), ("breast_cancer", 569)):
        task = TASKS[name]().shuffled(1)
        np.testing.assert_allclose(np.linalg.norm(task.x, axis=1), 1)
        assert sorted(set(task.labels)) == list(range(task.arms))
        share = 1 / task.arms
        assert np.mean(at_random(task, size, 0)) == pytest.approx(share, abs=3 * (share * (1 - share) / size) ** 0.5)
        joint = task.joint(2)
        np.testing.assert_array_equal(joint[task.arms + 1], np.kron(np.eye(task.arms)[1], task.x[1]))


def test_equal_scores_are_equal_but_for_rounding(task):
    assert best(np.array([1e-9, 0.0, -1e-9]) + 1).tolist() == [0, 1, 2]
    assert best(np.array([3.0, 3.0 + 1e-5])).tolist() == [1]
    linear = Linear(3, 4)
    linear.w[1] = 1.0
    right = task.labels[20:] == np.where(task.x[20:].sum(axis=1) > 0, 1, 0)
    assert unseen(task, linear, 20) == right.mean()


def test_what_is_said_of_the_runs_by_hand(smoke):
    """Evidence that beats the prescription in all plays but one; an interval of equal values; a rival that is better."""
    runs = Runs.of(copy.deepcopy(smoke))
    for run in runs.played.all:
        run["regret"] = {THEORY: 21.0, EVIDENCE: 9.0, GREEDY: 6.0}.get(run["strategy"], 12.0)
    assert runs.less("digits", THEORY, EVIDENCE).tolist() == [[50.0, 50.0]]
    assert [(row[0], row[1]) for row in beaten(runs, "digits", (THEORY, GREEDY))] == [(GREEDY, 8), (GREEDY, 16)]
    assert interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0)
    rows = list(claims(runs))
    assert [row.holds for row in rows[1:7]] == [True, True, True, False, True, None]
    assert "greedy at 16 by 12.5 to 12.5 points" in rows[4].measured
    runs.played.some(task="digits", strategy=THEORY, width=8)[0]["regret"] = 8.0
    assert [row.holds for row in claims(runs)][1:4] == [False, False, True]
    assert {THEORY, GREEDY, "ν = 1"} < set(OTHERS)
    assert all(explored(run) == 0 for run in runs.played.some(strategy=GREEDY))
    assert runs.table("digits", THEORY, explored).mean() > 0.5


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    rows = list(claims(Runs.of(smoke)))
    assert len(rows) == 8
    assert len(list(why_not(Runs.of(smoke), {row.key for row in rows}))) == 3


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results("bandits", page)
