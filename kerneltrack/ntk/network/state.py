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
#: What a class defines and nothing changes inside.
_ITSELF = (FunctionType, property, classmethod, staticmethod, type)


class State:
    """What a module, its modes, submodules and attributes, and some values beside it are now.

    Attributes, also those of the modules' classes, that are numbers, texts, tensors, arrays, dataclasses, or short tuples,
    lists, sets and dicts of such are taken by their value, and other objects as they are: what changes inside one of
    those is not seen.

    Args:
        module: the root.
        beside: samples and whatever else counts.
        like: an earlier state, of which what classes define is taken where it is the same.
    """

    def __init__(self, module: nn.Module, beside: Iterable[Any], like: State | None = None) -> None:
        seen, modules, known = _Sight(), list(module.modules()), {} if like is None else like._defined
        kinds = dict.fromkeys(kind for child in modules for kind in type(child).__mro__)
        own = [kind for kind in kinds if kind not in (nn.Module, object)]
        self._defined: dict[type, _Definitions] = {
            kind: found if (found := known.get(kind)) and found.holds() else _Definitions(kind) for kind in own
        }
        self._facts = (
            [_inside(child, seen) for child in modules],
            [(defined.fixed, defined.rest(seen)) for defined in self._defined.values()],
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
    """A module's mode, and everything that it holds under each name."""
    tensors = [(name, seen.registered(tensor)) for kind in _TENSORS for name, tensor in getattr(module, kind).items()]
    modules = [(name, _Itself(child)) for name, child in module._modules.items()]
    own = [(name, seen.value(value)) for name, value in vars(module).items() if name not in _REGISTERED]
    return _Itself(module), _Itself(type(module)), module.training, tensors, modules, own


class _Definitions:
    """What a class of modules defines: a method or a constant may be replaced there, and a container may change.

    Args:
        kind: the class.

    Attributes:
        fixed: by name what cannot change inside.
    """

    def __init__(self, kind: type) -> None:
        self._kind, self._own = kind, dict(vars(kind))
        items = [item for item in self._own.items() if not item[0].startswith("__")]
        self.fixed = [(name, _Itself(value)) for name, value in items if isinstance(value, _ITSELF)]
        self._rest = [(name, value) for name, value in items if not isinstance(value, _ITSELF)]

    def holds(self) -> bool:
        """Whether the class still has the very same objects under the same names."""
        now = vars(self._kind)
        return [*now] == [*self._own] and all(map(is_, now.values(), self._own.values()))

    def rest(self, seen: _Sight) -> list[tuple[str, Any]]:
        """By name what may change inside, as it is now."""
        return [(name, seen.value(value)) for name, value in self._rest]


#: Where torch keeps what is asked for by itself: parameters, buffers, submodules and the mode.
_TENSORS = ("_parameters", "_buffers")
_REGISTERED = (*_TENSORS, "_modules", "training")
