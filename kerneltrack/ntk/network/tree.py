"""The tree of a module: its submodules, parameters and buffers by name, and the slots that hold them, found by one walk.

A slot is one attribute of one module object. A module that is registered under two names has its slots once: filled
twice, a slot would be left with the replacement of the first time. A tied tensor has several slots, and all are filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

#: Where torch keeps what is swapped. A parameter that is registered as a buffer too is a parameter.
_TABLES = ("_parameters", "_buffers")


class Slot(NamedTuple):
    """Where a module keeps a tensor: its table, the name there, and the first name of the tensor in the whole tree."""

    module: nn.Module
    table: str
    attribute: str
    first: str


class Tree:
    """What a module consists of now.

    Args:
        root: the module.

    Attributes:
        modules: each submodule once, by its first name, the root first.
        slots: all that hold a tensor, parameters before buffers.
        parameters: each once, by its first name, as ``root.named_parameters()`` has them.
        buffers: the same of buffers.
    """

    def __init__(self, root: nn.Module) -> None:
        self.modules = list(root.named_modules())
        self.slots: list[Slot] = []
        first: dict[int, str] = {}
        self.parameters, self.buffers = (self._look(table, first) for table in _TABLES)

    def _look(self, table: str, first: dict[int, str]) -> dict[str, Tensor]:
        own: dict[int, tuple[str, Tensor]] = {}
        for prefix, module in self.modules:
            for attribute, tensor in getattr(module, table).items():
                if tensor is not None:
                    name = f"{prefix}.{attribute}" if prefix else attribute
                    self.slots.append(Slot(module, table, attribute, first.setdefault(id(tensor), name)))
                    own.setdefault(id(tensor), (name, tensor))
        return dict(own.values())


def copied(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors; dense ones are made all at once, by one operation for each dtype."""
    alike: dict[tuple[torch.dtype, torch.device], list[str]] = {}
    for name, tensor in held.items():
        if tensor.layout == torch.strided and tensor.device.type != "meta":
            alike.setdefault((tensor.dtype, tensor.device), []).append(name)
    copies = {name: torch.empty_like(held[name]) for group in alike.values() for name in group}
    for group in alike.values():
        torch._foreach_copy_([copies[name] for name in group], [held[name] for name in group])
    return {name: copies[name] if name in copies else tensor.clone() for name, tensor in held.items()}


@contextmanager
def filled(slots: Iterable[Slot], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Every slot holds the value of its tensor's first name; afterwards what it held before."""
    before = [(held := getattr(slot.module, slot.table), slot, held[slot.attribute]) for slot in slots]
    try:
        for table, slot, _ in before:
            table[slot.attribute] = values[slot.first]
        yield
    finally:
        for table, slot, tensor in before:
            table[slot.attribute] = tensor
