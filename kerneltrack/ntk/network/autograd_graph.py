"""Walks over autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd.graph import Node

#: Kinds of nodes that torch makes for its own operations, of which reverse mode is the derivative. A slice that was written
#: into holds another node inside, which nobody sees.
_OWN = {kind for name, kind in vars(torch._C._functions).items() if isinstance(kind, type) and name != "CopySlices"}


def reachable_leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """The leaf tensors to which autograd's graph leads from ``roots``."""
    leaves: dict[int, Tensor] = {}
    stack: list[Node | None] = []
    for root in roots:
        if root.requires_grad and root.grad_fn is None:
            leaves[id(root)] = root
        stack.append(root.grad_fn)
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if parents := node.next_functions:
            stack += [parent for parent, _ in parents]
        elif isinstance(variable := getattr(node, "variable", None), Tensor):
            leaves[id(variable)] = variable
    return list(leaves.values())


def is_of_torch(root: Tensor) -> bool:
    """Whether every node behind ``root`` is one of torch's own operations, and none a function with a backward of its own."""
    seen: set[Node] = set()
    stack: list[Node | None] = [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if type(node) not in _OWN:
            return False
        seen.add(node)
        stack += [parent for parent, _ in node.next_functions]
    return True
