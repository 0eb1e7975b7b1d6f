"""The width sweep at smoke size: orderings, not numbers; and what the study computes by itself, by closed forms."""

import dataclasses
import re

import numpy as np
import pytest
import torch

import kerneltrack as kt
from kerneltrack import analytic
from kerneltrack.analysis import load
from tests.studies.study_scripts import committed_page_is_of_its_results, script

study = script("width-sweep")

from course import Corrected, Course  # noqa: E402
from deep_limit import SCALINGS, angles_between, interpolated, odd_images, outcome, regression, task  # noqa: E402
from erf_limit import Critical  # noqa: E402
from lazy_limit import Lazy  # noqa: E402
from measured import numbers  # noqa: E402
from results import Results  # noqa: E402
from sweep_results import Deep, Trained  # noqa: E402
from wide_networks import Moved, mlp  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")


#: One of the smoke size's two seeds, and its two outer widths: enough for the order of widths, and not for slopes.
SIZE = dataclasses.replace(study.SIZES["smoke"], seeds=1, widths={"relu-ntk": (16, 256), "relu-mup": (16, 256)})


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    """(results, folder), trained once."""
    folder = tmp_path_factory.mktemp("width-sweep")
    return study.measure("smoke", SIZE, folder), folder


@pytest.fixture(scope="module")
def trained(one_seed):
    return Trained.of(one_seed[0])


