"""Where the plain Jacobian is the faster exact way, "auto" takes it and the plan says so.

Oracle of the kernels: the double loop over plain autograd, in float64. Of the choice: which way was measured to be faster,
by 1.3 times and more, on one core.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk import machine as sizes
from kerneltrack.ntk.empirical import kernel_and_jacobian
from kerneltrack.ntk.methods import Execution, KernelOptions
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian


def upwards(m, x):
    """A U-Net in small: an image for an image."""
    down = F.relu(m.down(x))
    return m.out(torch.cat([x, m.up(F.relu(m.middle(down)))], 1)).flatten(1)


def unet(width=4):
    return With(
        upwards,
        down=nn.Conv2d(3, width, 3, 2, 1),
        middle=nn.Conv2d(width, width, 3, padding=1),
        up=nn.ConvTranspose2d(width, width, 2, 2),
        out=nn.Conv2d(width + 3, 3, 3, padding=1),
    )


#: name: model, the shape of its samples; of the first the plain Jacobian is the faster way.
PLAIN = {
    "U-Net, 192 outputs": (unet, (3, 3, 8, 8)),
    "linear on extra axes, 48 outputs": (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Flatten()),
        (5, 6, 8),
    ),
    "image network with few channels": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(4, 10)),
        ),
        (8, 1, 8, 8),
    ),
}
STRUCTURED = {
    "one output": (lambda: nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1)), (40, 4)),
    "ten outputs": (lambda: nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 10)), (50, 4)),
    "autoencoder, 64 outputs": (lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 64)), (12, 64)),
}


def given(name):
    build, shape = (PLAIN | STRUCTURED)[name]
    torch.manual_seed(1)
    return build().double(), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", PLAIN | STRUCTURED)
def test_the_plan_takes_the_faster_way_and_says_so(name):
    plan = kt.ntk_plan(*given(name))
    notes = [note for note in plan.notes if "by its plain Jacobian, which is as exact" in note]
    assert plan.method == ("jacobian" if name in PLAIN else "structured")
    assert len(notes) == (name in PLAIN)
    asked = kt.ntk_plan(*given(name), method="structured")  # who asks for a method has it
    assert asked.method == "structured"


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_the_kernel_is_exact(name, output):
    model, x = given(name)
    x = x[:2, :, :4, :4] if x.shape[1] == 3 else x  # 48 outputs are enough
    rows = jacobian(model, x)
    assert distance(kt.empirical_ntk(model, x, output=output), contract(rows, rows, output)) < EXACT


def test_a_layer_and_a_rectangle():
    """By layer, and of other samples: rows side by side, no half of a symmetric product."""
    model, x = given("linear on extra axes, 48 outputs")
    rows = jacobian(model, x)
    layers = kt.empirical_ntk(model, x, by_layer=True)
    assert list(layers) == ["0", "2"]
    for layer, kernel in layers.items():
        own = {name: part for name, part in rows.items() if name.startswith(layer)}
        assert distance(kernel, contract(own, own, "full")) < EXACT
    few = {name: part[1:3] for name, part in rows.items()}
    assert distance(kt.empirical_ntk(model, x, x[1:3].clone()), contract(rows, few, "full")) < EXACT


@pytest.mark.parametrize("output", ["full", "trace"])
def test_half_of_a_symmetric_product_is_copied(machine, output):
    """Where there are many columns. Fails where what is below the diagonal is left as it was."""
    machine(mirror_rows=7)
    model, x = given("linear on extra axes, 48 outputs")
    rows = jacobian(model, x)
    assert distance(kt.empirical_ntk(model, x, output=output, method="jacobian"), contract(rows, rows, output)) < EXACT


def test_a_second_call_makes_no_trial(monkeypatch):
    model, x = given("linear on extra axes, 48 outputs")
    first = kt.empirical_ntk(model, x)
    monkeypatch.setattr(Execution, "of", lambda *given, **options: pytest.fail("a trial was made"))
    assert torch.equal(kt.empirical_ntk(model, x), first)
    with pytest.raises(pytest.fail.Exception, match="a trial was made"):  # of other sizes it is asked again
        kt.empirical_ntk(model, x[:1])


def test_memory_decides_first():
    """Rows of J for all outputs at once do not fit in a budget that the structured plan keeps."""
    model, x = given("U-Net, 192 outputs")
    result = 8 * (3 * 192) ** 2
    assert kt.ntk_plan(model, x, memory_budget=result + 2**23).method == "structured"


def test_where_products_are_wanted_the_structure_is_kept():
    model, x = given("image network with few channels")
    kernels, factors = kernel_and_jacobian(model, x, KernelOptions())
    assert factors is not None
    assert distance(kernels[""], kt.empirical_ntk(model, x, method="jacobian").numpy()) < EXACT


def test_where_only_what_is_there_is_wanted_the_faster_way_is_taken(monkeypatch):
    """The plain Jacobian; and a small kernel is recorded all the same, and leaves nothing. Oracle: its first call."""
    model, x = given("image network with few channels")
    assert kernel_and_jacobian(model, x, KernelOptions(), keeps="what is there")[1] is None
    monkeypatch.setattr(sizes, "SMALL", 10**9)
    torch.manual_seed(0)
    small = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    points, expected = torch.randn(6, 4, dtype=torch.float64), None
    for _ in range(5):
        kernels, factors = kernel_and_jacobian(small, points, KernelOptions(), keeps="what is there")
        assert factors is None
        expected = kernels[""].clone() if expected is None else expected
        assert distance(kernels[""], expected.numpy()) < EXACT
