"""An order of contraction: from inputs A and gradients G of two blocks of samples to a term's part of Θ.

Cost formulas are those of Novak et al. 2022 (arXiv 2206.08720, section 3; the names are ours), with only half of the
pairs when both sides are the same. A multiply-add is two operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.machine import Machine


@dataclass(frozen=True)
class ContractionSize:
    """Sizes of one term's contraction: pairs of samples, Q outputs that are paired, B planes.

    The sizes g, e, i and T are those of the factors. Where K = A Aᵀ of a pair of samples is made of pixels, ``pixel_products`` and
    ``pixel_sums`` are what that takes.
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
    pixel_products: int = 0
    pixel_sums: int = 0

    @property
    def all_pairs(self) -> int:
        """Pairs on both sides of a symmetric kernel's diagonal; of two sets of samples there is one side."""
        symmetric = self.sample_pairs == self.rows * (self.rows + 1) // 2
        return self.rows**2 if symmetric else self.sample_pairs

    @property
    def features(self) -> int:
        """Entries of one per-sample gradient."""
        return self.groups * self.outer * self.inner

    @property
    def is_one_row(self) -> bool:
        """Whether a sample's gradient is one outer product."""
        return self.tokens == 1 and self.groups == 1


@dataclass(frozen=True)
class OrderCost:
    """Operations, memory traffic, and the two together as operations of a large matrix product."""

    flops: int
    bytes: int
    time: float


@dataclass(frozen=True)
class Order(ABC):
    """One order of contraction, on one machine."""

    machine: Machine

    name: ClassVar[str]
    takes_bias: ClassVar[bool] = False  # whether it adds the bias of a layer together with its weight

    @abstractmethod
    def applies(self, term: Term, size: ContractionSize) -> bool:
        """Whether it can contract the term."""

    @abstractmethod
    def cost(self, size: ContractionSize) -> OrderCost:
        """What it costs."""

    @abstractmethod
    def add_many(
        self,
        theta: Tensor,
        left: SampleBlock,
        right: SampleBlock,
        terms: Sequence[Term],
        *,
        symmetric: bool,
        workspace: int,
    ) -> None:
        """Adds to theta (B, n1·Q, n2·Q) what the terms contribute; all at once, so that theta is read less often.

        Args:
            theta: where to add.
            left: first block of samples.
            right: second block.
            terms: terms that it applies to.
            symmetric: whether both blocks are one: then entries on and above the diagonal are enough.
            workspace: bytes that may be held beside theta and the blocks.
        """

    def _total(self, traffic: int, launches: int, **flops: int) -> OrderCost:
        """Sums up FLOPs by the efficiency of each kind of work, bytes, and operations to start."""
        time = sum(count / getattr(self.machine.efficiency, kind) for kind, count in flops.items())
        time += self.machine.operations_per_byte * traffic + self.machine.launch_operations * launches
        return OrderCost(sum(flops.values()), traffic, time)


class TermByTerm(Order):
    """An order that adds one term after the other."""

    def add_many(
        self,
        theta: Tensor,
        left: SampleBlock,
        right: SampleBlock,
        terms: Sequence[Term],
        *,
        symmetric: bool,
        workspace: int,
    ) -> None:
        for term in terms:
            self.add(theta, left, right, term, symmetric, workspace // theta.element_size())

    @abstractmethod
    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One term; ``entries`` may be held beside theta and the blocks. The rest is as of :meth:`add_many`."""
