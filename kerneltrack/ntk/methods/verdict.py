"""Whether two ways to the same product agree, and why they do not.

A tolerance relative to the product's size is enough almost always. It is not where the product is rounding itself (the
kernel of a parameter that the outputs do not see is zero), or where the arithmetic inside the model is coarser than its
parameters. Then the reference is computed again with parameters and inputs moved by rounding: what moves as much is not
told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from kerneltrack.errors import KernelError, UnsupportedModelError
from kerneltrack.ntk.network import DRAWS, FEW, UNITS, Inputs, Network, look_closely

#: A product is rounding where it is below so many times what rounding moves. The other way to it sums in another order, so
#: its derivatives may be some 30 times as inexact, and their products that squared.
_UNRESOLVED, _SQUARED = 4.0, 1000.0
#: Rounding of a derivative that is zero, in units of the last place of the largest derivative of the network.
_LAST_PLACES = 16.0


def rounding(dtype: torch.dtype, scale: float) -> float:
    """The largest difference that rounding explains between two ways to products of size ``scale``."""
    smallest = torch.finfo(torch.promote_types(dtype, torch.float32)).tiny
    return float(torch.finfo(dtype).eps ** 0.6 * scale + smallest)


def agree(
    found: Tensor,
    expected: Tensor,
    limit: float,
    networks: Sequence[Network],
    samples: Inputs,
    v: Tensor,
    again: Callable[[], Tensor],
) -> tuple[bool, bool]:
    """Whether the products agree, and whether that says anything: two that are zero, or rounding, always agree.

    Args:
        found: the product in question.
        expected: the reference.
        limit: a difference that needs no explanation.
        networks: whose parameters and inputs rounding is to move.
        samples: some of the network's.
        v: the vector that Θ was applied to.
        again: computes the reference once more.
    """
    error, size = _largest(found - expected), _largest(expected)
    if error <= limit:
        return True, size > 0
    eps, moved = networks[0].sight(samples).eps, 0.0
    for seed in range(DRAWS):
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(network.nudged(seed, UNITS * eps))
            moved = max(moved, _largest(again() - expected))
    floor = _floor(networks[0], samples, eps) * float(v.norm())
    if size <= max(_UNRESOLVED * moved, floor):
        return _largest(found) <= max(_SQUARED * moved, floor), False
    return error <= limit + 2 * moved, True


def _floor(network: Network, samples: Inputs, eps: float) -> float:
    """Θ where no parameter has a derivative: each adds the square of what rounding leaves of the terms that cancel.

    0 where one has: then the kernel is no rounding.
    """
    own, largest = network.steepness(samples)
    step = _LAST_PLACES * eps * largest
    return step**2 * sum(p.numel() for p in network.parameters.values()) if own <= step else 0.0


def refuse_causes(network: Network, samples: Inputs) -> None:
    """Raises where the model, and no plan, is why two ways to its kernel differ.

    Args:
        network: the network.
        samples: all of them: some models couple only so many.

    Raises:
        UnsupportedModelError: coupled samples, a random forward pass.
        KernelError: backward passes that are not the derivative of the forward pass.
    """
    before = network.sight(samples)
    network.forget(samples)
    look_closely(network, samples)
    if network.sight(samples) != before:
        raise KernelError(
            "the model does something else than in earlier calls: its hooks, its precision, or what it differentiates",
            expected=before.told,
            got=network.sight(samples).told,
            remedy="Ask again: a new call goes by what the model does now.",
        )
    _refuse_coupled(network, samples)
    few = samples.rows(0, min(FEW, len(samples)))
    with network.evaluating():
        outputs = network.outputs(few)
    pulled = network.vjp(few, torch.ones_like(outputs))
    forward, backward = network.jvp(few, pulled), network.jvp(few, pulled, by_rows=True)
    limit = rounding(outputs.dtype, _largest(backward))
    once_more = partial(network.jvp, few, pulled, by_rows=True)
    if agree(forward, backward, limit, [network], few, torch.ones_like(outputs), once_more)[0]:
        return
    raise KernelError(
        "the model's backward pass is not the derivative of its forward pass",
        expected=f"J v of forward mode within {limit:.3g} of reverse mode's",
        got=f"{_largest(forward - backward):.3g}",
        remedy="Remove gradient hooks (register_hook) and autograd functions with a backward of their own; "
        'method="jacobian" follows the backward pass as it is.',
    )


def _refuse_coupled(network: Network, samples: Inputs) -> None:
    """Raises where J (Jᵀ u) of the samples as batches is not what they give one by one; a few alone may not show it."""
    with network.evaluating():
        u = _direction(network.outputs(samples))
        single = _one_by_one(network, samples, u)
        limit = rounding(single.dtype, _largest(single))
        together = network.jvp(samples, network.vjp(samples, u))
    if not agree(together, single, limit, [network], samples, u, lambda: _one_by_one(network, samples, u))[0]:
        raise UnsupportedModelError(
            "the model couples samples: its derivative for a batch is not that of its samples one by one",
            expected=f"a difference below {limit:.3g}",
            got=f"{_largest(together - single):.3g} of {len(samples)} samples",
            remedy="Remove what mixes the batch axis (batch statistics, contrastive terms, a branch on its length), or measure "
            "in eval().",
        )


def _one_by_one(network: Network, samples: Inputs, u: Tensor) -> Tensor:
    with network.one_by_one():
        return network.jvp(samples, network.vjp(samples, u))


def _direction(outputs: Tensor) -> Tensor:
    """u of the shape of the outputs (N, O), the same at every call."""
    u = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(len(outputs)), dtype=torch.float64)
    return u.to(outputs.device, outputs.dtype)


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
