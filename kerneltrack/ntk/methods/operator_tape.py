"""A tape for a CPU: the operators below autograd, written down once as one function, and called again without the network.

Where a kernel is small, most of its time goes into Python: modules, hooks, transforms, uses, plans. Of all that only some hundred
operators arrive at the device. They are written down with the tensors that they were given and have made, and a replay
calls just these, on whatever parameters and samples hold now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

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
        self._left: list[Tensor] = []
        self._run: Callable[..., tuple[Tensor, ...]] | None = None

    def record(self, work: Callable[[], Iterable[Tensor]]) -> None:
        """Does the work once, and writes down its operators.

        Raises:
            RuntimeError: an operator is given what cannot be written down, as a generator of random numbers.
        """
        with _Writer() as writer:
            left = [tensor.detach() for tensor in work()]
        self._given, self._left, self._run = writer.given, left, writer.compiled(left)

    @torch.no_grad()
    def replay(self) -> None:
        """Does it again; what was left stands where the record has left it."""
        assert self._run is not None
        made = self._run(*self._given)
        if made:
            torch._foreach_copy_(self._left, list(made))


class _Writer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """Writes operators into a graph.

    A tensor is known by its place in memory and its shape there, because autograd gives back what it has saved as another object.
    So everything is kept until the end, that no place has two tenants.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.given: list[Tensor] = []
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
            for place, one in enumerate(made):
                if isinstance(one, Tensor):
                    self._keep(one, call if one is result else self._graph.call_function(getitem, (call, place)))
        return result

    def compiled(self, left: Iterable[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """What was written, as a function of :attr:`given`; it returns what was ``left``."""
        self._graph.output(tuple(self._node(tensor) for tensor in left))
        self._alive.clear()
        self._graph.eliminate_dead_code()
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


def _place(tensor: Tensor) -> tuple[Any, ...]:
    memory = tensor.untyped_storage().data_ptr()
    return memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
