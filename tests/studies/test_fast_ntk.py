"""The cost study at smoke size: orderings of FLOPs and of memory, never of times; and that torch's counts are put right."""

import pytest
import torch

from tests.studies.study_scripts import committed_page_is_of_its_results, script

study = script("fast-ntk")

from fast_claims import Costs  # noqa: E402
from fast_costs import Held, counted, times  # noqa: E402
from fast_networks import Point  # noqa: E402
from results import Results  # noqa: E402

#: Enough for every ordering: small networks, and few places; a transformer is counted in the smoke size, nightly.
SMALL = study.Size(
    bases=(Point("FCN", 2, 4, 32, 2),),
    axes={"FCN": {"width": (32,), "outputs": (4, 8)}},
    rows=study._fcn_rows(32, (16, 32)),
    corners=(Point("FCN", 1, 24, 4, 3),),
    most_products=16,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Costs.of(read_again(study.measure("smoke", SMALL, tmp_path_factory.mktemp("fast-ntk")), tmp_path_factory))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Results of the smoke size, as their file has them."""
    folder = tmp_path_factory.mktemp("fast-ntk")
    return read_again(study.measure("smoke", study.SIZES["smoke"], folder), tmp_path_factory)


@pytest.fixture(scope="module")
def costs(smoke):
    return Costs.of(smoke)


def read_again(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("read") / "results.json"
    results.write(path)
    return Results.read(path)


def fewest_at_the_bases(found):
    for base in found.bases:
        fewest, dense = (found.at_base(base, method)["flops"] for method in ("structured", "jacobian"))
        assert fewest < dense


def the_order_of_exponents(found):
    """O for products against O² for the Jacobian along the outputs; W against W² along the width, each less what else costs."""
    for of in ("flops", "bytes"):
        exponents = {m: found.many_rows(m, of) for m in ("structured", "jacobian")}
        assert exponents["structured"] < exponents["jacobian"] - 0.3
    fcn = found.bases[0]
    assert found.exponent(fcn, "outputs", "products") < found.exponent(fcn, "outputs", "jacobian") - 0.5


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
    for point in costs.size.corners:
        few, built = (costs.found[point, method, False]["flops"] for method in ("products", "structured"))
        if few < built:
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


def test_held_memory_is_the_most_that_lives_at_once():
    """By hand, in float32: 400 bytes twice, of which one goes before 800 come; what is there before, and a view, is not counted."""
    there = torch.zeros(1000)

    def call():
        there.mul_(2)
        view = there[10:20]
        a = view.new_ones(100)
        b = a + 1
        del a
        return torch.cat([b, b])

    with Held() as held:
        call()
    assert held.peak == 400 + 800
    with Held() as held:
        torch.func.vmap(lambda v: v * 2)(torch.ones(7, 5))
    assert held.peak == 2 * 4 * 35


def test_times_are_taken_in_turns_on_one_thread():
    """As many of every method; the first turn is not kept."""
    found = times(Point("FCN", 2, 2, 8, 2), ("structured", "jacobian"), turns=2)
    assert {method: len(taken) for method, taken in found["seconds"].items()} == {"structured": 2, "jacobian": 2}
    assert all(taken > 0 for turn in found["seconds"].values() for taken in turn)


def test_every_method_gives_one_kernel(small):
    """Float64: sums over at most a thousand parameters in another order, 1e-12 of the largest entry."""
    assert max(small.agreement.values()) < 1e-12


def timed(results):
    """The same with made-up times of the bases: of each method 1, 2, 3 s … in the order of the methods."""
    bases = study.SIZES["smoke"].bases
    methods = ("structured", "jacobian", "products", "product")
    seconds = {method: [float(i), i + 0.5] for i, method in enumerate(methods, 1)}
    settings = {**results.settings, "places": results.settings["bases"]}
    points = [{"kind": "times", "point": point, "seconds": seconds} for point in results.settings["bases"]]
    symmetric = [
        {**run, "symmetric": True} for run in results.runs if run["kind"] == "cost" and Point(**run["point"]) in bases
    ]
    return Results(**{**vars(results), "settings": settings, "runs": [*results.runs, *symmetric, *points]})


@pytest.mark.nightly
def test_the_page_is_written_of_results_with_times_and_without(smoke, tmp_path):
    text = study.page(smoke)
    assert "| structured derivatives against Jacobian contraction |" in text
    assert "Where each wins" not in text
    study.figure(smoke, tmp_path / "flops.png")
    found = timed(smoke)
    costs = Costs.of(found)
    agree = sum(costs.fewest(p) == "structured" for p in costs.seconds)  # which is the fastest of the made-up times
    text = study.page(found)
    assert f"**The method with the fewest FLOPs is the fastest at {agree} of {len(costs.seconds)} places.**" in text
    assert "\n## Where each wins\n" in text


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results("fast-ntk", study.page)
