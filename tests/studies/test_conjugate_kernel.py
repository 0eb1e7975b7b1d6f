"""The study on conjugate kernels at smoke size: orderings; its machines against linear algebra; its page against its results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, made_of_results_alone, script

study = script("conjugate-kernel")

from conjugate_claims import CONTROL, PART, SMOOTHER, Runs, claims, ratio, why_not  # noqa: E402
from conjugate_page import figure, page  # noqa: E402
from conjugate_runs import Machine, conjugate, gaussian, mlp, tangent, train  # noqa: E402
from conjugate_tasks import TASKS, Task  # noqa: E402

FOLDER = STUDIES / "conjugate-kernel"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("conjugate-kernel"))


@pytest.fixture(scope="module")
def points():
    """Three columns of noise in the place of features, 12 points to train on, 8 that choose and 10 held out."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((30, 3)))
    return Task(x, torch.sign(x[:, :1] + 0.5 * torch.tensor(rng.standard_normal((30, 1)))), (12, 8), "logistic")


def test_where_only_the_readout_trains_the_two_kernels_are_one():
    """Θ over the readout's weights is φφᵀ, and its bias adds 1 to every entry."""
    torch.manual_seed(0)
    network, x = mlp(2, 6), torch.randn(9, 2, dtype=torch.float64)
    own = conjugate(network, x, 5)
    assert own.shape == (9, 5)
    np.testing.assert_allclose(tangent(network, x, 5, ["6.weight"]), own, rtol=1e-12)
    np.testing.assert_allclose(tangent(network, x, 5, ["6.weight", "6.bias"]), own + 1, rtol=1e-12)
    rest = np.linalg.eigvalsh(tangent(network, x, 9) - conjugate(network, x, 9) - 1)
    assert rest[0] > -1e-12 * rest[-1]
    assert rest[-1] > 0.1


def test_squares_are_ridge_regression_on_the_features(points):
    """NumPy's normal equations in the three weights, γ = 0.1 tr K/N."""
    task = replace(points, loss="squares")
    x, y = task.x.numpy(), task.y.numpy()
    ridge = 0.1 * np.sum(x[:12] ** 2) / 12
    weights = np.linalg.solve(x[:12].T @ x[:12] + ridge * np.eye(3), x[:12].T @ y[:12])
    np.testing.assert_allclose(Machine.of(x @ x[:12].T, task).outputs(task, 0.1), x @ weights, rtol=1e-9)


def test_the_logistic_machine_is_logistic_regression_on_the_features(points):
    """SciPy's BFGS on the mean of ln(1 + e^(−yf)) + (γ/4)‖w‖²: f = √2 z, so ½γ‖w/√2‖² is the penalty."""
    x, y = points.x.numpy(), points.y.numpy()[:, 0]
    ridge = 0.1 * np.sum(x[:12] ** 2) / 12 / 12

    def objective(w):
        return np.mean(np.logaddexp(0, -y[:12] * (x[:12] @ w))) + ridge / 4 * w @ w

    weights = minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(Machine.of(x @ x[:12].T, points).outputs(points, 0.1)[:, 0], x @ weights, atol=1e-6)


def test_a_ridge_is_chosen_by_its_own_points_and_judged_by_others(points):
    """Other targets of held-out points change the loss and not the ridge; of points that choose, the ridge."""
    machine = Machine.of((points.x @ points.x[:12].T).numpy(), points)
    loss, ridge = machine.best(points)
    flipped = {part: points.y.clone() for part in ("held_out", "choosing")}
    for part, y in flipped.items():
        y[getattr(points, part)] *= -1
    other = machine.best(replace(points, y=flipped["held_out"]))
    assert other[1] == ridge
    assert other[0] > loss
    assert machine.best(replace(points, y=flipped["choosing"]))[1] > ridge


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_other_points_for_every_purpose_and_seed(name):
    task, other = (TASKS[name](20, 30, seed, "digits") for seed in (0, 1))
    assert len(task.x) == len(task.y) == 70
    assert len(task.x[task.train]) == len(task.x[task.choosing]) == 20
    assert len(torch.unique(task.x, dim=0)) == 70
    assert not torch.equal(task.y, other.y)
    if task.loss == "logistic":
        assert set(task.y.ravel().tolist()) == {-1.0, 1.0}
    else:
        x, power = task.x.numpy(), {"|x|": 1, "|x|³": 3, "|x|⁵": 5}[name]
        np.testing.assert_allclose(task.y.numpy(), np.sin(2 * np.pi * x) + np.abs(x) ** power)


def test_the_gaussian_has_the_median_distance_for_its_scale():
    """By hand: points 0, 1, 4 have distances 1, 3, 4, whose median is 3."""
    x = torch.tensor([[0.0], [1.0], [4.0]], dtype=torch.float64)
    np.testing.assert_allclose(gaussian(x, 3)[0], [1, np.exp(-1 / 18), np.exp(-16 / 18)])


def test_training_is_adams_and_stops_where_kernels_are_taken(points):
    """torch's Adam on the same loss, update by update."""
    torch.manual_seed(0)
    network = mlp(3, 4)
    twin = mlp(3, 4)
    twin.load_state_dict(network.state_dict())
    optimizer, x, y = torch.optim.Adam(twin.parameters(), lr=0.01), points.x[:12], points.y[:12]
    for moment in train(network, points, (0, 3), 0.01):
        for _ in range(moment):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(twin(x), (1 + y) / 2).backward()
            optimizer.step()
        torch.testing.assert_close(network[0].weight, twin[0].weight, rtol=1e-9, atol=1e-12)


def test_narrow_last_layers_miss_what_the_tangent_kernel_has(smoke):
    """Eight features against some hundred parameters: at the start Θ foretells more, the more so."""
    runs = Runs.of(smoke)
    for task in runs.tasks:
        narrow, wide = (runs.values(ratio, task, width, 0)[0] for width in runs.widths)
        assert narrow > 1
        assert narrow > wide
    rows = {row.key: row for row in claims(runs)}
    assert all(rows[key].holds for key in (SMOOTHER, PART, CONTROL))


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    rows = list(claims(Runs.of(smoke)))
    assert len(rows) == 6
    assert len(list(why_not(Runs.of(smoke), {row.key for row in rows}))) == 4


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