@pytest.fixture(scope="module")
def closed(one_seed):
    return Deep.of(one_seed[0])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The trainings of both seeds."""
    return Trained.of(study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("width-sweep")))


def test_the_condition_on_the_jacobian_is_broken_and_breaks_less_with_width(trained):
    for number in ("C' on the trajectory", "C' on the sphere"):
        course = trained.course("relu-ntk", number)
        assert course.values.min() >= 0.5
        assert np.all(np.diff(course.medians) < 0)


def test_exponents_of_one_seed_lie_on_their_side(trained):
    """From the least width to the greatest: the slopes that the two nightly tests below fit, halfway between the closed forms."""

    def exponent(setting, number):
        course = trained.course(setting, number)
        widths = SIZE.widths[setting]
        return np.log(course.medians[-1] / course.medians[0]) / np.log(widths[-1] / widths[0])

    assert exponent("relu-ntk", "neuron RMS") < -0.25 < exponent("relu-ntk", "layer norm") < 0.25
    assert -0.25 < exponent("relu-mup", "neuron RMS") < 0.25 < exponent("relu-mup", "layer norm")
    kernel = exponent("relu-ntk", "‖ΔΘ‖/‖Θ‖")
    assert kernel < exponent("relu-ntk", "‖ΔJ‖/‖J‖") < 0
    assert exponent("relu-mup", "‖ΔΘ‖/‖Θ‖") > kernel / 2


@pytest.mark.nightly
def test_single_neurons_freeze_and_the_layer_does_not(smoke):
    """NTK parametrisation: slopes −½ and 0; μP: 0 and ½. Halfway between tells them apart."""
    slopes = {
        (setting, number): smoke.course(setting, number).slope
        for setting in ("relu-ntk", "relu-mup")
        for number in ("neuron RMS", "layer norm")
    }
    assert slopes["relu-ntk", "neuron RMS"] < -0.25 < slopes["relu-ntk", "layer norm"] < 0.25
    assert -0.25 < slopes["relu-mup", "neuron RMS"] < 0.25 < slopes["relu-mup", "layer norm"]


@pytest.mark.nightly
def test_the_kernel_gets_lazy_faster_than_the_jacobian_except_in_mup(smoke):
    sweep = smoke
    kernel, jacobian = (sweep.course("relu-ntk", number).slope for number in ("‖ΔΘ‖/‖Θ‖", "‖ΔJ‖/‖J‖"))
    assert kernel < jacobian < 0
    assert sweep.course("relu-mup", "‖ΔΘ‖/‖Θ‖").slope > kernel / 2
    bound = sweep.course("relu-ntk", "bound used").values
    assert bound.min() > 0
    assert bound.max() <= 1


def test_finished_archives_are_used_again(one_seed):
    """Where the numbers of a run are gone, and its archive is not."""
    results, folder = one_seed
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    name = "relu-mup-256-seed-0"
    (folder / f"{name}.json").unlink()
    assert study.trainings(folder, SIZE)[name]() in results.runs
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")} == before


def test_the_line_of_infinite_width_has_the_smallest_eigenvalue_of_the_closed_form(one_seed):
    """3‖ΔJ‖₂/√λ_min(Θ_∞) from what an archive holds, ‖ΔJ‖₂ by the observable of that name; stored to six digits."""
    (path,) = one_seed[1].glob("relu-ntk-256-*.h5")
    run = load(path).only
    x = torch.as_tensor(np.array(run.dataset["inputs"].values, dtype=np.float64))
    limit = np.linalg.eigvalsh(analytic.relu_ntk(x, depth=3).numpy())[0]
    change = np.nanmax(run.values("jacobian_change"))
    assert numbers(path)["C' of Θ_∞"] == pytest.approx(3 * change / limit**0.5, rel=1e-5)


def test_only_the_depths_scaling_with_the_data_leaves_an_output(closed):
    for scaled in (closed.scalings["L = n, t = ∞"], closed.scalings["L = n, ηLt = 1"], closed.images["L = n, t = ∞"]):
        spreads, moves = scaled.each("spread"), scaled.changes
        assert spreads[-1] > spreads[0] / 2
        assert moves[-1] < moves[0]
    for lost in ("L = n^1.5, t = ∞", "L = n, ηLt = 4/n"):
        assert np.all(np.diff(closed.scalings[lost].each("spread")) < 0)


def test_the_share_that_an_output_explains_is_that_of_its_residual(closed):
    """1 − ‖(f − f̄) − (y − ȳ)‖²/‖y − ȳ‖² on the test points, of the definition; the page has it from two numbers of its table."""
    problem = task(closed.counts[-1])
    y = problem.truth
    for scaling in SCALINGS[:4]:
        found = outcome(problem, closed.counts[0], scaling)
        left = np.var(found.prediction - y) / np.var(y)
        assert closed.scalings[scaling.name].explained[0] == pytest.approx(1 - left, abs=1e-10)


def test_one_factor_and_two_lanczos_runs_find_what_the_eigensystem_finds():
    """Beside numpy's eigenvalues and the flow at t = ∞: the factor's solution to κ · 1e-15, Lanczos's values to 1e-6."""
    problem = task(60)
    for scaling in SCALINGS[:3]:
        ours, theirs = (solve(problem, 60, scaling) for solve in (regression, outcome))
        np.testing.assert_allclose(ours.prediction, theirs.prediction, rtol=1e-9, atol=1e-9)
        assert ours.condition == pytest.approx(theirs.condition, rel=1e-5)
        assert ours.off_diagonal == pytest.approx(theirs.off_diagonal, abs=1e-9)


def test_images_on_the_sphere_are_centred_of_norm_one_and_enough():
    problem = odd_images("digits", 40, 10)
    np.testing.assert_allclose(np.linalg.norm(np.vstack([problem.train, problem.test]), axis=1), 1)
    assert set(problem.targets) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="1,797 images; 1,790 to train on and 10 to test"):
        odd_images("digits", 1790, 10)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_corrected_fit_finds_the_exponent_that_finite_widths_hide(factor):
    """q = m^−½ (1 + b m^−½), planted, with a scatter of 2 %: the plain slope refutes −½, the corrected one holds it and refutes
    −0.3; without a scatter it is −½ to what its two grids leave. A pure m^−0.35 is refuted as −½."""
    widths = np.repeat([32.0, 64, 128, 256, 512, 1024], 6)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(widths)))
    exact = widths**-0.5 * (1 + (factor - 1) * (32 / widths) ** 0.5)
    clean = Corrected.of(widths, exact)
    assert clean.exponent == pytest.approx(-0.5, abs=0.01)
    assert clean.factor == pytest.approx(factor, rel=0.03)
    course = Course(widths, exact * noise)
    assert not course.interval[0] <= -0.5 <= course.interval[1]
    assert course.limit(-0.5)
    assert course.limit(-0.3) is False
    assert Course(widths, widths**-0.35 * noise).limit(-0.5) is False


