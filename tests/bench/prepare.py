"""Weights, inputs and the float64 truth of a workload, written once to an .npz that every peer reads.

The truth is a sub-block of the kernel (the first and the last samples) by a double loop over plain autograd
in float64, and for a product Θv the backward pass and its own derivative (double backward), on the whole
batch.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from floor import floor_flops
from torch import Tensor, nn
from workloads import WORKLOADS, Workload


def truth_block(model: nn.Module, x: Tensor, kind: str) -> np.ndarray:
    parameters = list(model.parameters())
    rows = []
    for sample in x.split(1):
        outputs = model(sample)[0]
        for output in outputs:
            gradients = torch.autograd.grad(output, parameters, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    jacobian = torch.stack(rows)
    o = len(outputs)
    block = (jacobian @ jacobian.T).reshape(len(x), o, len(x), o)
    return (torch.einsum("nomo->nm", block) if kind == "trace" else block).numpy()


def truth_product(model: nn.Module, x: Tensor, v: Tensor) -> np.ndarray:
    parameters = list(model.parameters())
    outputs = model(x)
    dual = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(outputs, parameters, dual, create_graph=True)  # Jᵀu, linear in u
    gradient = torch.autograd.grad(outputs, parameters, v, retain_graph=True)
    return torch.autograd.grad(pulled, dual, gradient)[0].numpy()


def checked_samples(workload: Workload) -> np.ndarray:
    """Which samples the truth holds: all for a product, else the ends, where a wrong tile would show."""
    n, ends = workload.samples, max(1, 30 // workload.outputs)
    if workload.kind == "product" or n <= 2 * ends:
        return np.arange(n)
    return np.concatenate([np.arange(ends), np.arange(n - ends, n)])


def prepare(name: str, folder: Path) -> Path:
    """The .npz of a workload; made if it is not there."""
    path = folder / f"{name}.npz"
    if path.exists():
        return path
    workload = WORKLOADS[name]
    model, x, v = workload.model(), workload.inputs(), workload.vector()
    weights = {f"w:{key}": value.numpy() for key, value in model.state_dict().items()}
    trainable = [key for key, _ in model.named_parameters()]
    flops = floor_flops(workload)
    which = checked_samples(workload)
    model = model.double()
    exact = x if workload.vocabulary else x.double()
    if workload.kind == "product":
        truth = truth_product(model, exact, v.double())
    else:
        truth = truth_block(model, exact[torch.from_numpy(which)], workload.kind)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        x=x.numpy(),
        v=v.numpy(),
        which=which,
        truth=truth,
        floor=flops,
        trainable=json.dumps(trainable),
        **weights,
    )
    partial.replace(path)
    return path
