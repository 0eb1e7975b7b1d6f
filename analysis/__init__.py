"""Offline analysis: archives become a trajectory, a trajectory becomes numbers, numbers become figures, tables, a page.

Numbers first, pictures and text last: ``trajectory`` and ``lr_decay`` compute, ``panels`` draw what they are given,
``figures`` and ``report`` compose. Names are loaded on first use, so that ``kerneltrack --help`` loads no plotting
library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lr_decay import LrDecayEffects, lr_decay_effects
    from .trajectory import Run, Trajectory, load

__all__ = ["LrDecayEffects", "Run", "Trajectory", "load", "lr_decay_effects"]

_HOME = {
    "LrDecayEffects": "lr_decay",
    "Run": "trajectory",
    "Trajectory": "trajectory",
    "load": "trajectory",
    "lr_decay_effects": "lr_decay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
