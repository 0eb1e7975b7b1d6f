"""The cost study at smoke size: orderings of FLOPs, never of times; and that torch's counts are put right."""

import pytest
import torch

from tests.studies.study_scripts import script

study = script("fast-ntk")

from fast_costs import counted  # noqa: E402
from fast_networks import Point  # noqa: E402

#: Enough for every ordering: small networks, and few places; a transformer is counted in the smoke size, nightly.
SMALL = study.Size(
    bases=(Point("FCN", 2, 4, 32, 2),),
    axes={"FCN": {"width": (32,), "outputs": (4, 8)}},
    rows=study._fcn_rows(32, (16, 32)),
    corners=study.CORNERS[:1],
    most_products=16,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return study.count(tmp_path_factory.mktemp("fast-ntk"), SMALL)


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """Every count of the smoke size."""
    return study.count(tmp_path_factory.mktemp("fast-ntk"), study.SIZES["smoke"])


def fewest_at_the_bases(found):
    for base in found.bases:
        fewest, dense = (found.at_base(base, method)["flops"] for method in ("structured", "jacobian"))
        assert fewest < dense


def the_order_of_exponents(found):
    """O for products against O² for the Jacobian along the outputs; W against W² along the width, each less what else costs."""
    exponents = {m: found.exponent("FCN, many rows", "width", m) for m in ("structured", "jacobian")}
    assert exponents["structured"] < exponents["jacobian"] - 0.3
    assert found.exponent("FCN", "outputs", "products") < found.exponent("FCN", "outputs", "jacobian") - 0.5


def test_structured_needs_the_fewest_flops_and_the_lowest_exponent(small):
    fewest_at_the_bases(small)
    the_order_of_exponents(small)


@pytest.mark.nightly
def test_the_same_of_the_smoke_size(costs):
    fewest_at_the_bases(costs)
    the_order_of_exponents(costs)


@pytest.mark.nightly
def test_products_win_only_for_few_samples_and_many_outputs(costs):
    products_win_only_there(costs)


def test_products_win_for_one_sample_and_many_outputs(small):
    products_win_only_there(small)


def products_win_only_there(costs):
    for point, by_method in costs.corners.items():
        if by_method["products"]["flops"] < by_method["structured"]["flops"]:
            assert point.outputs > point.width * (1 - 1 / point.samples)


def test_grouped_convolutions_are_counted_right():
    """Forward and both gradients are one cost each. Oracle: 2 · outputs · taps · channels in a group."""
    for groups in (1, 4):
        x, weight = torch.randn(5, 8, 6, 6, requires_grad=True), torch.randn(12, 8 // groups, 3, 3, requires_grad=True)
        forward = 2 * 5 * 12 * 36 * 9 * 8 // groups
        y = torch.nn.functional.conv2d(x, weight, padding=1, groups=groups)
        assert counted(lambda w=weight, x=x, g=groups: torch.nn.functional.conv2d(x, w, padding=1, groups=g)) == forward
        assert counted(y.sum().backward) == 2 * forward


def test_attention_is_counted():
    """Two products of T × T × d for each head. Oracle: 2 · 2 · batch · heads · T² · d."""
    q, k, v = torch.randn(3, 2, 4, 6, 8)
    assert counted(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)) == 2 * 2 * 2 * 4 * 6 * 6 * 8


def test_products_added_in_place_are_counted():
    """Oracle: 2 · rows · columns · depth, for each of a batch."""
    left, right, into = torch.randn(3, 5, 7), torch.randn(3, 7, 2), torch.zeros(3, 5, 2)
    assert counted(lambda: into[0].addmm_(left[0], right[0])) == 2 * 5 * 7 * 2
    assert counted(lambda: into.baddbmm_(left, right)) == 3 * 2 * 5 * 7 * 2


def test_every_method_gives_one_kernel(small):
    """Float64: sums over at most a thousand parameters in another order, 1e-12 of the largest entry."""
    assert max(small.agreement.values()) < 1e-12


@pytest.mark.nightly
def test_the_page_is_written_without_times(costs):
    text = study.page("smoke", costs)
    assert "| structured derivatives against Jacobian contraction |" in text
    assert "Where each wins" not in text
