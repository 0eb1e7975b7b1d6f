"""Forming per-sample gradients F_no = Σ_t g_not ⊗ a_nt of a linear map, slice by slice.

A slice is a range of output channels and input columns, small enough to stay in a cache between the product
that forms it and the Gram product that reads it. The gradients of all outputs go into one matrix product for
each sample: (O·e × T) (T × i). One product for each output has e rows, too few where e is 6 or 16, and torch
runs a batch of products into a strided result one by one: 12 ms instead of 59 for 2,560 products of
(16 × 100) (100 × 150).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.machine import Machine


@dataclass(frozen=True)
class Operands:
    """One use of the weight: G for every output, (n, g, e, T), and A, (n, g, T, i)."""

    gradients: Sequence[Tensor]
    inputs: Tensor


@dataclass(frozen=True)
class Slice:
    """How many outputs, groups, channels and columns are formed at once.

    For the trace the outputs are channels too, and a slice may have some of them; else it has all.
    """

    outputs: int
    groups: int
    channels: int
    columns: int

    def cut(self, uses: Sequence[Operands]) -> Iterator[list[Operands]]:
        """The slices of ``uses`` that cover each entry of the weight, and each output, once."""
        (_, g, e, _), o, i = uses[0].gradients[0].shape, len(uses[0].gradients), uses[0].inputs.shape[-1]
        for k, group, first, start in itertools.product(
            range(0, o, self.outputs), range(0, g, self.groups), range(0, e, self.channels), range(0, i, self.columns)
        ):
            groups, channels = slice(group, group + self.groups), slice(first, first + self.channels)
            columns = slice(start, start + self.columns)
            yield [
                Operands(
                    [part[:, groups, channels] for part in use.gradients[k : k + self.outputs]],
                    use.inputs[:, groups, :, columns],
                )
                for use in uses
            ]


def token_features(
    block: SampleBlock, term: Term, plane: int, width: int, buffer: Tensor, machine: Machine, room: Tensor | None = None
) -> Iterator[Tensor]:
    """Per-sample gradients of a "tokens" term, slice by slice, (n·Q, ≤ width) each.

    Args:
        block: a block of samples.
        term: the term.
        plane: which plane of the reduction.
        width: entries of a row of a slice, at most.
        buffer: at least n·Q·width entries, overwritten by every slice: fresh pages from the system cost as
            much as the products.
        machine: what runs it.
        room: where the input rows of a weight's one use are copied to, if they are: for the same reason.
    """
    own = room if len(term.uses) == 1 else None
    uses = [Operands(block.row_planes(i)[plane], block.input_rows(i, 0, block.count, own)) for i in term.uses]
    trace = block.kind == "trace"
    for cut in _slice(uses[0], width, trace, machine).cut(uses):
        yield _form(cut, buffer, trace, machine.copy_bytes)


def _slice(use: Operands, width: int, trace: bool, machine: Machine) -> Slice:
    """The largest slice of at most ``width`` entries a row whose products have enough rows and columns."""
    (_, g, e, _), o, i = use.gradients[0].shape, len(use.gradients), use.inputs.shape[-1]
    wide, enough = (o * e, machine.product_rows) if trace else (e, -(-machine.product_rows // o))
    columns = min(i, width, max(machine.product_columns, width // min(wide, enough)))
    channels = max(1, min(wide, width // columns))
    groups = max(1, min(g, width // (wide * i)))
    if trace:
        return Slice(max(1, channels // e), groups, min(e, channels), columns)
    return Slice(o, groups, channels, columns)


def _form(uses: Sequence[Operands], buffer: Tensor, trace: bool, copy_bytes: int) -> Tensor:
    """The features of one slice, (n, g·O·e·i) for the trace, else (n·O, g·e·i); in ``buffer``."""
    n, g, e, _ = uses[0].gradients[0].shape
    o, i = len(uses[0].gradients), uses[0].inputs.shape[-1]
    formed = buffer[: n * g * o * e * i].view(n * g, o * e, i)
    for index, use in enumerate(uses):
        for rows, gradients in _side_by_side(use.gradients, min(copy_bytes, buffer.nbytes)):
            target = formed[rows.start * g : rows.stop * g]
            _multiply(gradients, use.inputs[rows].flatten(0, 1), target, add=index > 0)
    if trace:
        return formed.view(n, -1)
    if g == 1:
        return formed.view(n * o, e * i)
    return formed.view(n, g, o, e, i).transpose(1, 2).reshape(n * o, g * e * i)


def _multiply(left: Tensor, right: Tensor, into: Tensor, add: bool) -> None:
    if add:
        into.baddbmm_(left, right)
    else:
        torch.bmm(left, right, out=into)


def _side_by_side(outputs: Sequence[Tensor], most: int) -> Iterator[tuple[slice, Tensor]]:
    """O gradients (n, g, e, T) as (n·g, O·e, T), a few samples (≤ ``most`` bytes) at a time.

    The memory order of what autograd delivers is kept.
    """
    n, g, e, t = outputs[0].shape
    o = len(outputs)
    if o == 1:
        yield slice(0, n), outputs[0].flatten(0, 1)
        return
    rows_last = outputs[0].stride(2) == 1 and t > 1
    chunk = max(1, min(n, most // (o * g * e * t * outputs[0].element_size())))
    copy = outputs[0].new_empty((chunk, g, t, o, e) if rows_last else (chunk, g, o, e, t))
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        part = copy[: stop - start]
        for k, gradient in enumerate(outputs):
            if rows_last:
                part[..., k, :] = gradient[start:stop].transpose(2, 3)
            else:
                part[:, :, k] = gradient[start:stop]
        flat = part.flatten(3).transpose(2, 3) if rows_last else part.flatten(2, 3)
        yield slice(start, stop), flat.flatten(0, 1)
