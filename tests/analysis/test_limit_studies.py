"""The studies of the limits of the NTK and of its cost, at smoke size: orderings, not numbers.

Oracles: for the claims, theory's exponents and orderings as the studies derive them; for what the studies compute by
themselves, the kernels, counts and integrals below.
"""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kerneltrack as kt
from kerneltrack import analytic

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
QUIET = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")


@pytest.fixture(scope="module")
def on_path():
    """The folders of the studies, importable while these tests run."""
    before = list(sys.path)
    sys.path[:0] = [str(STUDIES), str(STUDIES / "width-sweep"), str(STUDIES / "fast-ntk")]
    yield
    sys.path[:] = before


def script(name):
    spec = importlib.util.spec_from_file_location(f"study_{name.replace('-', '_')}", STUDIES / name / "study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def widths(on_path, tmp_path_factory):
    """The whole smoke size of the width sweep, trained once."""
    study = script("width-sweep")
    folder = tmp_path_factory.mktemp("width-sweep")
    return (*study.measure(folder, study.SIZES["smoke"]), study, folder)


@pytest.fixture(scope="module")
def costs(on_path, tmp_path_factory):
    """Every count of the smoke size of the cost study."""
    study = script("fast-ntk")
    return study.count(tmp_path_factory.mktemp("fast-ntk"), study.SIZES["smoke"]), study


@QUIET
def test_the_condition_on_the_jacobian_is_broken_and_breaks_less_with_width(widths):
    sweep = widths[0]
    for number in ("C' on the trajectory", "C' on the sphere"):
        course = sweep.course("relu-ntk", number)
        assert course.values.min() >= 0.5
        assert np.all(np.diff(course.medians) < 0)


@QUIET
def test_single_neurons_freeze_and_the_layer_does_not(widths):
    """NTK parametrisation: slopes −½ and 0; μP: 0 and ½. Halfway between tells them apart."""
    slopes = {
        (setting, number): widths[0].course(setting, number).slope
        for setting in ("relu-ntk", "relu-mup") for number in ("neuron RMS", "layer norm")
    }  # fmt: skip
    assert slopes["relu-ntk", "neuron RMS"] < -0.25 < slopes["relu-ntk", "layer norm"] < 0.25
    assert -0.25 < slopes["relu-mup", "neuron RMS"] < 0.25 < slopes["relu-mup", "layer norm"]


@QUIET
def test_the_kernel_gets_lazy_faster_than_the_jacobian_except_in_mup(widths):
    sweep = widths[0]
    kernel, jacobian = (sweep.course("relu-ntk", number).slope for number in ("‖ΔΘ‖/‖Θ‖", "‖ΔJ‖/‖J‖"))
    assert kernel < jacobian < 0
    assert sweep.course("relu-mup", "‖ΔΘ‖/‖Θ‖").slope > kernel / 2
    bound = sweep.course("relu-ntk", "bound used").values
    assert bound.min() > 0
    assert bound.max() <= 1


@QUIET
def test_finished_archives_are_used_again(widths):
    *_, study, folder = widths
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    assert {path: path.stat().st_mtime_ns for path in study.trained(folder, study.SIZES["smoke"])} == before


@QUIET
def test_only_the_depths_scaling_with_the_data_leaves_an_output(widths):
    closed = widths[1]
    for kept in ("L = n, t = ∞", "L = n, ηLt = 1"):
        spreads, moves = closed.spreads(kept), closed.instabilities(kept)
        assert spreads[-1] > spreads[0] / 2
        assert moves[-1] < moves[0]
    for lost in ("L = n^1.5, t = ∞", "L = n, ηLt = 4/n"):
        assert np.all(np.diff(closed.spreads(lost)) < 0)


@QUIET
def test_the_pages_are_written_from_what_was_measured(widths, costs, on_path):
    from fast_page import page as cost_page

    sweep, closed, study, _ = widths
    text = study.page("smoke", study.SIZES["smoke"], sweep, closed)
    assert text.count("\n| relu-ntk | ") == len(study.SIZES["smoke"].widths["relu-ntk"])
    assert re.search(r"matrix of ones .* \*\*no\*\* \|\n", text)  # the claim that the closed form contradicts
    assert "| structured derivatives against Jacobian contraction |" in cost_page("smoke", costs[0])


def test_the_moved_network_has_the_kernel_of_the_change_of_the_jacobian(on_path):
    """ΔJ ΔJᵀ against plain autograd's Jacobians at both points, float64: equal to rounding."""
    from wide_networks import Moved, mlp

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
def test_ntk_and_standard_networks_are_one_function_at_the_start(on_path, activation):
    """The same draws give the same outputs; μP's are smaller by √m. Oracle: the table of the parametrisations."""
    from wide_networks import mlp

    outputs = {}
    for parametrisation in ("ntk", "standard", "mup"):
        torch.manual_seed(0)
        network = mlp(parametrisation, activation, 16, 5).double()
        outputs[parametrisation] = network(torch.ones(3, 5, dtype=torch.float64))
    # rounding of float32 draws scaled by std before they became float64
    torch.testing.assert_close(outputs["standard"], outputs["ntk"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs["mup"] * 4, outputs["ntk"], rtol=1e-5, atol=1e-6)


def test_the_interpolated_kernel_is_the_closed_form(on_path):
    """Random directions in five dimensions against relu_ntk itself. A spline of 1000 points: 1e-9 is far above its error."""
    from deep_limit import angles_between, interpolated

    x = np.random.default_rng(1).standard_normal((20, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for depth in (2, 40):
        direct = analytic.relu_ntk(torch.from_numpy(x) * 2.5**0.5, depth=depth).numpy() / depth
        np.testing.assert_allclose(interpolated(depth)(angles_between(x, x)), direct, atol=1e-9)


def test_structured_needs_the_fewest_flops_and_the_lowest_exponent(costs):
    found, _ = costs
    for base in found.bases:
        fewest, dense = (found.at_base(base, method)["flops"] for method in ("structured", "jacobian"))
        assert fewest < dense
    exponents = {m: found.exponent("FCN, many rows", "width", m) for m in ("structured", "jacobian")}
    assert exponents["structured"] < exponents["jacobian"] - 0.3
    assert found.exponent("FCN", "outputs", "products") < found.exponent("FCN", "outputs", "jacobian") - 0.5


def test_grouped_convolutions_are_counted_right(on_path):
    """Forward and both gradients are one cost each. Oracle: 2 · outputs · taps · channels in a group."""
    from fast_costs import counted

    for groups in (1, 4):
        x, weight = torch.randn(5, 8, 6, 6, requires_grad=True), torch.randn(12, 8 // groups, 3, 3, requires_grad=True)
        forward = 2 * 5 * 12 * 36 * 9 * 8 // groups
        y = torch.nn.functional.conv2d(x, weight, padding=1, groups=groups)
        assert counted(lambda w=weight, x=x, g=groups: torch.nn.functional.conv2d(x, w, padding=1, groups=g)) == forward
        assert counted(y.sum().backward) == 2 * forward


def test_attention_is_counted(on_path):
    """Two products of T × T × d for each head. Oracle: 2 · 2 · batch · heads · T² · d."""
    from fast_costs import counted

    q, k, v = torch.randn(3, 2, 4, 6, 8)
    assert counted(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)) == 2 * 2 * 2 * 4 * 6 * 6 * 8


def test_products_win_only_for_few_samples_and_many_outputs(costs):
    for point, by_method in costs[0].corners.items():
        if by_method["products"]["flops"] < by_method["structured"]["flops"]:
            assert point.outputs > point.width * (1 - 1 / point.samples)
