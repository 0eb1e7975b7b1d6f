"""The study on forgetting at smoke size: its prediction and its controls against linear models; its page against its results."""

import re

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("continual-learning")

from continual_claims import FALLS, LONG, MOVES, SAME, SHORT, Runs, forgotten, learned, share_forgotten, why_not  # noqa: E402
from continual_page import figure, page  # noqa: E402
from continual_runs import Budget, Learner, Task, follow, foretold, forgetting, learn, overlap, tasks  # noqa: E402
from course import Trend  # noqa: E402
from digit_images import Images  # noqa: E402
from results import share_of  # noqa: E402
from squares_by_sgd import Sgd, mean_kernel, stable_rate  # noqa: E402

FOLDER = STUDIES / "continual-learning"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Trained once."""
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("continual-learning"))


def linear_task(generator, pixels, count=12, inputs=8, outputs=3):
    """Points whose pixels outside a slice are 0, with their own labels."""
    x = torch.zeros(count, inputs, dtype=torch.float64)
    x[:, pixels] = torch.randn(x[:, pixels].shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % outputs
    return Task(x, torch.nn.functional.one_hot(labels, outputs).double() - 1 / outputs, x, labels)


def linear_learner(outputs=3, inputs=8):
    torch.manual_seed(0)
    return Learner(torch.nn.Linear(inputs, outputs, bias=False, dtype=torch.float64))


def test_what_is_foretold_of_a_linear_model_is_what_comes():
    """Θ is the same for ever and the same in every output, so with whole batches the formula is exact."""
    generator = torch.Generator().manual_seed(0)
    first, second = (linear_task(generator, slice(None)) for _ in range(2))
    learner = linear_learner()
    sgd = Sgd(0.5 * stable_rate(mean_kernel(learner.network, first.x)), batch=12)
    learn(learner, first, sgd, Budget(5), generator)
    told, before = foretold(learner, first.x, second, sgd, 9), learner.outputs(first.x)
    assert learn(learner, second, sgd, Budget(9), generator).updates == 9
    change = learner.outputs(first.x) - before
    assert np.abs(change).max() > 0.01
    np.testing.assert_allclose(told, change, atol=1e-10)


def test_tasks_on_other_pixels_share_nothing_and_nothing_is_forgotten():
    """⟨∇f(x_A), ∇f(x_B)⟩ = ⟨x_A, x_B⟩ = 0 in a linear model; on the same points the overlap is 1."""
    generator = torch.Generator().manual_seed(1)
    some = [linear_task(generator, pixels) for pixels in (slice(0, 4), slice(4, 8))]
    learner = linear_learner()
    assert overlap(learner.network, some[0].x, some[1].x) == 0.0
    assert overlap(learner.network, some[0].x, some[0].x) == pytest.approx(1, abs=1e-12)
    sgd = Sgd(0.5 * stable_rate(mean_kernel(learner.network, some[0].x)), batch=4)
    for task in some:
        learn(learner, task, sgd, Budget(20), generator)
        assert learner.accuracy(some[0].x, some[0].labels) > 0.4
    watched = follow(linear_learner(), some, sgd, Budget(20), probe=12, seed=0)
    assert forgetting(np.array(watched["accuracies"])) == 0.0
    assert np.abs(watched["turns_after"]).max() < 1e-4  # a linear model's kernel stands still
    assert watched["largest"][0] == pytest.approx(np.linalg.eigvalsh((some[0].x @ some[0].x.T).numpy())[-1], rel=1e-10)


def test_forgetting_is_from_the_best_that_was_known():
    """By hand: the best on task 1 was 0.9, on task 2 0.8; at the end 0.6 and 0.7 are left."""
    table = np.array([[0.9, 0.1, 0.2], [0.7, 0.8, 0.3], [0.6, 0.7, 0.95]])
    assert forgetting(table) == pytest.approx((0.3 + 0.1) / 2)


def test_a_task_is_left_when_its_budget_is_used():
    generator = torch.Generator().manual_seed(0)
    task = linear_task(generator, slice(None))
    sgd = Sgd(0.5 * stable_rate(mean_kernel(linear_learner().network, task.x)), batch=4)
    assert learn(linear_learner(), task, sgd, Budget(3), generator).updates == 9
    until = learn(linear_learner(), task, sgd, Budget(500, 0.75), generator)
    ends = []
    for state in until.states:
        learner = linear_learner()
        learner.network.load_state_dict(state)
        ends.append(learner.accuracy(task.x, task.labels))
    assert ends[-1] >= 0.75 > max(ends[1:-1], default=0.0)


def test_one_epoch_is_the_textbook_update():
    """torch's own SGD on the mean of ½‖f − y‖² over the whole set: float64 rounding apart, the same weights."""
    task, learner, twin = linear_task(torch.Generator().manual_seed(2), slice(None)), linear_learner(), linear_learner()
    Sgd(0.1, batch=12).epoch(learner, learner.network.parameters(), task, torch.Generator())
    optimizer = torch.optim.SGD(twin.network.parameters(), lr=0.1)
    (0.5 * (twin(task.x) - task.y).square().sum(dim=1).mean()).backward()
    optimizer.step()
    torch.testing.assert_close(learner.network.weight, twin.network.weight, rtol=1e-13, atol=1e-15)


