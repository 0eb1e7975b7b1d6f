"""Networks whose width is the only thing that changes: three parametrisations of an MLP, and a CNN.

A layer computes multiplier · W x with W_ij ~ N(0, std²). With d the fan-in of the first layer, m the width and σ² = 2 for
ReLU, 1 for tanh, each parametrisation is a table of (multiplier, std):

    layer       NTK               standard              maximal update (μP)
    first       (σ/√d, 1)         (1, σ/√d)             (σ√m/√d, 1/√m)
    hidden      (σ/√m, 1)         (1, σ/√m)             (1, σ/√m)
    readout     (σ/√m, 1)         (1, σ/√m)             (1/√m, σ/√m)

NTK and standard networks are the same function at initialisation and learn differently; the readout of a μP network starts
smaller by √m, so that its features have to move by order 1 before its output does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Parametrisation = Literal["ntk", "standard", "mup"]
Activation = Literal["relu", "tanh"]

#: σ², which keeps the size of activations from layer to layer (for tanh: of small ones)
GAIN = {"relu": 2.0, "tanh": 1.0}


class Layer(nn.Linear):
    """multiplier · W x, no bias; the multiplier inside, so that what the layer returns is the pre-activation."""

    def __init__(self, fan_in: int, fan_out: int, multiplier: float, std: float) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        self.multiplier = multiplier
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        return self.multiplier * super().forward(x)


class Convolution(nn.Conv2d):
    """A 3×3 convolution in NTK parametrisation: σ/√(9 channels in) · W * x, W ~ N(0, 1), no bias."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, gain: float) -> None:
        super().__init__(fan_in, fan_out, 3, stride, 1, bias=False)
        self.multiplier = (gain / (9 * fan_in)) ** 0.5
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.multiplier * super().forward(x)


def parts(parametrisation: Parametrisation, inputs: int, width: int, gain: float) -> list[tuple[float, float]]:
    """(multiplier, std) of the first layer, a hidden one and the readout: the table above."""
    d, m, s = inputs**0.5, width**0.5, gain**0.5
    return {
        "ntk": [(s / d, 1.0), (s / m, 1.0), (s / m, 1.0)],
        "standard": [(1.0, s / d), (1.0, s / m), (1.0, s / m)],
        "mup": [(s * m / d, 1 / m), (1.0, s / m), (1 / m, s / m)],
    }[parametrisation]


def mlp(
    parametrisation: Parametrisation, activation: Activation, width: int, inputs: int = 64, outputs: int = 1
) -> nn.Sequential:
    """Two hidden layers: inputs → width → width → outputs."""
    first, hidden, readout = parts(parametrisation, inputs, width, GAIN[activation])
    phi = nn.ReLU if activation == "relu" else nn.Tanh
    return nn.Sequential(
        Layer(inputs, width, *first), phi(), Layer(width, width, *hidden), phi(), Layer(width, outputs, *readout)
    )


def cnn(channels: int) -> nn.Sequential:
    """Two 3×3 convolutions on 8×8 images, the second one of stride 2, mean over 2×2 blocks, one output; NTK, ReLU."""
    gain = GAIN["relu"]
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        Convolution(1, channels, 1, gain),
        nn.ReLU(),
        Convolution(channels, channels, 2, gain),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        Layer(4 * channels, 1, (gain / (4 * channels)) ** 0.5, 1.0),
    )


class Moved(nn.Module):
    """g(x; p) = f(x; θ + p) − f(x; θ_0 + p) at p = 0. Its Jacobian is J(θ) − J(θ_0), so its tangent kernel is ΔJ ΔJᵀ.

    Args:
        model: f.
        start: θ_0 by name.
        point: θ by name.
    """

    def __init__(self, model: nn.Module, start: dict[str, Tensor], point: dict[str, Tensor]) -> None:
        super().__init__()
        self._ends = model, start, point  # in a tuple, so that f's own parameters are not this module's
        self.shift = nn.ParameterList(torch.zeros_like(value) for value in start.values())

    def forward(self, x: Tensor) -> Tensor:
        model, start, point = self._ends
        shifts = dict(zip(start, self.shift, strict=True))
        there, here = ({k: end[k] + shifts[k] for k in start} for end in (point, start))
        return torch.func.functional_call(model, there, x) - torch.func.functional_call(model, here, x)
