"""One use of one weight: all that a contraction may ask of it, whatever the layer was.

    gradients G: (N, g, e, T)      ∂f_o/∂y of one output at the T rows of y, in g groups of e channels
    inputs    A: (N, g, T, i)      the rows that the weight acted on; patches, where it is a convolution
    ∂f_o(x_n)/∂W[g, e, i] = Σ_t G[n, g, e, t] A[n, g, t, i]

Each kind of layer is one class in a file of its own, which holds everything that is known of the kind. A new kind is a
new file, and a line in the table of rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from kerneltrack.ntk.capture.jacobian_block import FormedBlock, JacobianBlock, KroneckerBlock
from kerneltrack.ntk.capture.record import Record

#: How uses of one weight that join are contracted: as rows of a linear map, as rows of a table that are looked up, or as
#: gradients that a sum over rows has formed already.
Form = Literal["tokens", "lookup", "features"]


@dataclass(frozen=True)
class Extent:
    """Sizes of one use: groups g, output channels e and input width i for each group, rows T."""

    groups: int
    outer: int
    inner: int
    tokens: int

    @property
    def features(self) -> int:
        """Entries of the weight that the use's gradient has."""
        return self.groups * self.outer * self.inner

    @property
    def gradients(self) -> int:
        """Entries of G for one sample and output."""
        return self.groups * self.outer * self.tokens

    @property
    def inputs(self) -> int:
        """Entries of A for one sample."""
        return self.groups * self.tokens * self.inner


