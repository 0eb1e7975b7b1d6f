"""The study on grokking: against the network in closed form, kernels made of named functions, and permutations."""

import re

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("grokking")

from grok_claims import Runs, by_heart, claims, course, rise, steepest, why_not  # noqa: E402
from grok_page import figure, page  # noqa: E402
from grok_runs import Modes, Table, moment, solution, steps_of  # noqa: E402
from modular_sums import FAMILIES, Quadratic, pairs, shares, solved, targets, waves  # noqa: E402

import kerneltrack as kt  # noqa: E402

FOLDER = STUDIES / "grokking"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Trained once."""
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("grokking"))


@pytest.mark.parametrize(("p", "width"), [(7, 27), (11, 50)])
def test_the_closed_form_computes_the_sums(p, width):
    """Its outputs are the targets, one-hot less 1/p, to the rounding of float32 weights; and ‖W‖² = 2‖V‖²."""
    x, labels = pairs(p)
    network = solved(p, width)
    torch.testing.assert_close(network(x), targets(labels, p), atol=2e-6, rtol=0)
    squares = [float(layer.weight.detach().square().sum()) for layer in (network.hidden, network.readout)]
    assert squares[0] == pytest.approx(2 * squares[1], rel=1e-5)
    assert shares(network(x).detach().double().numpy()) == pytest.approx(np.full(p // 2, 2 / (p - 1)), abs=1e-5)
    with pytest.raises(ValueError, match="need"):
        solved(p, 9 * (p // 2) - 1)


def test_in_the_closed_form_s_kernel_sums_and_differences_come_together():
    """Of 8 modes for each of 5 frequencies: nearly all of the sums, the differences beside them, nothing of a + 2b."""
    found = solution(11, 64, [1, 2, 3, 4, 5])
    assert found["a + b"] > 0.9
    assert found["a − b"] > 0.85
    assert found["a + 2b"] < 1e-6


def test_waves_are_orthonormal_and_follow_their_argument():
    bases = {family: np.concatenate([waves(family, 7, j) for j in (1, 2, 3)], axis=1) for family in FAMILIES}
    gram = np.concatenate(list(bases.values()), axis=1)
    np.testing.assert_allclose(gram.T @ gram, np.eye(24), atol=1e-12)
    at = waves("a + 2b", 7, 3)[7 * 2 + 4]  # a = 2, b = 4
    angle = 2 * np.pi * 3 * (2 + 2 * 4) / 7
    np.testing.assert_allclose(at, np.sqrt(2) / 7 * np.array([np.cos(angle), np.sin(angle)]), atol=1e-12)


def test_energies_are_those_of_a_kernel_made_of_waves():
    """K = 9 BBᵀ + 4 CCᵀ + 1 DDᵀ of sums at 1, sums at 2, differences at 1; inside a pair of equal eigenvalues E is linear."""
    parts = [waves("a + b", 7, 1), waves("a + b", 7, 2), waves("a − b", 7, 1)]
    kernel = sum(value * part @ part.T for value, part in zip((9, 4, 1), parts, strict=True))
    found = Modes.of(kt.eigensystem(kernel), 5)
    energy = found.energy
    assert found.vectors.shape == (49, 6)  # the sixth is equal to the fifth
    assert [energy("a + b", [1], k) for k in (1, 2)] == pytest.approx([0.5, 1.0])
    assert [energy("a + b", [1, 2], k) for k in (2, 3, 4)] == pytest.approx([0.5, 0.75, 1.0])
    assert [energy("a − b", [1], k) for k in (4, 6)] == pytest.approx([0.0, 1.0], abs=1e-10)
    assert energy("a", [1], 6) == pytest.approx(0.0, abs=1e-10)


def test_chance_is_the_mean_over_permutations():
    """4,000 permutations of the pairs; four standard errors. The constant mode holds no wave, the others share: 5 of 48."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(np.column_stack([np.ones(49), rng.standard_normal((49, 9))]))[0]
    basis = np.concatenate([waves("a + b", 7, j) for j in (1, 3)], axis=1)
    drawn = [np.sum((vectors[:, :6].T @ basis[rng.permutation(49)]) ** 2) / 4 for _ in range(4_000)]
    found = Modes(vectors, np.arange(1, 11)).chance("a + b", [1, 3], 6)
    assert found == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / len(drawn) ** 0.5)
    assert found == pytest.approx(5 / 48, rel=1e-10)