def test_a_rate_above_the_stable_one_says_so():
    task, learner = linear_task(torch.Generator().manual_seed(2), slice(None)), linear_learner()
    rate = 1e8 * stable_rate(mean_kernel(learner.network, task.x))
    with pytest.raises(RuntimeError, match="diverged; take a smaller rate"):
        learn(learner, task, Sgd(rate, 12), Budget(60), torch.Generator())


def test_tasks_turn_other_images_and_the_same_unseen_ones():
    """A quarter turn is exact: bilinear interpolation meets the pixels. NumPy turns them as well."""
    turning, same = (tasks("digits", order, (0.0, 90.0), 50, 30, seed=3) for order in ("turning", "same"))
    images = Images.load("digits", 3)
    np.testing.assert_allclose(images[:5].rotated(90.0).pixels, np.rot90(images[:5].pixels, axes=(1, 2)), atol=1e-12)
    torch.testing.assert_close(same[0].unseen, same[1].unseen)
    assert not torch.equal(turning[0].unseen, turning[1].unseen)
    torch.testing.assert_close(turning[0].x, same[0].x)
    rows = torch.cat([task.x for task in same])
    assert len(torch.unique(torch.cat([rows, same[0].unseen]), dim=0)) >= 2 * 50 + 30 - 2  # no image twice
    torch.testing.assert_close(rows.norm(dim=1), torch.full((100,), 8.0))
    with pytest.raises(ValueError, match="more than 1797 images"):
        tasks("digits", "same", (0.0, 0.0), 900, 30, seed=0)


def test_the_trend_of_a_line_is_its_slope_and_that_of_two_their_difference():
    table = 7 - 2 * np.log2([[16, 64, 256]] * 3) + np.array([[0.0], [1.0], [5.0]])
    assert Trend.of([table], [16, 64, 256]).slope == pytest.approx(-2)
    both = Trend.of([table, 3 + table / 2], [16, 64, 256])
    assert both.slope == pytest.approx(1)
    assert both.interval == pytest.approx((1, 1))


def test_shares_are_a_partition():
    runs = dict.fromkeys("abcde")
    parts = [share_of(runs, (i, 2)) for i in range(2)]
    assert parts[0] | parts[1] == runs
    assert not parts[0].keys() & parts[1].keys()
    with pytest.raises(ValueError, match="from 0 to N - 1"):
        share_of(runs, (2, 2))


def test_wide_networks_learn_more_and_forget_less_of_a_short_time(smoke):
    runs = Runs.of(smoke)
    kept, known = (runs.table(number, budget="short", order="turning") for number in (forgotten, learned))
    assert kept[0, -1] < kept[0, 0]
    assert known[0, -1] > known[0, 0]
    still = runs.table(forgotten, budget="short", order="same")
    assert still.max() < kept.min()  # no task changes: nothing to forget


def test_reasons_are_tested_by_the_runs():
    """By hand, three seeds: all of F is half of what was learned; long training at 64 and 256 forgets 4 points more a doubling."""

    def run(width, seed, budget):
        right, lost = {16: 0.2, 64: 0.4, 256: 0.8}[width], {16: 0.1, 64: 0.2, 256: 0.4}[width]
        lost += {16: 0.0, 64: 0.0, 256: 0.08}[width] * (budget == "long")
        stay = [40, 9] if width == 16 and budget == "long" else [5, 9]
        facts = {
            "width": width,
            "seed": seed,
            "setting": "ntk",
            "budget": budget,
            "epochs": stay,
            "largest": [1.0, 1.1],
        }
        tables = {"accuracies": [[right, 0.0], [right - lost, right]], "turns_after": [4.0], "turns_before": [2.0]}
        return facts | tables

    plays = [run(w, s, b) | {"order": o} for w in (16, 64, 256) for s in range(3) for b in ("short", "long")
             for o in ("turning", "shuffled", "same")]  # fmt: skip
    assert share_forgotten(plays[0]) == pytest.approx(50)
    learning, early, images, still = why_not(Runs(plays), {SHORT, LONG, MOVES, SAME, FALLS})
    assert "in 0 of 2 cases: ntk, turning: 0.00 [0.00, 0.00]" in learning.replace("−0.00", "0.00")
    assert "40, has not" in early
    assert "in 1 of 1 parametrisations with two such widths: ntk, 64, 256: 4.00 [4.00, 4.00]" in early
    assert "1.00 → 1.00 → 1.00 of what it turns" in images
    assert "9.5 → 9.5 → 9.5 % at a switch, 9.5 → 9.5 → 9.5 % without" in still


def test_a_figure_and_a_page_are_made_of_results_alone(smoke, tmp_path):
    figure(smoke, tmp_path / "continual.png")
    assert (tmp_path / "continual.png").stat().st_size > 10_000
    assert re.search(r"\d of 8 claims that can be decided hold", page(smoke))


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
