"""What a recorded graph of operators does twice, or for nothing, is left out; every number stays the same to the bit.

A capture says what is meant, use by use: two of them cut the same patches, a layer's clone guards from a write that never comes,
unit vectors are made anew. On a small kernel each such operator costs as much as one that computes.
"""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

#: Of what they are given they read shape and dtype alone.
_LIKE = frozenset(
    getattr(torch.ops.aten, name).default
    for name in ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
)


def simplify(graph: Graph) -> list[Tensor]:
    """Changes ``graph``, of which every node's ``meta`` has its ``value``, its ``root`` and the roots that it ``writes`` to.

    A root is the node that made the memory. Memory that something writes to, or that is left behind, is not shared.

    Returns:
        What the new placeholders stand for, in their order, the first of them first: numbers that are the same in every replay.
    """
    everything = list(graph.nodes)
    own = {root for node in everything for root in node.meta.get("writes", ())}
    own |= {node.meta["root"] for node in graph.output_node().all_input_nodes}
    _without_copies(graph, own)
    constants = _constants(graph, own)
    _once(graph, own)
    graph.eliminate_dead_code()
    for node in (*everything, *graph.nodes):  # they hold what was made, also those that are gone
        node.meta.clear()
    return constants


def _without_copies(graph: Graph, own: set[Node]) -> None:
    for node in list(graph.nodes):
        if node.target is not torch.clone or node.meta["root"] in own:
            continue
        (source,), made = node.args[:1], node.meta["value"]
        if source.meta["root"] not in own and _layout(source.meta["value"]) == _layout(made):
            root = source.meta["root"]
            for other in graph.nodes:
                if other.meta.get("root") is node:
                    other.meta["root"] = root
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _layout(value: Tensor) -> tuple[Any, ...]:
    return value.shape, value.stride(), value.storage_offset(), value.dtype


def _constants(graph: Graph, own: set[Node]) -> list[Tensor]:
    """What follows from shapes alone becomes a placeholder."""
    fixed: list[Node] = []
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.meta.get("value"), Tensor) or node.meta.get("writes"):
            continue
        given = [] if node.target in _LIKE else node.all_input_nodes
        if all(one in fixed for one in given) and node.meta["root"] not in own:
            fixed.append(node)
    used = [node for node in fixed if any(user not in fixed for user in node.users)]
    start = next(iter(graph.nodes))
    for place, node in enumerate(used):
        with graph.inserting_before(start):
            constant = graph.placeholder(f"constant_{place}")
        constant.meta = {"root": constant, "value": node.meta["value"]}
        node.replace_all_uses_with(constant)
    return [node.meta["value"] for node in used]


def _once(graph: Graph, own: set[Node]) -> None:
    known: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.meta.get("writes"):
            continue
        read = [
            one.meta["root"]
            for one in (node, *node.all_input_nodes, *(user for user in node.users if user.target is getitem))
        ]
        if node.target is not torch.as_strided and own.intersection(read):
            continue
        key = node.target, _hashable(node.args), _hashable(tuple(node.kwargs.items()))
        if (first := known.setdefault(key, node)) is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _hashable(value: Any) -> Any:
    """Nodes as they are; 1, 1.0 and True apart."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, Node) else (type(value), value)
