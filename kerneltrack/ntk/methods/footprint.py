"""What one captured sample takes in memory: from it follow the blocks that fit a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from torch import Tensor

from kerneltrack.ntk.capture import Site
from kerneltrack.ntk.contraction import Extent, Term, extent
from kerneltrack.ntk.methods.request import KernelRequest


def sample_bytes(job: KernelRequest, sites: Sequence[Site], leaves: Mapping[str, Tensor], units: Sequence[Term]) -> int:
    """Recorded inputs, gradients for all outputs, what autograd saves, and what is formed whole beside them.

    Args:
        job: what is computed.
        sites: the sites of a trial capture of one sample.
        leaves: the parameters.
        units: how the sites are contracted.
    """
    records = {site.record: site for site in sites}
    recorded = sum(prod(r.shape[1:]) + sum(t[0].numel() for t in r.operands) for r in records)
    gradients = sum(_entries(extent(site)) for site in records.values())
    entries = recorded + job.outputs * gradients + 4 * max((prod(r.shape[1:]) for r in records), default=0)
    entries += sum(largest for largest in _formed_whole(job, sites, leaves, units))
    return job.dtype.itemsize * entries + job.network.activation_bytes(job.x1)


def _formed_whole(
    job: KernelRequest, sites: Sequence[Site], leaves: Mapping[str, Tensor], units: Sequence[Term]
) -> Iterable[int]:
    """The largest of each kind, in entries: Jacobians, bias gradients, looked-up rows, patches."""
    dense = [sum(leaves[n].numel() for n in u.names) for u in units if u.form in ("dense", "pulled back")]
    shifts = [extent(sites[u.sites[0]]).outer for u in units if u.form == "features"]
    tables = [_entries(size) + size.tokens for size in _sizes(sites, "embedding")]
    patches = [size.groups * size.inner * size.tokens for size in _sizes(sites, "convolution")]
    yield job.outputs * 3 * max(dense, default=0)
    yield job.outputs * max(shifts, default=0)
    yield job.outputs * max(tables, default=0)
    yield max(patches, default=0)


def _sizes(sites: Sequence[Site], rule: str) -> list[Extent]:
    return [extent(site) for site in sites if site.rule == rule]


def _entries(size: Extent) -> int:
    """Entries of one output's gradient."""
    return size.groups * size.outer * size.tokens
