"""The key of a plan: what plans, and what is known beside them, depend on."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


class PlanKey:
    """A tuple of tuples that is hashed once: it is as long as its module is deep, and looked up a dozen times a call.

    Args:
        parts: what it is of.
    """

    __slots__ = ("_hash", "_parts")

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self._parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, PlanKey) and self._hash == other._hash and self._parts == other._parts


_KEYS: WeakKeyDictionary[nn.Module, dict[PlanKey, PlanKey]] = WeakKeyDictionary()
_REMEMBERED = 64


def plan_key(module: nn.Module, parts: tuple[Any, ...]) -> PlanKey:
    """The key of ``parts``, the very same one as in an earlier call: what is itself need not be compared part by part."""
    own, key = _KEYS.setdefault(module, {}), PlanKey(parts)
    if (known := own.get(key)) is not None:
        return known
    if len(own) >= _REMEMBERED:
        own.clear()
    own[key] = key
    return key
