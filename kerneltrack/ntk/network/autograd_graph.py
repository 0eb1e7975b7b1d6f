"""Walks over autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import Node


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
