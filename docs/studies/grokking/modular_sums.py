"""Addition modulo p: all pairs (a, b), a quadratic network, the network that solves it in closed form, and functions with names.

With units (cos(ωa + φ) + cos(ωb + ψ))² and readouts cos(ωc + φ + ψ), φ and ψ each on a grid of thirds of a turn, everything
cancels but ½ cos(ω(a + b − c)): nine units a frequency. All (p − 1)/2 frequencies alike are the target itself, one-hot less 1/p.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

#: units of the closed form for each frequency
UNITS = 9


class Quadratic(nn.Module):
    """α V (Wx)², no biases; W ~ N(0, 1/(2p)), V ~ N(0, 1/m)."""

    def __init__(self, p: int, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.hidden, self.readout = nn.Linear(2 * p, width, bias=False), nn.Linear(width, p, bias=False)
        self.scale = scale
        for layer in (self.hidden, self.readout):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.scale * self.readout(self.hidden(x).square())
        return outputs


def pairs(p: int) -> tuple[Tensor, Tensor]:
    """(p², 2p) a and b one-hot beside each other, and (p²,) a + b mod p; row p·a + b."""
    a, b = (torch.tensor(each).flatten() for each in np.divmod(np.arange(p * p), p))
    one_hot = torch.nn.functional.one_hot
    return torch.cat([one_hot(a, p), one_hot(b, p)], dim=1).float(), (a + b) % p


def targets(labels: Tensor, p: int) -> Tensor:
    """(N, p) one-hot less 1/p."""
    return torch.nn.functional.one_hot(labels, p).float() - 1 / p


def solved(p: int, width: int) -> Quadratic:
    """The closed form, exact; units beyond 9(p − 1)/2 are 0, and ‖W‖² = 2‖V‖², the least ‖W‖² + ‖V‖² of its kind.

    Raises:
        ValueError: fewer units than it needs.
    """
    if width < UNITS * (p // 2):
        raise ValueError(f"{p // 2} frequencies need {UNITS * (p // 2)} units, not {width}")
    network, turn = Quadratic(p, width), 2 * np.pi / p
    hidden, readout = np.zeros((width, 2 * p)), np.zeros((p, width))
    thirds, values = 2 * np.pi / 3 * np.arange(3), np.arange(p)
    for unit, (j, phi, psi) in enumerate(product(range(1, p // 2 + 1), thirds, thirds)):
        hidden[unit] = np.concatenate([np.cos(j * turn * values + phi), np.cos(j * turn * values + psi)])
        readout[:, unit] = 4 / (UNITS * p) * np.cos(j * turn * values + phi + psi)
    # s²·r stays where W grows by s and V by r
    s = (2 * np.sum(readout**2) / np.sum(hidden**2)) ** (1 / 6)
    with torch.no_grad():
        network.hidden.weight.copy_(torch.tensor(s * hidden))
        network.readout.weight.copy_(torch.tensor(readout / s**2))
    return network


#: name → (u, v): functions of ua + vb
FAMILIES = {"a + b": (1, 1), "a − b": (1, -1), "a": (1, 0), "a + 2b": (1, 2)}


def waves(family: str, p: int, frequency: int) -> np.ndarray:
    """(p², 2) cos and sin(2πj(ua + vb)/p), orthonormal columns."""
    a, b = np.divmod(np.arange(p * p), p)
    angle = 2 * np.pi * frequency / p * (FAMILIES[family][0] * a + FAMILIES[family][1] * b)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * (2**0.5 / p)


def shares(outputs: np.ndarray) -> np.ndarray:
    """((p − 1)/2,) of the energy of outputs (p², p), less their mean, in cos and sin(2πj(a + b)/p), j = 1, 2, …"""
    p = outputs.shape[1]
    centred = outputs - outputs.mean(axis=0)
    found = [np.sum((waves("a + b", p, j).T @ centred) ** 2) for j in range(1, p // 2 + 1)]
    return np.array(found) / np.sum(centred**2)
