"""The fewest FLOPs that the known orders of contraction need: what no exact engine of this kind gets below.

For a linear map on T positions with d_i inputs and d_o outputs (a convolution: its patches), N samples, R =
N·O rows, from Novak, Sohl-Dickstein and Schoenholz (2022), with the halves that a symmetric kernel allows:

    per-sample gradients   2 R T P + R² P                           (P = d_i d_o; the second term halved)
    token Gram matrices    N² T² d_i + R² T² (d_o + 1)              (halved)
    hybrid                 N² T² d_i + N² T² O d_o + N² O² T d_o    (halved)

and the last layer in closed form, N² d_i. To that comes one forward pass and one backward pass per output to
the layers' outputs. A product Θv takes a forward pass, a backward pass with weights and a pass with tangents, 10 N T P; or, of
gradients and inputs that earlier products have left, Σ v g and its product with the inputs, and both again: 4 N T P + 4 N O T d_o.
Attention's own products, norms and biases are left out (below 5 %); the floor is a
bound from below.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from workloads import Workload


def linear_maps(model: nn.Module, sample: Tensor) -> list[tuple[int, int, int, int]]:
    """(T, d_i, d_o, groups) of each linear map and convolution, in order of use."""
    seen: list[tuple[int, int, int, int]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen.append((out[0].numel() // module.out_features, module.in_features, module.out_features, 1))
        elif type(module).__name__ == "Conv1D":  # transformers' linear layer, with its weight the other way round
            seen.append((out[0].numel() // module.nf, module.nx, module.nf, 1))
        elif isinstance(module, nn.Conv2d):
            taps, groups = math.prod(module.kernel_size), module.groups
            fan_in, fan_out = module.in_channels // groups * taps, module.out_channels // groups
            seen.append((out[0, 0].numel(), fan_in, fan_out, groups))

    handles = [module.register_forward_hook(record) for module in model.modules()]
    with torch.no_grad():
        model(sample)
    for handle in handles:
        handle.remove()
    return seen


def contraction(t: int, d_i: int, d_o: int, n: int, o: int, kind: str) -> float:
    """The cheapest order of one layer, in FLOPs."""
    pairs = n * n  # n² multiply-adds of which half are needed: n² FLOPs
    outputs = o if kind == "trace" else o * o
    gradient = 2 * n * o * t * d_i * d_o + pairs * outputs * d_i * d_o
    token = pairs * t * t * (d_i + outputs * (d_o + 1))
    hybrid = pairs * t * (t * d_i + t * o * d_o + outputs * d_o)
    return min(gradient, token, hybrid)


def floor_flops(workload: Workload) -> float:
    """Forward, backward to the layers' outputs, and the cheapest contraction of each layer."""
    n, o = workload.samples, workload.outputs
    maps = linear_maps(workload.model(), workload.inputs()[:1])
    passes = [2 * t * d_i * d_o * groups for t, d_i, d_o, groups in maps]
    if workload.kind == "product":
        mixed = sum(4 * o * t * d_o * groups for t, _, d_o, groups in maps)
        return n * min(5.0 * sum(passes), 2.0 * sum(passes) + mixed)
    total = n * sum(passes) + n * o * sum(passes[1:])
    for t, d_i, d_o, groups in maps[:-1]:
        total += groups * contraction(t, d_i, d_o, n, o, workload.kind)
    return total + n * n * maps[-1][1]
