"""Another machine, and another order, change how a kernel is computed and not what it is.

Oracle: the double loop over plain autograd. The sizes are so small that every loop over tiles, slices and squares goes
round several times on the small problems here, where a CPU's sizes let each go round once.
"""

from dataclasses import replace

import pytest
import torch

import kerneltrack as kt
from kerneltrack.ntk.contraction import ORDERS
from kerneltrack.ntk.contraction.gram import add_gram
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.exact_kernels import OUTPUTS, matrix
from tests.ntk.oracles import EXACT, distance
from tests.ntk.preferred import prefer
from tests.ntk.test_orders import SIZES, setting, truth
from tests.tiers import diagonals

TINY = {
    "gram_square": 3,
    "gram_depth": 8,
    "split_columns": 2,
    "split_rows": 10**6,
    "mirror_rows": 2,
    "tile_entries": 40,
    "slice_columns": 12,
    "cached_bytes": 2**10,
    "narrow_columns": 6,
    "narrow_bytes": 2**8,
    "copy_bytes": 2**9,
    "product_rows": 2,
    "product_columns": 3,
    "backward_rows": 30,
    "small_bytes": 0,
    "audit_rows": 4,
}


@pytest.mark.parametrize(("name", "output"), diagonals(2, SIZES, ["full", "diagonal", "trace"]))
def test_a_tiny_machine_has_the_same_kernel(machine, name, output):
    machine(**TINY)
    model, x = setting(name)
    expected = truth(name, output)
    assert distance(kt.empirical_ntk(model, x, output=OUTPUTS[output]), expected) < EXACT
    assert distance(kt.empirical_ntk(model, x[1:], x[:4], output=OUTPUTS[output]), expected[1:, :4]) < EXACT


@pytest.mark.audit
@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
def test_a_tiny_machine_has_the_same_audit_and_diagonal(machine, output):
    """Rows of Θ four at a time, per-sample gradients one sample at a time."""
    machine(audit_rows=4, diagonal_bytes=1)
    name = next(iter(SIZES))
    model, x = setting(name)
    expected = truth(name, output)
    assert distance(kt.empirical_ntk(model, x, output=OUTPUTS[output]), expected) < EXACT
    dense = matrix(expected, output)
    assert distance(kt.NTKOperator(model, x, output=OUTPUTS[output]).diagonal(), dense.diagonal()) < EXACT


@pytest.mark.parametrize(
    ("wanted", "output"),
    diagonals(
        3,
        [order.name for order in ORDERS if order.name not in ("lookup", "ranked", "tied")],
        ["full", "diagonal", "trace"],
    ),
)
def test_every_order_that_applies_is_exact(monkeypatch, wanted, output):
    """Also where it is not the cheapest, so that no order is exact only at the sizes that it is chosen at."""

    prefer(monkeypatch, wanted)
    met = 0
    for name in SIZES:
        model, x = setting(name)
        met += any(use.order == wanted for use in kt.ntk_plan(model, x, output=OUTPUTS[output]).uses)
        assert distance(kt.empirical_ntk(model, x, output=OUTPUTS[output]), truth(name, output)) < EXACT
    assert met > 1


def test_a_device_is_the_machine_that_is_used():
    """Oracle: the context's own rule. A GPU is an accelerator; a budget that is not given is half of a known memory."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Machine.of(gpu).counts_launches
    assert not Machine.of(cpu).counts_launches
    with use(Machine.accelerator(memory=2**33)):
        assert Machine.of(cpu) == Machine.of(gpu) == Machine.accelerator(memory=2**33)
        assert kt.ntk_plan(torch.nn.Linear(2, 1), torch.randn(3, 2)).budget_bytes == 2**32
        with use(Machine()):
            assert Machine.of(gpu) == Machine()
        assert Machine.of(cpu).memory == 2**33
    assert Machine.of(cpu).memory is None


@pytest.mark.parametrize("split_rows", [0, 640], ids=["one core", "several"])
def test_a_tile_that_holds_much_loses_no_small_terms(split_rows):
    """A product of 4,096 columns is four units in the last place of what the tile holds; a tenth of it, which a processor adds at a
    time, is below half a unit. Oracle: the sum in float64, to one unit."""
    theta, sides = torch.full((32, 32), 1e4), torch.full((32, 4096), 1e-3)
    add_gram(theta, sides, sides, symmetric=True, machine=replace(Machine(), split_rows=split_rows))
    expected = 1e4 + 4096 * float(sides[0, 0]) ** 2
    assert float((theta.double() - expected).abs().max()) <= torch.finfo(theta.dtype).eps * 1e4