def test_what_the_runs_cannot_tell_is_not_decided():
    """Three runs have no freedom left for three numbers; a scatter of a factor of two leaves an interval of everything."""
    widths = np.array([32.0, 128, 512])
    assert Corrected.of(widths, widths**-0.5).interval == (-np.inf, np.inf)
    assert Course(widths, widths**-0.5).limit(-0.5) is None
    noise = np.exp(0.7 * np.random.default_rng(1).standard_normal(6))
    assert Course(np.repeat(widths, 2), np.repeat(widths, 2) ** -0.5 * noise).limit(-0.5) is None


def test_deep_networks_of_erf_tend_to_a_third_on_the_critical_line_and_to_nothing_without_biases():
    """The line by its two equations; two weight layers by hand; the limit (p − 1)/(2p − 1) at p = 2 within its log L/L."""
    line = Critical.of(0.1)
    q = line.size
    size, slopes = (float(found) for found in analytic.dual_pair(q, q, q, activation="erf"))
    assert line.weight * slopes == pytest.approx(1, rel=1e-12)
    assert line.weight * size + 0.1 == pytest.approx(q, rel=1e-10)
    mixed, gate = (float(found) for found in analytic.dual_pair(q, q, q / 2, activation="erf"))
    two = line.weight * mixed + 0.1 + line.weight * gate * q / 2
    assert line.ratio(0.5, 2) == pytest.approx(two / (2 * q), rel=1e-10)
    assert line.ratio(0.0, 400) == pytest.approx(1 / 3, abs=0.01)
    assert Critical.of(0.0).weight == pytest.approx(np.pi / 4)
    assert Critical.of(0.0).ratio(0.7, 400) - Critical.of(0.0).ratio(0.3, 400) > 0.3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_neurons_of_wide_networks_go_as_far_as_the_lazy_limit_says(activation):
    """Networks of width 512 trained on four points, four seeds of either parametrisation: within a fifth, over seeds of f_0 and a
    width at which Δh is 10 % of h. Without the first layer, which standard parametrisation leaves behind, it is a third less."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, y = x / x.norm(dim=1, keepdim=True) * 3**0.5, torch.tensor([3.0, -3, 3, -3], dtype=torch.float64)
    said, found = {}, {}
    for parametrisation in ("ntk", "standard"):
        said[parametrisation] = Lazy(x, y, activation, parametrisation, 12).deviation(512)
        squares = []
        for seed in range(4):
            torch.manual_seed(seed)
            network = mlp(parametrisation, activation, 512, 3).double()
            rate = len(x) / (2 * float(torch.linalg.eigvalsh(kt.empirical_ntk(network, x)[..., 0, 0])[-1]))
            descent, start = torch.optim.SGD(network.parameters(), lr=rate), network[:3](x).detach()
            for _ in range(12):
                descent.zero_grad()
                ((network(x)[:, 0] - y).square().mean() / 2).backward()
                descent.step()
            squares.append((network[:3](x) - start).square().mean().item())
        found[parametrisation] = np.mean(squares) ** 0.5
    assert found["ntk"] == pytest.approx(said["ntk"], rel=0.2)
    assert found["standard"] == pytest.approx(said["standard"], rel=0.2)
    assert found["standard"] < 0.8 * said["ntk"]


@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
@pytest.mark.parametrize(("y", "steps"), [(0.0, 1), (3.0, 1), (3.0, 12)])
def test_neurons_of_relu_on_one_point_go_as_far_as_by_hand(parametrisation, y, steps):
    """One point of |x|²/d = 1: Σ = 2 in every layer, and so is each layer's part of Θ; half of the gates are open.

        E[S²] = ((1 − 2^−T)/K)² (2 + y²),   K = 2r + 4s,   m E[Δh²] = E[S²] ((2r + 2s)² + (2r)² · 4 p),   p = ½.

    p is the share of open gates among 2000, of standard deviation 0.011; 5 of them are less than 0.06 of p's term, and this one at
    most half of all: 0.015 of the root.
    """
    width, inputs = 512, 3
    r, s = (1.0, 1.0) if parametrisation == "ntk" else (inputs / 2, width / 2)
    squares = ((1 - 2.0**-steps) / (2 * r + 4 * s)) ** 2 * (2 + y**2)
    expected = (squares * ((2 * r + 2 * s) ** 2 + (2 * r) ** 2 * 4 / 2) / width) ** 0.5
    x = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    said = Lazy(x, torch.tensor([y], dtype=torch.float64), "relu", parametrisation, steps).deviation(width)
    assert said == pytest.approx(expected, rel=0.015)


def test_the_moved_network_has_the_kernel_of_the_change_of_the_jacobian():
    """ΔJ ΔJᵀ against plain autograd's Jacobians at both points, float64: equal to rounding."""
    torch.manual_seed(0)
    network, x = mlp("ntk", "relu", 8, 5).double(), torch.randn(6, 5, dtype=torch.float64)
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    point = {name: value + 0.3 * torch.randn_like(value) for name, value in start.items()}

    def rows(at):
        found = torch.func.jacrev(lambda p: torch.func.functional_call(network, p, x)[:, 0])(at)
        return torch.cat([found[name].flatten(1) for name in start], dim=1)

    change = rows(point) - rows(start)
    kernel = kt.empirical_ntk(Moved(network, start, point), x)[..., 0, 0]
    torch.testing.assert_close(kernel, change @ change.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_ntk_and_standard_networks_are_one_function_at_the_start(activation):
    """The same draws give the same outputs; μP's are smaller by √m. Oracle: the table of the parametrisations."""
    outputs = {}
    for parametrisation in ("ntk", "standard", "mup"):
        torch.manual_seed(0)
        network = mlp(parametrisation, activation, 16, 5).double()
        outputs[parametrisation] = network(torch.ones(3, 5, dtype=torch.float64))
    # rounding of float32 draws scaled by std before they became float64
    torch.testing.assert_close(outputs["standard"], outputs["ntk"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs["mup"] * 4, outputs["ntk"], rtol=1e-5, atol=1e-6)


def test_the_interpolated_kernel_is_the_closed_form():
    """Random directions in five dimensions against relu_ntk itself. A spline of 1000 points: 1e-9 is far above its error."""
    x = np.random.default_rng(1).standard_normal((20, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for depth in (2, 40):
        direct = analytic.relu_ntk(torch.from_numpy(x) * 2.5**0.5, depth=depth).numpy() / depth
        np.testing.assert_allclose(interpolated(depth)(angles_between(x, x)), direct, atol=1e-9)


def test_the_page_and_the_figures_are_made_of_results_alone(one_seed, tmp_path):
    results, _ = one_seed
    results.write(tmp_path / "results.json")
    read = Results.read(tmp_path / "results.json")
    text = study.page(read)
    assert text == study.page(results)
    assert text.count("\n| relu-ntk | ") == len(SIZE.widths["relu-ntk"])
    assert re.search(r"matrix of ones .* \*\*no\*\* \|\n", text)  # the claim that the closed form contradicts
    for name, draw in (("width", study.width_figure), ("depth", study.depth_figure)):
        draw(read, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_a_run_that_was_cut_off_is_trained_again(tmp_path):
    """Oracle: the last step. What a run leaves that was stopped is an archive like another."""
    few = {"samples": 8, "directions": 1}
    setting = study.SETTINGS["relu-ntk"]
    for steps in (16, 32):
        path = study.run(tmp_path, setting, 16, 0, steps=steps, **few)
        with kt.open_archive(path) as archive:
            assert archive.steps[-1] == steps
    changed = path.stat().st_mtime_ns
    assert study.run(tmp_path, setting, 16, 0, steps=32, **few).stat().st_mtime_ns == changed


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results("width-sweep", study.page)
