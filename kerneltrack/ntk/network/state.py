"""What a network's outputs depend on, as one value that changes with it.

Pointers and version counters do not see a write through ``.data`` or through a NumPy view: contents are summed too, word
by word, with a weight for each place, in integers that wrap around. A single changed word always changes the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Words in one row of a checksum; each row has a weight of its own.
_WIDTH = 4096
#: Containers are looked into so deep and up to so many entries; numbers, texts and None are compared by value.
DEPTH, ENTRIES, CONTAINERS = 3, 64, (dict, list, tuple)
_VALUES = (bool, int, float, complex, str, bytes, type(None))

_WEIGHTS: dict[tuple[torch.device, int], Tensor] = {}


def state_of(module: nn.Module, tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    """A value that is equal as long as ``module``, its modes and attributes, and ``tensors`` are.

    Attributes that are numbers, texts, tensors, or short tuples, lists and dicts of such are compared by value, and
    other objects by identity: what changes inside one of those is not seen.
    """
    sums: list[Tensor] = []
    tensors = [*module.parameters(), *module.buffers(), *tensors]
    outside = [_seen(tensor, sums) for tensor in tensors]
    inside = [(child.training, _attributes(child, sums)) for child in module.modules()]
    flags = [tensor.requires_grad for tensor in tensors]
    devices: dict[torch.device, list[Tensor]] = {}
    for total in sums:
        devices.setdefault(total.device, []).append(total)
    return outside, inside, flags, [torch.stack(group).tolist() for group in devices.values()]


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
    """The bytes of ``tensor`` as integers of 64 bits, zeros behind them."""
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)  # of one entry, contiguous() leaves the stride
    over = len(raw) % 8
    if over or raw.storage_offset() % 8:
        raw = torch.cat([raw, raw.new_zeros(-over % 8)])
    return raw.view(torch.int64)


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


def _seen(tensor: Tensor, sums: list[Tensor]) -> tuple[Any, ...]:
    """What tells ``tensor`` from others without its contents; these go into ``sums``."""
    if tensor.device.type == "meta" or tensor.layout != torch.strided:
        return id(tensor), tensor.shape
    sums.append(checksum(tensor))
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.shape, tensor.dtype


def _attributes(module: nn.Module, sums: list[Tensor]) -> tuple[Any, ...]:
    own = (item for item in vars(module).items() if item[0] not in _REGISTERED)
    return tuple((name, _value(value, sums, DEPTH)) for name, value in own)


#: Where torch keeps what is asked for already: parameters, buffers, submodules and the mode.
_REGISTERED = ("_parameters", "_buffers", "_modules", "training")


def _value(value: Any, sums: list[Tensor], depth: int) -> Any:
    if isinstance(value, _VALUES):
        return type(value), value if value == value else "nan"
    if isinstance(value, Tensor):
        return _seen(value, sums)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return _seen(torch.from_numpy(np.ascontiguousarray(value)), sums)[2:]
    if not depth or not isinstance(value, (Mapping, list, tuple)) or len(value) > ENTRIES:
        return id(value)
    if isinstance(value, Mapping):
        return type(value), tuple((repr(k), _value(v, sums, depth - 1)) for k, v in value.items())
    return type(value), tuple(_value(v, sums, depth - 1) for v in value)
