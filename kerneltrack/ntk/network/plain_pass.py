"""The plain pass: f of all samples in ordinary batches and Jᵀv along a random v, by autograd alone.

A first call compares several things with it: halves of the batch, the uses that a capture of ordinary batches has found, and
the kernel (:mod:`kerneltrack.ntk.methods.audit`). It is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.network.batch_vjp import Gradients, batch_vjp
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.pullback import gradients
from kerneltrack.ntk.network.samples import Inputs

#: Two equal passes differ by at most so many units of the largest output's last place.
_ULPS = 64


@dataclass(frozen=True, eq=False)
class PlainPass:
    """Products with Jᵀ by plain autodiff.

    Attributes:
        samples: x.
        v: (N, O).
        pulled: Jᵀv by parameter.
        alone: places of a few samples, each of which was run alone; the first sample is the first of them.
        first: f of the first sample alone, (1, O).
        u: (k, O) for these.
        pulled_alone: Jᵀu of these.
    """

    samples: Inputs
    v: Tensor
    pulled: Gradients
    alone: Sequence[int]
    first: Tensor
    u: Tensor
    pulled_alone: Gradients

    @classmethod
    def of(cls, network: Network, samples: Inputs) -> PlainPass:
        """Of samples that were looked at before; call it inside ``network.evaluating()``."""
        _, v, pulled = pulled_by_all(network, samples, len(samples))
        alone = [0, len(samples) // 2][: len(samples)]
        found = [batch_vjp(network, samples.rows(n, n + 1), lambda _, n=n: v[n : n + 1]) for n in alone]  # type: ignore[misc]  # as below
        total = {name: sum((part[name] for _, part in found[1:]), own) for name, own in found[0][1].items()}
        return cls(samples, v, pulled, alone, network.headed(found[0][0]), v[alone], total)

    def is_of(self, samples: Inputs) -> bool:
        """Whether it was of just these samples."""
        return self.samples.same_as(samples)

    def is_repeated(self, network: Network) -> bool:
        """Whether the first sample has the same outputs again: what passes since have left behind may show in them.

        A tensor of a vectorised pass that a hook has kept is an error.
        """
        with network.evaluating(), torch.no_grad():
            again = network.evaluate(network.parameters, self.samples.rows(0, 1))
        gap, size = (again - self.first).abs(), self.first.abs().max()
        return bool((gap <= _ULPS * torch.finfo(again.dtype).eps * size).all())


def is_plain(network: Network, samples: Inputs) -> bool:
    """Whether Jᵀv of a batch is the sum of rows, to float32: no hooks change gradients, and no arithmetic is coarser."""
    seen = network.sight(samples)
    return not seen.by_rows and seen.eps <= torch.finfo(torch.float32).eps


def pulled_by_all(network: Network, samples: Inputs, most: int) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
    """f(x) (N, O), a random v of that shape, the same at every call, and Jᵀv, by batches of at most so many samples.

    Call it inside ``network.evaluating()``.
    """
    outputs, total = list[Tensor](), dict[str, Tensor]()
    for place, chunk in samples.chunks(min(most, network.chunk_rows(samples))):
        own, pulled = batch_vjp(network, chunk, lambda out, place=place: direction(len(samples), out)[place])  # type: ignore[misc]  # mypy cannot infer the default
        outputs.append(own)
        total = {name: part.add_(total[name]) if total else part for name, part in pulled.items()}
    whole = torch.cat(outputs)
    return whole, direction(len(samples), whole), total


def halves(network: Network, samples: Inputs) -> Tensor:
    """f of two halves of the samples (N, O), before any head; call it inside ``network.evaluating()``."""
    with torch.no_grad():
        cut = (len(samples) + 1) // 2
        return torch.cat([network.batch(network.parameters, part, raw=True) for _, part in samples.chunks(cut)])


def squares(network: Network, samples: Inputs, v: Tensor, weights: Mapping[str, float | Tensor]) -> Tensor:
    """⟨J_oᵀv, P J_oᵀv⟩ for each output o, (O,) in float64: one forward pass, and a backward pass for each output.

    Call it inside ``network.evaluating()``.

    Args:
        network: the network.
        samples: one batch of n.
        v: (n,).
        weights: P.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in network.parameters.items()}

    def each(outputs: Tensor) -> Tensor:
        found = outputs.new_zeros(outputs.shape[1], dtype=torch.float64)
        for o in range(outputs.shape[1] if outputs.requires_grad else 0):
            u = torch.zeros_like(outputs)
            u[:, o] = v.to(u)
            pulled = zip(leaves, gradients([outputs], list(leaves.values()), [u], retain_graph=True), strict=True)
            dense = {name: part.to_dense().double() for name, part in pulled if part is not None}
            found[o] = sum((part.square() * weights[name]).sum() for name, part in dense.items())
        return found

    with torch.enable_grad():
        return network.applied(leaves, samples, each)


def direction(count: int, outputs: Tensor) -> Tensor:
    """v (count, O), the same at every call, in the dtype and on the device of outputs (n, O); no entry is small."""
    generator = torch.Generator().manual_seed(count)
    drawn = torch.rand(count, outputs.shape[1], generator=generator, dtype=torch.float64) - 0.5
    return (2 * drawn + drawn.sign() / 2).to(outputs)