@dataclass(eq=False)
class Use(ABC):
    """One use of one weight.

    Attributes:
        record: what was recorded there; several uses (of a weight and of a bias) may share it.
        weight: the weight with its graph back to the parameters.
        rule: the kind's name in a printed plan.
        form: how uses that join are contracted.
    """

    record: Record
    weight: Tensor

    rule: ClassVar[str]
    form: ClassVar[Form]

    @abstractmethod
    def extent(self) -> Extent:
        """Its sizes; read off shapes, no arithmetic on data."""

    @abstractmethod
    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """∂f_o/∂y as autograd delivers it, (N, …), as G; a view wherever strides allow."""

    @abstractmethod
    def input_rows(self, start: int, stop: int) -> Tensor:
        """A for samples start ≤ n < stop, (n, g, T, i)."""

    def input_rows_in(self, start: int, stop: int, room: Tensor | None) -> Tensor:
        """:meth:`input_rows`, what is copied for them in ``room`` of :meth:`copied_inputs` entries for each sample, if given."""
        return self.input_rows(start, stop)

    @abstractmethod
    def joins(self, other: Use) -> bool:
        """Whether both, of one weight, are rows of one and the same linear map."""

    def overlap_rows(self, start: int, stop: int) -> Tensor:
        """What :meth:`overlaps` is made of, for samples start ≤ n < stop."""
        return self.input_rows(start, stop)

    def overlaps(self, left: Tensor, right: Tensor) -> Tensor:
        """K = A Aᵀ of samples with samples, (n, g, T, m, T), from their :meth:`overlap_rows`."""
        return row_overlaps(left, right)

    def pixel_work(self) -> tuple[int, int]:
        """Multiply-adds and additions of K for a pair of samples, where something cheaper than A makes it; else 0, 0."""
        return 0, 0

    def ties(self, other: Use) -> bool:
        """Whether this is a lookup in a table of which ``other`` is the linear map y_v = E[v] · x."""
        return False

    def shared_rows(self, rows: Tensor) -> Tensor:
        """G, where another use of the same record has laid out its rows."""
        return rows

    def weight_gradient(self, gradients: Tensor, start: int, stop: int) -> Tensor:
        """∂f_o(x_n)/∂W for G of several outputs, (n, O, g, e, T), in the weight's own layout: (n, O, |W|)."""
        n, o, g, e, t = gradients.shape
        rows = gradients.transpose(1, 2).reshape(n, g, o * e, t) @ self.input_rows(start, stop)
        return self.weight_layout(rows.view(n, g, o, e, -1).transpose(1, 2))

    def summed_gradient(self, gradient: Tensor, change: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
        """Σ_nt g_nt ⊗ a_nt for G (N, g, e, T), in the weight's own layout, (|W|,); with ``change`` applied to A."""
        rows = change(self.input_rows(0, gradient.shape[0])).to(gradient.dtype)
        return self.weight_layout(torch.einsum("nget,ngti->gei", gradient, rows))

    def weight_layout(self, gradient: Tensor) -> Tensor:
        """A gradient (…, g, e, i) with its last axes in the weight's own order, flat: (…, |W|)."""
        return gradient.flatten(-3)

    def jacobian_block(self, gradients: Sequence[Tensor]) -> JacobianBlock:
        """Its columns of J for products, as factors or formed, whichever are fewer; ``gradients`` has G for every output."""
        if self.is_formed(len(gradients)):
            return FormedBlock.of(gradients, self.input_rows)
        return KroneckerBlock.of(gradients, self.input_rows(0, gradients[0].shape[0]))

    def is_formed(self, outputs: int) -> bool:
        """Whether :meth:`jacobian_block` has the columns of J themselves: fewer numbers than G of so many outputs and A."""
        return outputs * self.extent().features < outputs * self.extent().gradients + self.held_inputs()

    def block_layout(self, entries: Tensor) -> Tensor:
        """Numbers of the weight's shape, one an entry, as :meth:`jacobian_block` has one vector W: (g, e, i)."""
        size = self.extent()
        places = torch.arange(size.features, device=entries.device).view(size.groups, size.outer, size.inner)
        found = entries.new_empty(size.features)
        found[self.weight_layout(places)] = entries.flatten()
        return found.view_as(places)

    def held_inputs(self) -> int:
        """Entries that the block of :meth:`jacobian_block` holds beside G for one sample."""
        return self.extent().inputs

    def held_entries(self, outputs: int) -> int:
        """Entries of one sample in the columns of J that products are made with."""
        size = self.extent()
        return outputs * size.features if self.is_formed(outputs) else outputs * size.gradients + self.held_inputs()

    def copied_inputs(self) -> int:
        """Entries of one sample's input rows that have to be formed because they are no view."""
        return 0

    def summed_gradients(self) -> int:
        """Entries that summing rows of one index takes beside G for one sample and output."""
        return 0

    def signature(self) -> tuple[object, ...]:
        """What it has in common with the same use in another forward pass of the same model."""
        own = (getattr(self, name) for name in _own_fields(type(self)))
        return type(self).__name__, self.weight.shape, self.record.shape[1:], *own


class FormedUse(Use):
    """A use whose gradients autograd forms itself: its input is the constant 1, and sums over rows are all that is left."""

    form = "features"

    def input_rows(self, start: int, stop: int) -> Tensor:
        return self.weight.new_ones(1).expand(stop - start, 1, self.extent().tokens, 1)

    def joins(self, other: Use) -> bool:
        """Formed gradients add up whatever they came from."""
        return other.form == "features"

    def weight_gradient(self, gradients: Tensor, start: int, stop: int) -> Tensor:
        return gradients.sum(-1).flatten(2)

    def summed_gradient(self, gradient: Tensor, change: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
        return gradient.sum((0, -1)).flatten()

    def is_formed(self, outputs: int) -> bool:
        return True

    def held_inputs(self) -> int:
        return 0


def row_overlaps(left: Tensor, right: Tensor) -> Tensor:
    """K of input rows (n, g, T, i) with input rows (m, g, S, i): (n, g, T, m, S)."""
    n, g, t, i = left.shape
    rows, columns = left.transpose(0, 1).reshape(g, n * t, i), right.transpose(0, 1).reshape(g, -1, i)
    return (rows @ columns.transpose(1, 2)).view(g, n, t, right.shape[0], -1).transpose(0, 1)


@cache
def _own_fields(kind: type[Use]) -> tuple[str, ...]:
    """What a kind knows beside the record and the weight."""
    return tuple(field.name for field in fields(kind) if field.name not in ("record", "weight"))
