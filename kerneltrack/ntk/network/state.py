"""What a network's outputs depend on, as a value that tells whether it has changed.

Pointers and version counters do not see a write through ``.data`` or through a NumPy view: contents are summed too
(:mod:`.checksum`). The sums stay on their devices and are compared there; what Python knows is compared at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from operator import is_
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kerneltrack.ntk.network.checksum import checksums, parts

#: Containers are looked into so deep and up to so many entries; numbers, texts and None are compared by value.
DEPTH, ENTRIES, CONTAINERS = 3, 1024, (dict, list, tuple)
_VALUES = (bool, int, float, complex, str, bytes, type(None))
#: What most attributes of a module are: empty tables of hooks.
_OFTEN_EMPTY = frozenset((OrderedDict, dict, list, tuple, set, frozenset))
#: What nothing changes inside; it can be replaced only.
_ITSELF = (FunctionType, property, classmethod, staticmethod, type)


class State:
    """What a module, its modes, submodules and attributes, and some values beside it are now.

    Attributes, also those of the modules' classes, that are numbers, texts, tensors, arrays, dataclasses, or short tuples,
    lists, sets and dicts of such are taken by their value, and other objects as they are: what changes inside one of
    those is not seen.

    Args:
        module: the root.
        beside: samples and whatever else counts.
        like: an earlier state, of which attributes are taken where they are the same.
    """

    def __init__(self, module: nn.Module, beside: Iterable[Any], like: State | None = None) -> None:
        seen, modules, known = _Sight(), list(module.modules()), {} if like is None else like._attributes
        kinds = dict.fromkeys(kind for child in modules for kind in type(child).__mro__)
        owners = [*modules, *(kind for kind in kinds if kind not in (nn.Module, object))]
        self._attributes: dict[int, _Attributes] = {
            id(owner): found if (found := known.get(id(owner))) and found.holds() else _Attributes(owner, seen)
            for owner in owners
        }
        self._facts = (
            [_inside(child, seen) for child in modules],
            [(own.fixed, own.rest(seen)) for own in self._attributes.values()],
            [seen.value(value) for value in beside],
        )
        self._sums = checksums(seen.contents)

    def differs(self, other: State) -> bool | list[Tensor]:
        """Whether this is known to be another state, and otherwise what says so of the contents: one flag on each device."""
        if self._facts != other._facts or self._sums.keys() != other._sums.keys():
            return True
        return [(sums != other._sums[device]).any() for device, sums in self._sums.items()]


class _Itself:
    """An object that is equal to itself only; kept alive, so that none that comes later has its address."""

    __slots__ = ("_one",)

    def __init__(self, one: Any) -> None:
        self._one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._one is other._one

    __hash__ = None  # type: ignore[assignment]  # nothing looks states up


class _Sight:
    """What was seen of tensors, each once, and whose contents are to be summed."""

    def __init__(self) -> None:
        self.contents: list[Tensor] = []
        self._known: dict[int, tuple[Tensor, int]] = {}

    def registered(self, tensor: Tensor | None) -> Any:
        """A parameter or buffer: which one it is among all, and whether it was written to, as far as torch knows.

        Without this, all would be found by the contents, at the price of a product in vain.
        """
        if tensor is None:
            return None
        version = None if tensor.is_inference() else tensor._version
        return self.tensor(tensor), _Itself(tensor), version, tensor.layout == torch.strided and tensor.data_ptr()

    def tensor(self, tensor: Tensor) -> Any:
        """Any tensor without its contents; these are noted, once."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = tensor, len(self._known)
            self.contents.append(tensor)
        held = None if tensor.layout == torch.strided else [part.shape for part in parts(tensor)]
        return self._known[id(tensor)][1], tensor.shape, tensor.dtype, tensor.requires_grad, held

    def value(self, value: Any, depth: int = DEPTH) -> Any:
        """A Python value, as it can be compared."""
        kind = type(value)
        if kind in _OFTEN_EMPTY and not value:
            return kind
        if kind in _VALUES or isinstance(value, _VALUES):
            return kind, value if value == value else "nan"
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            self.contents.append(torch.from_numpy(np.ascontiguousarray(value)))
            return value.shape, value.dtype
        return type(value), self._inside(value, depth) if depth else _Itself(value)

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, (Mapping, list, tuple, set, frozenset)) and len(value) <= ENTRIES:
            if isinstance(value, Mapping):
                return [(repr(key), self.value(entry, depth - 1)) for key, entry in value.items()]
            if isinstance(value, (set, frozenset)):
                return sorted(map(repr, value))
            return [self.value(entry, depth - 1) for entry in value]
        if isinstance(value, SimpleNamespace) or (is_dataclass(value) and not isinstance(value, type)):
            names = vars(value) if isinstance(value, SimpleNamespace) else [field.name for field in fields(value)]
            return [(name, self.value(getattr(value, name, None), depth - 1)) for name in names]
        return _Itself(value)


def _inside(module: nn.Module, seen: _Sight) -> Any:
    """A module's class and mode, and what torch keeps for it under each name."""
    tensors = [(name, seen.registered(tensor)) for kind in _TENSORS for name, tensor in getattr(module, kind).items()]
    modules = [(name, _Itself(child)) for name, child in module._modules.items()]
    return _Itself(module), _Itself(type(module)), module.training, tensors, modules


class _Attributes:
    """What a module has, or its class defines, by name: a method may be replaced there too, and a container may change.

    Args:
        owner: the module or class.
        seen: what is looked with.

    Attributes:
        fixed: what cannot change inside, and what is empty.
    """

    def __init__(self, owner: Any, seen: _Sight) -> None:
        self._owner, self._all = owner, dict(vars(owner))
        own = {name: value for name, value in self._all.items() if not _left_out(owner, name)}
        self._empty = [value for value in own.values() if type(value) in _OFTEN_EMPTY and not value]
        self.fixed = [(name, seen.value(value)) for name, value in own.items() if _is_fixed(value)]
        self._rest = [(name, value) for name, value in own.items() if not _is_fixed(value)]

    def holds(self) -> bool:
        """Whether the owner still has the very same objects under the same names, and those that were empty are so."""
        now = vars(self._owner)
        same = [*now] == [*self._all] and all(map(is_, now.values(), self._all.values()))
        return same and not any(self._empty)

    def rest(self, seen: _Sight) -> list[tuple[str, Any]]:
        """What may change inside, as it is now."""
        return [(name, seen.value(value)) for name, value in self._rest]


def _left_out(owner: Any, name: str) -> bool:
    return name.startswith("__") if isinstance(owner, type) else name in _REGISTERED


def _is_fixed(value: Any) -> bool:
    kind = type(value)
    if kind is tuple and all(type(entry) in _VALUES for entry in value):
        return len(value) <= ENTRIES
    return kind in _VALUES or (kind in _OFTEN_EMPTY and not value) or isinstance(value, _ITSELF)


#: Where torch keeps what is asked for by itself: parameters, buffers, submodules and the mode.
_TENSORS = ("_parameters", "_buffers")
_REGISTERED = (*_TENSORS, "_modules", "training")
