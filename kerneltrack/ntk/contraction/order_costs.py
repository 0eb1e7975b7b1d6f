"""The cost of each order of contraction in FLOPs and bytes, and the choice between them.

Integer arithmetic; no torch.

Formulas of Novak et al. 2022 (arXiv 2206.08720, section 3), with only half of the pairs when both sides are
the same. A multiply-add is two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Operations that a core does while it moves one byte to or from memory: about 10 on CPUs (70 GFLOP/s
#: against 7 GB/s for each core here) and about 14 on data-centre GPUs (67 TFLOP/s in float32 against 4.8
#: TB/s).
OPERATIONS_PER_BYTE = 10

#: Small or thin matrix products run below the rate of large ones. Measured on CPUs with T between 16 and
#: 256: forming per-sample gradients at 0.6 of the rate, the hybrid's T × T products at 0.5.
EFFICIENCY = {"gradient": 1.0, "form": 0.6, "token": 0.9, "hybrid": 0.5, "lookup": 0.1}


@dataclass(frozen=True)
class ContractionSize:
    """Sizes of one weight's contraction: pairs of samples, Q outputs that are paired, B planes.

    The sizes g, e, i and T are those of the factors.
    """

    rows: int
    sample_pairs: int
    outputs: int
    planes: int
    groups: int
    outer: int
    inner: int
    tokens: int
    item_bytes: int

    @property
    def features(self) -> int:
        """Entries of one per-sample gradient."""
        return self.groups * self.outer * self.inner


@dataclass(frozen=True)
class OrderCost:
    """Operations, memory traffic, and the two together as operations of a large matrix product."""

    flops: int
    bytes: int
    time: float


def cost(order: str, p: ContractionSize) -> OrderCost:
    """What ``order`` costs on the problem ``p``."""
    q, b = p.outputs, p.planes
    if order == "gradient":
        form = 2 * p.rows * b * q * p.tokens * p.features if p.tokens * p.inner > 1 else 0
        gram = 2 * p.sample_pairs * b * q * q * p.features
        traffic = p.item_bytes * b * (3 * p.rows * q * p.features + p.rows * q * p.groups * p.outer * p.tokens)
        return _total({"form": form, "gradient": gram}, traffic)
    if order == "token":
        work = 2 * p.sample_pairs * p.inner + b * p.sample_pairs * q * q * (2 * p.outer + 2)
        return _total({"token": work}, p.item_bytes * b * p.sample_pairs * q * q // 4)
    if order == "hybrid":
        overlap = 2 * p.sample_pairs * p.groups * p.tokens**2 * p.inner
        channels = b * q * p.groups * p.outer
        push = 2 * p.sample_pairs * p.tokens**2 * channels
        close = 2 * p.sample_pairs * p.tokens * channels * q
        traffic = p.item_bytes * p.sample_pairs * (2 * channels * p.tokens + 2 * p.groups * p.tokens**2)
        return _total({"gradient": overlap, "hybrid": push + close}, traffic)
    if order == "lookup":
        # Rows of one sample with one index are summed first: two samples meet in at most T indices.
        work = 2 * p.sample_pairs * p.tokens * b * q * q * p.outer
        return _total(
            {"lookup": work}, p.item_bytes * b * q * p.outer * (2 * p.rows * p.tokens + p.sample_pairs * p.tokens)
        )
    if order == "tied":
        # Every looked-up row with the gradients of every sample's linear map, in both directions.
        rows = p.sample_pairs * p.tokens * b * q
        work = 4 * rows * (p.inner + q)
        return _total({"lookup": work}, 4 * p.item_bytes * rows * q)
    raise ValueError(order)


def _total(flops: dict[str, int], traffic: int) -> OrderCost:
    time = sum(count / EFFICIENCY[kind] for kind, count in flops.items()) + OPERATIONS_PER_BYTE * traffic
    return OrderCost(sum(flops.values()), traffic, time)


def choose(p: ContractionSize, lookup: bool = False) -> tuple[str, OrderCost]:
    """The cheapest order that applies: "token" needs one row, one group.

    An embedding's table is never expanded.
    """
    if lookup:
        orders = ["lookup"]
    elif p.tokens == 1 and p.groups == 1:
        orders = ["gradient", "token"]
    else:
        orders = ["gradient", "hybrid"]
    costs = {order: cost(order, p) for order in orders}
    best = min(costs, key=lambda order: costs[order].time)
    return best, costs[best]
