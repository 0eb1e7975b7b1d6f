"""How large the weights of each layer are, and by how much they changed, in the spectral norm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from kerneltrack.measurement.parameter_motion import Tensors
from kerneltrack.ntk import layer_of, unwrap
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import largest_eigenvalue

#: Residual of Lanczos on WᵀW, relative to ‖W‖₂²: a norm is read to three digits, and half of this is its error at most.
_TOLERANCE = 1e-6


def weight_norms(module: nn.Module, start: Tensors, end: Tensors) -> dict[str, Array]:
    """(4,) ‖W_0‖₂, ‖W‖₂, ‖W − W_0‖₂ and √(n_out/n_in) by layer; NaN where a layer has not one matrix, or n_out and n_in no meaning.

    A weight of more axes than two is taken as the matrix (n_out, all others). Parameters that a layer makes its weight of, as under
    spectral or weight norm, are none of its matrices.

    Args:
        module: the network.
        start: its parameters at step 0.
        end: the same now.
    """
    modules = dict(unwrap(module).named_modules())
    return {layer: _of_layer(modules.get(layer), name, start, end) for layer, name in _matrices(start).items()}


def _matrices(start: Tensors) -> Mapping[str, str]:
    """Layer → the name of its only matrix; "" where it has none or several."""
    found: dict[str, list[str]] = {}
    for name, value in start.items():
        found.setdefault(layer_of(name), []).extend([name] * (value.ndim >= 2))
    return {layer: names[0] if len(names) == 1 else "" for layer, names in found.items()}


def _of_layer(own: nn.Module | None, name: str, start: Tensors, end: Tensors) -> Array:
    if not name or _makes_its_weight(own, name) or (isinstance(own, _ConvTransposeNd) and own.groups > 1):
        return np.full(4, np.nan)
    first, last = (_matrix(own, w) for w in (start[name], end[name].to(start[name])))
    norms = [_spectral_norm(w) for w in (first, last, last - first)]
    return np.array([*norms, _balance(own, first)])


def _makes_its_weight(own: nn.Module | None, name: str) -> bool:
    """By torch's parametrisations, or by its hooks of before, which call what they take NAME_orig."""
    return own is not None and (is_parametrized(own) or name.endswith("_orig"))


def _matrix(own: nn.Module | None, weight: Tensor) -> Tensor:
    """(n_out, all others); a transposed convolution has its inputs first."""
    weight = weight.detach()
    return (weight.transpose(0, 1) if isinstance(own, _ConvTransposeNd) else weight).flatten(1)


def _balance(own: nn.Module | None, matrix: Tensor) -> float:
    """√(n_out/n_in) of a linear layer or a convolution of one group; NaN of everything else."""
    plain = isinstance(own, nn.Linear) or (
        isinstance(own, _ConvNd) and not isinstance(own, _ConvTransposeNd) and own.groups == 1
    )
    return float((matrix.shape[0] / matrix.shape[1]) ** 0.5) if plain else float("nan")


def _spectral_norm(matrix: Tensor) -> float:
    """‖W‖₂ by Lanczos on the smaller of WWᵀ and WᵀW."""
    matrix = (matrix.T if matrix.shape[0] > matrix.shape[1] else matrix).double()

    def product(x: Array) -> Array:
        v = torch.from_numpy(x).to(matrix)
        return np.asarray((matrix @ (matrix.T @ v)).cpu().numpy())

    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    return float(max(largest_eigenvalue(product, start, _TOLERANCE), 0.0) ** 0.5)
