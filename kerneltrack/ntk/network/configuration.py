"""What a module is beside the values of its tensors: submodules, modes, hooks, plain attributes.

A network linearised at θ_0 is evaluated long after its module was set to training mode, was pruned or had a head replaced.
What the forward pass read at θ_0 stands in the module for the time of an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
from torch import Tensor, nn

from kerneltrack.ntk.network.state import CONTAINERS, DEPTH, ENTRIES

#: What every module has: tables of parameters, buffers, submodules and hooks, and the mode.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


class Configuration:
    """Classes, submodules, modes, hooks and plain attributes of a module and of all below it, as they are now.

    Attributes that are tensors, arrays or short containers are copied, as far as :class:`State` looks into them;
    other objects are kept as they are. Values of parameters and buffers are not copied.

    Args:
        module: the root.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept = [
            (child, type(child), {name: _held(name, value) for name, value in vars(child).items()})
            for child in module.modules()
        ]
        # Of the class that a parametrisation gives its module; it loses them where the parametrisation is removed.
        self._properties = {
            (kind, name): value
            for kind in {kind for _, kind, _ in self._kept}
            for name, value in vars(kind).items()
            if isinstance(value, property)
        }

    @contextmanager
    def restored(self) -> Iterator[None]:
        """All of it stands in the module; what stood there before does so again afterwards."""
        before = [(child, type(child), dict(vars(child))) for child, *_ in self._kept]
        lost = [(kind, name) for kind, name in self._properties if name not in vars(kind)]
        for kind, name in lost:
            setattr(kind, name, self._properties[kind, name])
        for child, kind, kept in self._kept:
            _fill(child, kind, {name: copy(v) if name in _OF_EVERY_MODULE else v for name, v in kept.items()})
        try:
            yield
        finally:
            for kind, name in lost:
                delattr(kind, name)
            for given in before:
                _fill(*given)


def _held(name: str, value: Any) -> Any:
    return copy(value) if name in _OF_EVERY_MODULE else _copied(value, DEPTH)


def _copied(value: Any, depth: int) -> Any:
    if isinstance(value, Tensor):
        return value if isinstance(value, nn.Parameter) else value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if not depth or type(value) not in CONTAINERS or len(value) > ENTRIES:
        return value
    if isinstance(value, dict):
        return {key: _copied(entry, depth - 1) for key, entry in value.items()}
    return type(value)(_copied(entry, depth - 1) for entry in value)


def _fill(module: nn.Module, kind: type[nn.Module], attributes: dict[str, Any]) -> None:
    if type(module) is not kind:  # a parametrisation gives its module a class of its own
        module.__class__ = kind
    vars(module).clear()
    vars(module).update(attributes)
