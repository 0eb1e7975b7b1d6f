"""The study on alignment and speed: its counts against updates made one by one, its orderings at smoke size, its page."""

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("alignment-speed")

from linear_descent import updates_to  # noqa: E402
from results import Results  # noqa: E402
from speed_claims import claims  # noqa: E402
from speed_page import page  # noqa: E402
from speed_runs import Spectrum, descend  # noqa: E402

FOLDER = STUDIES / "alignment-speed"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("alignment-speed"))


def test_in_a_linear_model_all_ways_are_one():
    """Its kernel never changes: the network's own descent, update by update, needs the updates that the sum over modes says."""
    torch.manual_seed(0)
    x, model = torch.randn(10, 30, dtype=torch.float64), torch.nn.Linear(30, 1, bias=False, dtype=torch.float64)
    y, levels = torch.randn(10, 1, dtype=torch.float64), (0.5, 0.2, 0.1)
    residual = (model(x) - y).detach()[:, 0].numpy()
    before = Spectrum.of(model, x, residual)
    np.testing.assert_allclose(before.values, np.linalg.eigvalsh((x @ x.T).numpy())[::-1], rtol=1e-12)
    made = descend(model, x, y, rate=before.rate, updates=10_000, levels=levels)
    assert (
        made.reached
        == before.updates(levels, before.rate)
        == Spectrum.of(model, x, residual).updates(levels, before.rate)
    )


def test_counts_are_those_of_updates_one_by_one():
    """Three modes by hand: one at once, one that never counts, one that decides."""
    values, squares = np.array([4.0, 1.0, 0.0]), np.array([5.0, 3.0, 0.1])
    want, r = 0, squares.copy()
    while r.sum() > 0.05 * squares.sum():
        r *= (1 - values / 4) ** 2
        want += 1
    assert updates_to(0.05, values, squares, 0.25) == want > 1


def test_what_never_arrives_and_what_grows_is_refused():
    with pytest.raises(ValueError, match="not reached"):
        updates_to(0.1, np.array([1.0, 0.0]), np.array([1.0, 1.0]), 1.0)
    with pytest.raises(ValueError, match="above 1/λ_1"):
        updates_to(0.1, np.array([1.0, 0.5]), np.array([1.0, 1.0]), 2.5)


def test_a_descent_that_diverges_says_so():
    """A linear model above its bound: the loss grows by (1 − 3)² at each update, above 1,000 after five."""
    x, model = torch.ones(1, 1), torch.nn.Linear(1, 1, bias=False)
    made = descend(model, x, torch.full((1, 1), 5.0), rate=3.0, updates=50, levels=(0.1,))
    assert (made.diverged, made.reached, made.made) == (True, [None], 5)


def test_the_kernel_that_training_made_is_faster_and_a_foreign_one_less_so(smoke):
    (run,) = smoke.runs
    for rate in ("own", "common"):
        kernels = run[f"kernels_{rate}"]
        for start, own, foreign in zip(kernels["start"], kernels["own"], kernels["foreign"], strict=True):
            assert own < foreign < start


def test_the_page_is_made_of_results_alone(smoke, tmp_path):
    smoke.write(tmp_path / "results.json")
    text = page(Results.read(tmp_path / "results.json"))
    assert text == page(smoke)
    assert "nan" not in text
    assert len(list(claims(smoke))) == 4


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
