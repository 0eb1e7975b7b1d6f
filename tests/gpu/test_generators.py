"""Random generators of the device: a forward pass that uses them is refused, and all of them are as they were.

Oracle: the generators' states as bytes, before and after.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError


class Noise(nn.Linear):
    """Noise of strength zero: the values are those of no noise, and the derivative by the strength is not."""

    def __init__(self, generator=None):
        super().__init__(4, 3)
        self.strength, self.generator = nn.Parameter(torch.zeros(())), generator

    def forward(self, x):
        y = super().forward(x)
        return y + self.strength * torch.randn(y.shape, generator=self.generator, device=y.device)


def states(device, *own):
    found = [torch.get_rng_state(), *(generator.get_state() for generator in own)]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in found]


DOORS = {
    **{
        method: lambda m, x, method=method: kt.empirical_ntk(m, x, method=method)
        for method in ("auto", "jacobian", "products")
    },
    "operator": kt.NTKOperator,
    "linearize": lambda m, x: kt.linearize(m)(x, {}),
}


@pytest.mark.parametrize("own", [False, True], ids=["global", "own"])
@pytest.mark.parametrize("door", DOORS)
def test_noise_is_refused_and_leaves_no_trace(device, door, own):
    generators = [torch.Generator(device).manual_seed(3)] if own else []
    model, x = Noise(*generators).to(device), torch.randn(6, 4, device=device)
    before = states(device, *generators)
    with pytest.raises(UnsupportedModelError, match="random"):
        DOORS[door](model, x)
    assert states(device, *generators) == before


@pytest.mark.parametrize("door", DOORS)
def test_a_kernel_moves_no_generator(device, door):
    model, x = (
        nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).eval().to(device),
        torch.randn(6, 4).to(device),
    )
    before = states(device)
    DOORS[door](model, x)
    assert states(device) == before
