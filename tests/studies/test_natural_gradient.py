"""The study on natural gradient at smoke size: orderings; its updates against linear algebra; its page against its results."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("natural-gradient")

from natural_claims import Runs, claims, linear_natural  # noqa: E402
from natural_descent import Start, linear_updates, natural, natural_update, plain, residual  # noqa: E402
from natural_page import figure, page  # noqa: E402
from results import Results, collect  # noqa: E402

FOLDER = STUDIES / "natural-gradient"


#: One of the smoke size's two seeds.
SMALL = dataclasses.replace(study.SIZES["smoke"], seeds=1)


@pytest.fixture(
    scope="module",
    params=[SMALL, pytest.param(study.SIZES["smoke"], marks=pytest.mark.nightly)],
    ids=["small", "smoke"],
)
def smoke(request, tmp_path_factory):
    """(results, folder, size), trained once."""
    folder = tmp_path_factory.mktemp("natural-gradient")
    return study.measure("smoke", request.param, folder), folder, request.param


@pytest.fixture
def linear():
    """(model, x, y): twelve samples of a linear model with forty weights, κ about 30."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    torch.manual_seed(1)
    return torch.nn.Linear(40, 1, bias=False, dtype=torch.float64), x, y


def test_natural_gradient_of_a_linear_model_takes_the_same_share_off_every_mode(linear):
    """Closed form: Θ = XXᵀ, r ← (I − ηΘ(Θ + γI)⁻¹) r. 40 updates of condition 30 lose 1e-13 at most."""
    model, x, y = linear
    start, theta = Start.of(*linear), x @ x.T
    ridge = 1e-6 * torch.trace(theta) / 12
    once = torch.eye(12) - 0.25 * torch.linalg.solve(theta + ridge * torch.eye(12), theta, left=False)
    want, r = [], residual(*linear)
    for _ in range(41):
        want.append(float(r.norm()))
        r = once @ r
    path = natural(model, x, y, start, rate=0.25, updates=40, watched=(40,))
    np.testing.assert_allclose(path.norms, want, rtol=1e-10)
    assert path.updates_to() == linear_natural(0.25) == 25
    assert path.constants[0] < 1e-6  # J does not move


def test_a_large_damping_gives_the_direction_of_gradient_descent(linear):
    """γ → ∞: γ Jᵀ(Θ + γI)⁻¹ r → Jᵀ r; the next order is λ_1/γ, about 1e-9, and squared in a cosine."""
    model, x, y = linear
    before, descent = model.weight.detach().clone(), (x.T @ residual(*linear))[None]
    natural_update(model, x, y, 1e9 * float((x @ x.T).trace()) / 12, damping=1e9)
    cosine = torch.nn.functional.cosine_similarity(before - model.weight.detach(), descent).item()
    assert 1 - cosine < 1e-12


def test_the_promise_of_the_kernel_is_what_gradient_descent_of_a_linear_model_needs(linear):
    """Update by update against the sum over modes: the same count. NumPy knows the spectrum of XXᵀ."""
    model, x, y = linear
    start = Start.of(*linear)
    np.testing.assert_allclose(start.values, np.linalg.eigvalsh((x @ x.T).numpy())[::-1], rtol=1e-12)
    path = plain(model, x, y, start, updates=5_000)
    assert path.updates_to() == linear_updates(start) > 25
    assert path.updates_to(0.1) == linear_updates(start, 0.1)


def test_departure_falls_with_width_in_the_lazy_networks_only(smoke):
    """NTK parametrisation: the readout's features freeze as m^−½; μP keeps the order of magnitude."""
    runs = Runs.of(smoke[0])
    lazy, rich = (runs.course(name, runs.departure) for name in ("relu-ntk", "relu-mup"))
    assert lazy.medians[-1] < lazy.medians[0] / 4
    assert rich.medians[-1] > lazy.medians[-1] * 2


def test_natural_gradient_is_fast_where_the_condition_is_broken(smoke):
    rows = {claim.key: claim for claim in claims(Runs.of(smoke[0]))}
    for key in ("the conclusion of the theorem", "its condition does not explain it"):
        assert rows[key].holds, rows[key]


def test_results_survive_the_file_and_finished_runs_are_used_again(smoke, tmp_path):
    results, folder, size = smoke
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert study.measure("smoke", size, folder).runs == results.runs
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == before


def test_other_settings_are_run_anew_and_no_result_is_not_a_number(tmp_path):
    made = []

    def number():
        made.append(1)
        return {"value": float(len(made))}

    for size in (study.SIZES["smoke"], study.SIZES["smoke"], study.SIZES["desk"]):
        results = collect("s", "smoke", size, {"one": number}, tmp_path)
    assert [run["value"] for run in results.runs] == [2.0]
    with pytest.raises(ValueError, match="JSON"):
        collect("s", "smoke", study.SIZES["smoke"], {"nan": lambda: {"value": float("nan")}}, tmp_path)


def test_a_figure_and_a_page_are_made_of_results_alone(smoke, tmp_path):
    figure(smoke[0], tmp_path / "natural.png")
    assert (tmp_path / "natural.png").stat().st_size > 10_000
    text = page(smoke[0])
    if smoke[2] is not SMALL:  # a slope of one seed has no interval
        assert "nan" not in text
        assert re.search(r"\d of 6 claims that can be decided hold", text)
    assert re.search(r"\d of \d claims that can be decided hold", text)


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