def test_the_kernel_of_a_moment_is_that_of_the_quadratic_network():
    """Θ_n,m = α²(⟨h², h'²⟩ + ⟨x, x'⟩ Σ_i 4 h_i h'_i ‖V_i‖²/p) of h = Wx, in float64; alignment by its definition."""
    torch.manual_seed(0)
    table, network = Table.of(5, 0.5, 0), Quadratic(5, 7, scale=3.0)
    w, v, x = (t.detach().double().numpy() for t in (network.hidden.weight, network.readout.weight, table.x))
    h = x @ w.T
    kernel = 9 * (h**2 @ (h**2).T + (x @ x.T) * (4 * (h * np.sum(v**2, axis=0) / 5) @ h.T))
    found, centre = moment(network, table, 6), np.eye(25) - 1 / 25
    y = centre @ table.y.double().numpy()
    aligned = np.sum((centre @ kernel @ centre) * (y @ y.T)) / np.linalg.norm(centre @ kernel @ centre)
    assert found.facts["largest"] == pytest.approx(np.linalg.eigvalsh(kernel)[-1], rel=1e-5)
    assert found.facts["alignment"] == pytest.approx(aligned / np.linalg.norm(y @ y.T), rel=1e-5)
    assert found.modes.vectors.shape == (25, 6)


def test_a_table_is_split_and_scored_by_hand():
    table, random = Table.of(7, 0.4, 1), Table.of(7, 0.4, 1, random=True)
    assert sorted(torch.cat([table.train, table.test]).tolist()) == list(range(49))
    assert len(table.train) == 20
    assert table.labels[7 * 5 + 4] == (5 + 4) % 7
    assert table.x[7 * 5 + 4].nonzero().flatten().tolist() == [5, 7 + 4]
    assert 0 < (table.labels == random.labels).double().mean() < 0.5
    assert table.right(table.y, table.test) == 1.0
    assert table.loss(torch.zeros(49, 7), table.train) == pytest.approx(1.0)
    assert table.loss(2 * table.y, table.test) == pytest.approx(1.0)
    assert steps_of(1_000, 3) == [0, 10, 100, 1_000]


def made_up(energies, *, grokked=(300, 600), drawn=0.1, foreign=0.1):
    """Runs of α = 1 and 4 with these energies of the sums at the steps 0, 10, 100, 1,000; half of the differences beside."""
    runs = []
    for seed in range(2):
        for scale, at, random in ((1.0, grokked[0], False), (4.0, grokked[1], False), (1.0, None, True)):
            rows = []
            for place, (step, value) in enumerate(zip((0, 10, 100, 1_000), energies, strict=True)):
                own = (0.1, 0.1, 0.1, drawn)[place] if random else value
                far = (0.1, 0.1, 0.1, foreign)[place]
                energy = {"a + b": own, "a − b": 0.8 * own, "a": 1.0, "a + 2b": far}
                facts = {"right": [1.0, 0.5], "losses": [0.0, 0.5], "largest": 1.0, "alignment": own, "chance": 0.2}
                rows.append({"step": step, "energy": energy, "permuted": 0.1, **facts})
            numbers = {"used": [1], "learned": 100, "grokked": at, "layers": {"hidden": 0.5}}
            told = {"a + b": 0.9, "a − b": 0.8, "a": 1.0, "a + 2b": 0.0}
            runs.append({"scale": scale, "seed": seed, "random": random, "moments": rows, "solution": told, **numbers})
    return Runs(runs)


def test_each_claim_holds_where_it_should_and_falls_where_it_should():
    """Made-up runs: E jumps between steps 100 and 1,000, so it is steepest at √(100 · 1,000) = 316."""
    good = made_up((0.1, 0.1, 0.2, 0.9))
    assert [row.holds for row in claims(good)] == [True] * 7
    run = good.sums()[0]
    assert steepest(run) == pytest.approx(316.2, abs=0.1)
    assert (by_heart(run), rise(run)) == pytest.approx((0.2, 0.8))
    assert course(run)[2] == 0.2
    assert [row.holds for row in claims(made_up((0.1, 0.1, 0.6, 0.9)))][:2] == [False, False]
    assert next(claims(made_up((0.1, 0.1, 0.2, 0.8)))).holds is False
    assert [row.holds for row in claims(made_up((0.1, 0.1, 0.2, 0.9), grokked=(300, 300)))][2] is False
    assert [row.holds for row in claims(made_up((0.1, 0.1, 0.2, 0.9), grokked=(300, None)))][2] is True
    assert [row.holds for row in claims(made_up((0.1, 0.1, 0.2, 0.15)))][3] is False
    assert [row.holds for row in claims(made_up((0.1, 0.1, 0.2, 0.9), drawn=0.3, foreign=0.3))][5:] == [False, False]
    bad = made_up((0.1, 0.1, 0.6, 0.8), grokked=(300, 300))
    assert len(list(why_not(bad, {row.key for row in claims(bad) if row.holds is False}))) == 3


def test_the_kernel_comes_to_hold_the_sums_and_nothing_without_a_rule(smoke):
    runs = Runs.of(smoke)
    run, drawn = runs.sums()[0], runs.random[0]
    assert run["learned"] < run["grokked"]
    assert course(run)[0] < by_heart(run) < course(run)[-1]
    assert rise(run) > 5 * abs(rise(drawn))


def test_a_figure_and_a_page_are_made_of_results_alone(smoke, tmp_path):
    figure(smoke, tmp_path / "grokking.png")
    assert (tmp_path / "grokking.png").stat().st_size > 10_000
    assert re.search(r"\d of \d claims that can be decided hold", page(smoke))


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
