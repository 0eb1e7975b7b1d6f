"""A tape for a CPU: the operators below autograd, written down once as one function, and called again without the network.

Where a kernel is small, most of its time goes into Python: modules, hooks, transforms, uses, plans. Of all that only some hundred
operators arrive at the device. They are written down with the tensors that they were given and have made, and a replay
calls just these, on whatever parameters and samples hold now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from kerneltrack.ntk.methods.simplification import simplify

#: What can be written down beside tensors.
_WRITTEN = (int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
#: Functions of torch with the arguments of their operator. They are called in two thirds of the time, a view in a third.
_CALLED: dict[Any, Callable[..., Tensor]] = {
    getattr(torch.ops.aten, name).default: getattr(torch, name)
    for name in ("addmm", "bmm", "cat", "clone", "constant_pad_nd", "mm", "neg", "relu", "sigmoid", "tanh", "triu")
}


class OperatorTape:
    """Work on a CPU, recorded as a graph of operators.

    What was there before is read, and written, where it lies; what the work itself makes is made anew by every replay.
    """

    def __init__(self) -> None:
        self._given: list[Tensor] = []
        self._run: Callable[..., tuple[Tensor, ...]] | None = None

    def record(self, work: Callable[[], Iterable[Tensor]]) -> list[Tensor]:
        """Does the work once, and writes down its operators.

        Returns:
            What follows from shapes alone, and is kept.

        Raises:
            RuntimeError: an operator is given what cannot be written down, as a generator of random numbers.
        """
        with _Writer() as writer:
            self._run = writer.compiled([tensor.detach() for tensor in work()])
        constants: list[Tensor] = writer.constants
        self._given = [*constants, *writer.given]
        return constants

    @torch.no_grad()
    def replay(self) -> Sequence[Tensor]:
        """Does it again."""
        assert self._run is not None
        return self._run(*self._given)


class _Writer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """Writes operators into a graph.

    A tensor is known by its place in memory and its shape there, because autograd gives back what it has saved as another object.
    So everything is kept until the end, that no place has two tenants.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.given, self.constants = list[Tensor](), list[Tensor]()
        self._graph, self._alive = Graph(), list[Tensor]()
        self._known: dict[tuple[Any, ...], Node] = {}
        self._first: dict[int, tuple[Node, torch.dtype]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: else torch loads its whole compiler, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = tree_map(self._node, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        made = [result] if isinstance(result, Tensor) else result if isinstance(result, (tuple, list)) else []
        if func._schema.is_mutable or not all(self._is_view(one) for one in made):
            call = self._graph.call_function(_CALLED.get(func, func), *named)
            call.meta |= {"root": call, "writes": [self._root(one) for one in _written(func, args, kwargs or {})]}
            for place, one in enumerate(made):
                if isinstance(one, Tensor):
                    self._keep(one, call if one is result else self._graph.call_function(getitem, (call, place)))
            if torch.Tag.nondeterministic_seeded in func.tags:  # another one each time
                call.meta["writes"] += [self._root(one) for one in made if isinstance(one, Tensor)]
        return result

    def compiled(self, left: Iterable[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """What was written, as a function of :attr:`given`; it returns what was ``left``."""
        self._graph.output(tuple(self._node(tensor) for tensor in left))
        self.constants = simplify(self._graph)
        self._alive.clear()
        run: Callable[..., tuple[Tensor, ...]] = GraphModule(torch.nn.Module(), self._graph).forward
        return run

    def _node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            if value is not None and not isinstance(value, _WRITTEN):
                raise RuntimeError(f"an operator is given a {type(value).__name__}")
            return value
        if (known := self._known.get(_place(value))) is not None:
            return known
        first, _ = self._first.get(value.untyped_storage().data_ptr(), (None, None))
        if first is not None and first.op != "placeholder" and self._is_view(value):
            shape = tuple(value.shape), value.stride(), value.storage_offset()
            node = self._graph.call_function(torch.as_strided, (first, *shape))
        else:
            with self._graph.inserting_before(next(iter(self._graph.nodes), None)):  # so the last one comes first
                node = self._graph.placeholder(f"given_{len(self.given)}")
            self.given.insert(0, value.detach())
        self._keep(value, node)
        return node

    def _is_view(self, value: Any) -> bool:
        """Whether it lies in memory that is known; one operation makes it of what was there first, however it came about."""
        if not isinstance(value, Tensor) or value.is_conj() or value.is_neg():
            return False
        return self._first.get(value.untyped_storage().data_ptr(), (None, None))[1] == value.dtype

    def _keep(self, tensor: Tensor, node: Node) -> None:
        self._alive.append(tensor.detach())
        self._known[_place(tensor)] = node
        self._first.setdefault(tensor.untyped_storage().data_ptr(), (node, tensor.dtype))
        node.meta |= {"root": self._root(tensor), "value": self._alive[-1]}

    def _root(self, tensor: Tensor) -> Node:
        """The node that has made its memory."""
        return self._first[tensor.untyped_storage().data_ptr()][0]


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes to."""
    named = {one.name: one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments}
    given = {**dict(zip(named, args, strict=False)), **kwargs}
    return [leaf for name in given if named[name] for leaf in tree_leaves(given[name]) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    memory = tensor.untyped_storage().data_ptr()
    return memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
