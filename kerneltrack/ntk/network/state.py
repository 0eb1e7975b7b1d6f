"""What a network's outputs depend on, as a value that tells whether it has changed.

Pointers and version counters do not see a write through ``.data`` or through a NumPy view: contents are summed too, word
by word, with a weight for each place, in integers that wrap around. A single changed word always changes the sum. The
sums stay on their devices and are compared there; what Python knows is compared at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Words in one row of a checksum; each row has a weight of its own.
_WIDTH = 4096
#: Containers are looked into so deep and up to so many entries; numbers, texts and None are compared by value.
DEPTH, ENTRIES, CONTAINERS = 3, 1024, (dict, list, tuple)
_VALUES = (bool, int, float, complex, str, bytes, type(None))

_WEIGHTS: dict[tuple[torch.device, int], Tensor] = {}


class State:
    """What a module, its modes, submodules and attributes, and some values beside it are now.

    Attributes, also those of the modules' classes, that are numbers, texts, tensors, arrays, dataclasses, or short tuples,
    lists, sets and dicts of such are taken by their value, and other objects as they are: what changes inside one of
    those is not seen.

    Args:
        module: the root.
        beside: samples and whatever else counts.
    """

    def __init__(self, module: nn.Module, beside: Iterable[Any]) -> None:
        seen = _Sight()
        self._facts = (
            [_inside(child, seen) for child in module.modules()],
            [(name, seen.value(value)) for name, value in _of_classes(module)],
            [seen.value(value) for value in beside],
        )
        devices: dict[torch.device, list[Tensor]] = {}
        for total in seen.sums:
            devices.setdefault(total.device, []).append(total)
        self._sums = {device: torch.stack(group) for device, group in devices.items()}

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
    """What was seen of tensors, each once, and the sums of their contents."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
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
        """Any tensor without its contents; the sums of these are kept, once."""
        if id(tensor) not in self._known:
            self._known[id(tensor)] = tensor, len(self._known)
            self.sums.extend(map(checksum, _parts(tensor)))
        return self._known[id(tensor)][1], tensor.shape, tensor.dtype, tensor.requires_grad

    def value(self, value: Any, depth: int = DEPTH) -> Any:
        """A Python value, as it can be compared."""
        if isinstance(value, _VALUES):
            return type(value), value if value == value else "nan"
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            self.sums.append(checksum(torch.from_numpy(np.ascontiguousarray(value))))
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


def _of_classes(module: nn.Module) -> list[tuple[str, Any]]:
    """What the modules' classes define, each class once: a method or a constant may be replaced there."""
    kinds = {kind: None for child in module.modules() for kind in type(child).__mro__}
    own = (kind for kind in kinds if kind not in (nn.Module, object))
    return [item for kind in own for item in vars(kind).items() if not item[0].startswith("__")]


#: Where torch keeps what is asked for by itself: parameters, buffers, submodules and the mode.
_TENSORS = ("_parameters", "_buffers")
_REGISTERED = (*_TENSORS, "_modules", "training")


def _parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that hold the contents of ``tensor``."""
    if tensor.device.type == "meta":
        return []
    plain = tensor.detach()
    if plain.layout == torch.strided:
        return [plain]
    if plain.layout == torch.sparse_coo:
        return [plain._indices(), plain._values()]
    if plain.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [plain.crow_indices(), plain.col_indices(), plain.values()]
    if plain.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [plain.ccol_indices(), plain.row_indices(), plain.values()]
    return [plain.to_dense()]


def checksum(tensor: Tensor) -> Tensor:
    """The contents of ``tensor`` as one integer, () on its device."""
    words = _words(tensor)
    rows = len(words) // _WIDTH
    body, rest = words[: rows * _WIDTH].view(rows, _WIDTH), words[rows * _WIDTH :]
    total = _dot(rest, _weights(tensor.device, 0)[: len(rest)])
    if rows:
        across = _weights(tensor.device, 1) if rows <= _WIDTH else _draw(tensor.device, 1, rows)
        total = total + _dot(_times(body, _weights(tensor.device, 0)), across[:rows])
    return total


def _words(tensor: Tensor) -> Tensor:
    """The bytes of ``tensor`` as integers of 64 bits, zeros behind them; other bytes are other integers.

    The upper bits of each are folded into lower ones: the last bit, a float64's sign, is the same in a product with any odd
    weight, and two changes of it would cancel. By 29 places, so that the signs of two float32 do not meet.
    """
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)  # of one entry, contiguous() leaves the stride
    over = len(raw) % 8
    if over or raw.storage_offset() % 8:
        raw = torch.cat([raw, raw.new_zeros(-over % 8)])
    words = raw.view(torch.int64)
    upper: Tensor = (words >> 29).bitwise_and_(2**35 - 1)
    return upper.bitwise_xor_(words)


def _times(rows: Tensor, weights: Tensor) -> Tensor:
    return torch.mv(rows, weights) if rows.device.type == "cpu" else (rows * weights).sum(1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a, b) if a.device.type == "cpu" else (a * b).sum()


def _weights(device: torch.device, seed: int) -> Tensor:
    if (device, seed) not in _WEIGHTS:
        _WEIGHTS[device, seed] = _draw(device, seed, _WIDTH)
    return _WEIGHTS[device, seed]


def _draw(device: torch.device, seed: int, count: int) -> Tensor:
    """Odd numbers: a product with one is another for another factor."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-(2**62), 2**62, (count,), generator=generator) * 2 + 1).to(device)
