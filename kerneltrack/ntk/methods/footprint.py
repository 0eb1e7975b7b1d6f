"""What one captured sample takes in memory: from it follow the blocks that fit a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from torch import Tensor

from kerneltrack.ntk.capture import Use
from kerneltrack.ntk.contraction import Term
from kerneltrack.ntk.methods.request import KernelRequest


def sample_bytes(
    request: KernelRequest, uses: Sequence[Use], leaves: Mapping[str, Tensor], terms: Sequence[Term]
) -> int:
    """Recorded inputs, gradients for all outputs, what autograd saves, and what is formed whole beside them.

    Args:
        request: what is computed.
        uses: the uses of a trial capture of one sample.
        leaves: the parameters.
        terms: how the uses are contracted.
    """
    records = {use.record: use for use in uses}
    recorded = sum(prod(r.shape[1:]) + sum(t[0].numel() for t in r.operands) for r in records)
    gradients = sum(use.extent().gradients for use in records.values())
    entries = recorded + request.outputs * gradients + 4 * max((prod(r.shape[1:]) for r in records), default=0)
    entries += sum(_formed_whole(request, uses, leaves, terms))
    return request.dtype.itemsize * entries + request.network.activation_bytes(request.x1)


def _formed_whole(
    request: KernelRequest, uses: Sequence[Use], leaves: Mapping[str, Tensor], terms: Sequence[Term]
) -> Iterable[int]:
    """The largest of each kind, in entries: Jacobians, bias gradients, looked-up rows, patches."""
    formed = [sum(leaves[name].numel() for name in term.names) for term in terms if not term.has_factors]
    shifts = [uses[term.uses[0]].extent().outer for term in terms if term.form == "features"]
    yield request.outputs * 3 * max(formed, default=0)
    yield request.outputs * max(shifts, default=0)
    yield request.outputs * max((use.summed_gradients() for use in uses), default=0)
    yield max((use.copied_inputs() for use in uses), default=0)
