"""Inputs of a network: a tensor, or any pytree of tensors whose first axis is the sample axis N.

Leaves that are not tensors (None, flags, strings) are constants: every sample sees the same. The model receives copies,
so that a forward that writes to its inputs changes nobody's samples. Nothing here knows of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from kerneltrack.errors import ProbeError
from kerneltrack.probe import opened

#: How the kernel of nodes is asked for, whose outputs all come of one graph.
INDEX_TRICK = (
    "give the nodes' indices, torch.arange(N), and forward=lambda m, i: m(X, edges)[i] (docs/how-to/graphs.md)."
)


class Inputs:
    """N samples, cut into tensors and the tree that holds them.

    Args:
        x: a tensor (N, …) or a pytree with at least one tensor; all its tensors share the first axis. A mapping that is
            no dict (UserDict, BatchEncoding) becomes one.
        attached: whether the tensors stay those of the caller, with what autograd knows of them.

    Raises:
        ProbeError: there is no tensor, no sample, or the first axes differ.
    """

    def __init__(self, x: Any, *, name: str = "x", attached: bool = False) -> None:
        leaves, self.tree = tree_flatten(opened(x))
        self.slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors: tuple[Tensor, ...] = tuple(leaves[i] if attached else _plain(leaves[i]) for i in self.slots)
        self.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if not self.tensors:
            raise ProbeError(
                f"{name} holds no tensor",
                expected="a tensor or a pytree of tensors",
                got=type(x).__name__,
                remedy=_how_to_give(leaves, name),
            )
        lengths = {t.shape[0] if t.dim() else None for t in self.tensors}
        if len(lengths) != 1 or None in lengths:
            raise ProbeError(
                f"the tensors of {name} do not share a sample axis",
                expected="the same first axis N everywhere",
                got=[tuple(t.shape) for t in self.tensors],
                remedy=_how_to_share(self.tensors),
            )
        if 0 in lengths:
            raise ProbeError(f"{name} is empty", expected="at least one sample", got="N = 0")

    @property
    def is_tensor(self) -> bool:
        """Whether they are one tensor, and no tree around it."""
        return self.tree.is_leaf()

    @cached_property
    def kinds(self) -> tuple[tuple[torch.Size, torch.dtype], ...]:
        """Shape and dtype of one sample's part of each tensor."""
        return tuple((t.shape[1:], t.dtype) for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def replace(self, tensors: tuple[Tensor, ...]) -> Inputs:
        """The same tree around other tensors."""
        other = object.__new__(Inputs)
        other.tree, other.slots, other.constants, other.tensors = (self.tree, self.slots, self.constants, tensors)
        return other

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """The same tree with ``function`` applied to every tensor."""
        return self.replace(tuple(function(t) for t in self.tensors))

    def required_on(self, device: torch.device, name: str) -> Inputs:
        """These samples, called ``name``, if they lie where the model does.

        Raises:
            ProbeError: names both devices.
        """
        for tensor in self.tensors:
            if tensor.device != device:
                raise ProbeError(
                    f"{name} is on another device than the model",
                    expected=device,
                    got=tensor.device,
                    remedy=f"Move it: {name}.to({str(device)!r}).",
                )
        return self

    def rows(self, start: int, stop: int) -> Inputs:
        """Samples start ≤ n < stop."""
        return self.map(lambda t: t[start:stop])

    def pick(self, indices: list[int]) -> Inputs:
        """The samples at ``indices``, copied."""
        return self.map(lambda t: t[indices])

    def chunks(self, size: int) -> Iterator[tuple[slice, Inputs]]:
        """Consecutive blocks of at most ``size`` samples, each with its place."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield slice(start, stop), self.rows(start, stop)

    def to(self, dtype: torch.dtype | None) -> Inputs:
        """The same with floating tensors in ``dtype``."""
        if dtype is None:
            return self
        return self.map(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def assemble(self) -> Any:
        """The pytree that the model receives, with copies of the tensors: some models normalise their inputs in place."""
        leaves = list(self.constants)
        for slot, tensor in zip(self.slots, self.tensors, strict=True):
            leaves[slot] = tensor.clone()
        tree: TreeSpec = self.tree
        return tree_unflatten(leaves, tree)

    def same_as(self, other: Inputs) -> bool:
        """Whether both are the very same tensors, so that their kernel is symmetric."""
        return len(self.tensors) == len(other.tensors) and all(
            a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride())
            for a, b in zip(self.tensors, other.tensors, strict=True)
        )


def _plain(tensor: Tensor) -> Tensor:
    """Detached, and usable by autograd also when it was made under ``torch.inference_mode``."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _how_to_share(tensors: tuple[Tensor, ...]) -> str:
    """What to do where the first axes differ: two rows of indices are the edges of a graph."""
    if any(t.layout != torch.strided or (t.dim() == 2 and len(t) == 2 and not t.is_floating_point()) for t in tensors):
        return f"A graph is common to its nodes: {INDEX_TRICK}"
    return "Put what is common to all samples into the model, or expand it to N rows."


def _how_to_give(leaves: list[Any], name: str) -> str:
    """What to do where there is no tensor: a graph, an object with tensors in it, or arrays."""
    held = [vars(leaf) for leaf in leaves if hasattr(leaf, "__dict__")]
    if any(hasattr(leaf, graph) for leaf in leaves for graph in ("edge_index", "adj_t", "edges")):
        return f"A graph has no axis of samples; {INDEX_TRICK}"
    fields = [key for values in held for key, value in values.items() if isinstance(value, Tensor)]
    if fields:
        return (
            f"Give its tensors as a dict, {{{', '.join(f'{key!r}: {name}.{key}' for key in fields[:4])}}}, and make the "
            f"object in forward=lambda model, d: model({type(leaves[0]).__name__}(**d))."
        )
    return "Convert arrays with torch.as_tensor."
