"""Overlaps of patches by overlaps of pixels, in every shape that a convolution may have.

Oracle: the double loop over plain autograd in float64, which knows no patches. The hybrid order and the way by pixels are taken
wherever they apply.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk.capture import convolution, patch_overlap
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, SINGLE, contract, distance, jacobian
from tests.ntk.preferred import prefer

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

#: name: axes, kernel, and how it slides. Kernels that see neighbours on one side only, or none on one axis; padding that is wider
#: than the kernel's reach, lopsided, or not of zeros; a kernel as high as the image.
SLIDES = {
    "one-axis": (1, 3, {"padding": 1}),
    "even": (1, 2, {"padding": 1}),
    "wide-padding": (1, 2, {"padding": 3}),
    "valid": (2, 3, {}),
    "same": (2, (3, 2), {"padding": "same"}),
    "flat": (2, (1, 3), {"padding": (0, 1)}),
    "dilated": (2, 2, {"padding": 1, "dilation": (1, 3)}),
    "groups": (2, 3, {"padding": 1, "groups": 2}),
    "depthwise": (2, 3, {"padding": 1, "groups": 4}),
    "circular": (2, 3, {"padding": 1, "padding_mode": "circular"}),
    "reflect": (2, 3, {"padding": 1, "padding_mode": "reflect"}),
    "replicate": (2, 3, {"padding": 1, "padding_mode": "replicate"}),
    "tall": (2, (4, 2), {"padding": 0}),
    "three-axes": (3, 2, {"padding": 1}),
    "strided": (2, 3, {"padding": 1, "stride": (1, 2)}),
}
N, SIZE = 3, {1: 6, 2: 4, 3: 3}


def net(name):
    dims, kernel, options = SLIDES[name]
    layer = CONVOLUTIONS[dims]
    parts = {"up": layer(2, 4, 1), "conv": layer(4, 4, kernel, **options)}
    model = With(lambda m, x: m.conv(m.up(x).tanh()).sin().flatten(2).cumsum(2).mean(2)[:, :2], **parts)
    return model, (2, *[SIZE[dims]] * dims)


def clips():
    """Frames of each sample, which a convolution sees as a batch."""

    def forward(m, x):
        y = m.conv(m.up(x.flatten(0, 1)).tanh()).sin().unflatten(0, x.shape[:2])
        return (y.flatten(3).cumsum(3).mean(3) * torch.tensor([1.0, 2.0], dtype=x.dtype)[:, None]).sum(1)[:, :2]

    return With(forward, up=nn.Conv2d(2, 4, 1), conv=nn.Conv2d(4, 4, 3, padding=1)), (2, 2, 4, 4)


def drawn(model, shape, count=N):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return model.double(), torch.randn(count, *shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def by_pixels(monkeypatch):
    """Every convolution that may go by pixels does; whether one did is seen at the end."""
    calls, own = [], patch_overlap.patch_overlaps
    prefer(monkeypatch, "hybrid")
    monkeypatch.setattr(convolution, "pays", lambda *sizes: True)
    monkeypatch.setattr(convolution, "patch_overlaps", lambda *given: calls.append(1) or own(*given))
    return calls


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*SLIDES, "clips"])
def test_overlaps_of_pixels_make_the_kernel_of_patches(by_pixels, name):
    """With oneself and with others, in tiles of one sample and of all."""
    model, x = drawn(*(clips() if name == "clips" else net(name)))
    rows = jacobian(model, x)
    whole = contract(rows, rows, "full")
    assert distance(kt.empirical_ntk(model, x), whole) < EXACT
    assert bool(by_pixels) == (name != "strided")
    with use(replace(Machine(), tile_entries=1)):
        assert distance(kt.empirical_ntk(model, x[:2], x[1:]), whole[:2, 1:]) < EXACT


@pytest.mark.parametrize("output", ["trace", "diagonal"])
def test_so_they_do_where_outputs_are_not_paired(by_pixels, output):
    model, x = drawn(*net("groups"))
    rows = jacobian(model, x)
    assert distance(kt.empirical_ntk(model, x, output=output), contract(rows, rows, output)) < EXACT
    assert by_pixels


def test_a_convolution_that_is_used_twice_has_rows_of_both(by_pixels):
    """Its two uses see different pixels: their rows are overlapped as they are."""
    model, shape = net("valid")
    two = With(
        lambda m, x: (m.conv(m.up(x)) + m.conv(m.up(x).tanh())).flatten(2).sin().mean(2)[:, :2], **model._modules
    )
    two, x = drawn(two, shape)
    rows = jacobian(two, x)
    assert distance(kt.empirical_ntk(two, x), contract(rows, rows, "full")) < EXACT
    assert not by_pixels


def test_single_precision_keeps_its_digits(by_pixels):
    """Sums of products of pixels round as products of patches do: N·T·9 terms of float32."""
    model, x = drawn(*net("reflect"))
    rows = jacobian(model, x)
    assert distance(kt.empirical_ntk(model.float(), x.float()), contract(rows, rows, "full")) < SINGLE


@pytest.mark.parametrize(
    ("channels", "kernel", "pixels", "positions", "pixels_pay"),
    [
        (256, (3, 3), 64, 64, True),
        (64, (3, 3), 1024, 1024, True),
        (1, (3, 3), 64, 64, False),  # depthwise: nothing is saved
        (64, (1, 1), 64, 64, False),  # patches are pixels
        (256, (7, 7), 64, 4, False),  # few patches of many pixels
    ],
)
def test_pixels_are_taken_where_patches_share_many(channels, kernel, pixels, positions, pixels_pay):
    """By count: 9·256 multiply-adds against 256 and eight sums or copies, each as long as some two dozen of them."""
    assert patch_overlap.pays(channels, kernel, pixels, positions) is pixels_pay


def test_patches_of_two_sides_lie_apart(monkeypatch):
    """Where gradients are formed in several slices, both sides' patches are read again and again."""
    model, x = drawn(*net("valid"))
    rows = jacobian(model, x)
    prefer(monkeypatch, "gradient")
    with use(replace(Machine(), slice_columns=8, narrow_columns=8)):
        rectangle = kt.empirical_ntk(model, x[:2], x[1:], method="structured")
    assert distance(rectangle, contract(rows, rows, "full")[:2, 1:]) < EXACT
