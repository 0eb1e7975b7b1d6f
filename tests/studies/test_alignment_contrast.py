"""The study on own, frozen and foreign kernels: where they are one, energies by projection, the Hessian, orderings, its page."""

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, script

study = script("alignment-contrast")

from contrast_claims import OUTPUT, claims, lost, shares, why_not  # noqa: E402
from contrast_page import page  # noqa: E402
from contrast_runs import Course, State, _energies, hessian, run  # noqa: E402
from portrait import mlp  # noqa: E402
from results import Results  # noqa: E402

FOLDER = STUDIES / "alignment-contrast"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("alignment-contrast"))


def test_in_a_linear_model_all_kernels_are_one():
    """One weight layer on two inputs: Θ = XXᵀ + 11ᵀ for good, of rank 3, which the output never leaves; ρ = ηλ_1/2N."""
    found = run(0, samples=30, width=4, depth=1, rate=0.1, moments=(3, 9), k=(1, 2, 3))
    for moment in found["moments"]:
        for energies in moment["output"] + moment["target"]:
            np.testing.assert_allclose(energies["own"], energies["frozen"], atol=1e-10)
            np.testing.assert_allclose(energies["own"], energies["foreign"], atol=1e-10)
        assert [energies["own"][2] for energies in moment["output"]] == pytest.approx([1, 1], abs=1e-10)
        # a linear model's Hessian is JᵀJ/N, of the same λ_1
        assert moment["hessian"] == pytest.approx(moment["ratio"], rel=1e-3)


def test_energies_are_those_of_projections_and_states_those_of_plain_descent():
    """Least squares on the leading eigenvectors of JJᵀ, J by autograd row by row; updates by torch's own SGD."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, n, generator=generator, dtype=torch.float64) for n in (2, 1))
    torch.manual_seed(0)
    network, twin = (mlp(2, 8, 3, 1).double() for _ in range(2))
    twin.load_state_dict(network.state_dict())
    course = Course.of(network, x, y, rate=0.1, steps=[2, 3], k=5)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        sgd.zero_grad()
        ((twin(x) - y).square().mean() / 2).backward()
        sgd.step()
    rows = [torch.autograd.grad(twin(x)[i, 0], list(twin.parameters())) for i in range(12)]
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows]).numpy()
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    state, phi = course.states[3], y[:, 0].numpy()
    np.testing.assert_allclose(state.outputs, twin(x)[:, 0].detach().numpy(), rtol=1e-10)
    assert state.largest == pytest.approx(values[-1], rel=1e-10)
    for k, found in zip((1, 5), state.energies(phi, (1, 5)), strict=True):
        basis = vectors[:, -k:]
        left = phi - basis @ np.linalg.lstsq(basis, phi, rcond=None)[0]
        assert found == pytest.approx(1 - left @ left / (phi @ phi), abs=1e-9)


def test_each_kernel_has_its_own_modes_and_a_pair_its_mean():
    """Three kernels whose first modes are the three axes: by hand, the squares of the output's components, and their means."""
    axes, outputs = np.eye(3), [np.sqrt([0.5, 0.3, 0.2]), np.sqrt([0.1, 0.3, 0.6])]
    states = [{t: State(f, axes[:, [i]], 1.0) for t, f in enumerate(outputs)} for i in (0, 2)]
    own, foreign = (Course(np.sqrt([0.4, 0.6, 0.0]), states[i], {}) for i in (0, 1))
    first = State(outputs[0], axes[:, [1]], 1.0)
    found = _energies(own, first, foreign, (0, 1), (1,), of="output")
    assert {name: energy for name, (energy,) in found.items()} == pytest.approx(
        {"own": 0.3, "frozen": 0.3, "foreign": 0.4}
    )
    found = _energies(own, first, foreign, (0, 1), (1,), of="target")
    assert {name: energy for name, (energy,) in found.items()} == pytest.approx(
        {"own": 0.4, "frozen": 0.6, "foreign": 0}
    )


def test_the_hessian_is_that_of_autograd():
    """torch.autograd.functional.hessian of the loss of all parameters in one vector, densely; Lanczos stops at 1e-3."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(9, n, generator=generator, dtype=torch.float64) for n in (2, 1))
    torch.manual_seed(0)
    network = mlp(2, 6, 3, 1).double()
    shapes = {name: value.shape for name, value in network.named_parameters()}

    def loss(flat):
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
        named = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return (torch.func.functional_call(network, named, x) - y).square().mean() / 2

    flat = torch.cat([value.detach().reshape(-1) for value in network.parameters()])
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1].item()
    assert hessian(network, x, y) == pytest.approx(dense, rel=1e-3)


def test_the_own_kernel_holds_more_than_the_frozen_one_once_trained(smoke):
    (found,) = smoke.runs
    last = found["moments"][-1]
    for of in ("output", "target"):
        for energies in last[of]:
            assert all(a > b for a, b in zip(energies["own"], energies["frozen"], strict=True))
            assert all(0 <= e <= 1 + 1e-12 for kind in energies.values() for e in kind)
    assert len(list(claims(smoke))) == 4


def test_losses_and_shares_by_hand(smoke):
    """Two pictures, one moment: the foreign kernel holds as much of the second output at k = 10 alone; shares ½ and ¼."""
    pair = {"own": [0.9, 0.9], "frozen": [0.5, 0.5], "foreign": [0.7, 0.8]}
    other = {"own": [0.9, 0.8], "frozen": [0.5, 0.5], "foreign": [0.8, 0.8]}
    moment = {
        "step": 7,
        "output": [pair, other],
        "target": [pair, other],
        "phase": 0,
        "ratio": [1.1, 1],
        "hessian": [1, 1],
    }
    results = Results(
        "s", "smoke", {**smoke.settings, "moments": [7]}, "c", "m", 1.0, [{"seed": 0, "moments": [moment]}]
    )
    assert lost(results, "output", "frozen") == []
    assert lost(results, "output", "foreign") == [(7, 10)]
    assert shares(results) == pytest.approx([0.5, 0.25])
    rows = list(claims(results))
    assert [row.holds for row in rows] == [False, False, None, True]
    assert "update 7 at k = 10 (1)" in why_not(results, OUTPUT)


def test_the_page_is_made_of_results_alone(smoke, tmp_path):
    smoke.write(tmp_path / "results.json")
    text = page(Results.read(tmp_path / "results.json"))
    assert text == page(smoke)
    assert "nan" not in text


def test_a_state_keeps_the_modes_that_it_is_asked_for():
    network = torch.nn.Linear(2, 1, dtype=torch.float64)
    assert State.of(network, torch.randn(6, 2, dtype=torch.float64), 2).vectors.shape == (6, 2)


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
