"""The study on biased gates at smoke size: orderings; its descent against linear algebra; its page against its results."""

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, made_of_results_alone, script

study = script("biased-ntk")

from biased_claims import CONTROL, EIGENVALUE, SPARSELY, START, Runs, claims, departure, late, off_chance, why_not  # noqa: E402
from biased_page import figure, page  # noqa: E402
from biased_runs import Biased, Fixed, descend, points  # noqa: E402
from digit_images import Images  # noqa: E402

FOLDER = STUDIES / "biased-ntk"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("biased-ntk"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Biased(8, 20, 0.5)


def test_the_network_is_the_formula_and_its_readout_is_fixed(network):
    """NumPy, neuron by neuron."""
    x = torch.randn(5, 8, dtype=torch.float64)
    w, b, a = (part.detach().numpy() for part in (network.weight, network.bias, network.readout))
    wanted = [sum(a[r] * max(w[r] @ point - b[r], 0) for r in range(20)) for point in x.numpy()]
    np.testing.assert_allclose(network(x).detach().numpy()[:, 0], wanted, rtol=1e-12)
    assert set(np.round(a * 20**0.5, 12)) == {1.0, -1.0}
    assert (b == 0.5).all()
    assert {name for name, _ in network.named_parameters()} == {"weight", "bias"}


def test_points_keep_the_inner_products_of_the_images():
    """Cosines of centred pixels, whatever the coordinates are; a 1 is +1."""
    x, y = points("digits", 20)
    images = Images.load("digits", 0).only(0, 1)[:20]
    pixels = (images.pixels - images.pixels.mean(axis=0)).reshape(20, -1)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    np.testing.assert_allclose((x @ x.T).numpy(), pixels @ pixels.T, atol=1e-6)
    assert ((y[:, 0].numpy() > 0) == (images.labels == 1)).all()
    with pytest.raises(ValueError, match="than the 360 there are"):
        points("digits", 361)


def test_descent_is_the_textbook_update_and_ends_at_its_level(network):
    """torch's SGD on the mean of ½(f − y)²; gates that are open and that flipped are counted by hand."""
    x, y = points("digits", 8)
    twin = Biased(8, 20, 0.5)
    twin.load_state_dict(network.state_dict())
    first = twin.gates(x) > 0
    watch = descend(network, x, y, 0.05, level=1e-9, most=4)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05 * 8)
    losses = []
    for _ in range(5):
        loss = (twin(x) - y).square().mean() / 2
        losses.append(loss.item())
        if len(losses) < 5:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(network.weight, twin.weight, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(network.bias, twin.bias, rtol=1e-10, atol=1e-13)
    assert watch.updates == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(watch.losses, np.array(losses) / losses[0], rtol=1e-10)
    last = twin.gates(x) > 0
    assert watch.open[-1] == pytest.approx(np.mean(last.numpy()))
    assert watch.dark[0] == np.sum(~(first.numpy()).any(axis=1))
    assert watch.flipped[-1] == pytest.approx(np.mean(last.numpy() != first.numpy()))
    assert descend(network, x, y, 0.05, level=0.9, most=500).losses[-1] <= 0.9


def test_a_fixed_kernel_foretells_descent_in_function_space():
    """r ← (I − Θ/λ_1) r, update by update; at the end ln loss falls at the rate of the slowest mode."""
    rng = np.random.default_rng(0)
    root, r = rng.standard_normal((6, 9)), rng.standard_normal((6, 1))
    theta = root @ root.T
    fixed = Fixed.of(torch.tensor(theta), torch.tensor(r))
    once, losses = np.eye(6) - theta / np.linalg.eigvalsh(theta)[-1], []
    for _ in range(2_001):
        losses.append(np.sum(r**2))
        r = once @ r
    losses = np.array(losses) / losses[0]
    np.testing.assert_allclose(fixed.losses([0, 1, 7, 60]), losses[[0, 1, 7, 60]], rtol=1e-9)
    assert fixed.updates_to(1e-3) == np.flatnonzero(losses <= 1e-3)[0]
    assert fixed.slowest == pytest.approx(np.log(losses[1_999] / losses[2_000]), rel=1e-6)


def test_a_point_without_an_open_gate_is_never_learned_by_the_fixed_kernel():
    """Its row of the kernel is 0, and its residual stays: half of the loss is left for ever."""
    fixed = Fixed.of(torch.diag(torch.tensor([2.0, 0.0])).double(), torch.ones(2, 1, dtype=torch.float64))
    assert fixed.updates_to(0.4) is None
    assert fixed.updates_to(0.6) == 1
    np.testing.assert_allclose(fixed.losses([0, 1, 50]), [1, 0.5, 0.5])


def test_the_start_has_its_share_and_its_kernel(smoke):
    """Binomial counts; a mean over m neurons falls as m^−½: a fourth over a factor of 16, between an half and an eighth."""
    runs = Runs.of(smoke)
    assert all(abs(off_chance(run)) < 4 for run in runs.all)
    for bias in runs.biases:
        course = runs.course(departure, bias=bias)
        assert 1 / 8 < course.medians[-1] / course.medians[0] < 1 / 2
    rows = {row.key: row for row in claims(runs)}
    assert all(rows[key].holds for key in (SPARSELY, START, EIGENVALUE, CONTROL))


def test_wide_networks_learn_as_their_kernel_says_and_narrow_ones_less_so(smoke):
    runs = Runs.of(smoke)
    off = [np.mean([abs(late(run) - 1) for run in runs.some(width=width)]) for width in (128, 2048)]
    assert off[1] < min(off[0], 0.1)


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    rows = list(claims(Runs.of(smoke)))
    assert len(rows) == 7
    assert len(list(why_not(Runs.of(smoke), {row.key for row in rows}))) == 6


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
