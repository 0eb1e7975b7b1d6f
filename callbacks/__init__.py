"""Callbacks of trainers: :class:`NTKTracker` for Lightning's; :mod:`.transformers` has that of Hugging Face's.

:func:`run_control` goes on from a fork of Lightning's. Each is imported when it is asked for, so that nobody loads a trainer
that is not theirs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kerneltrack.errors import require_torch

require_torch()

if TYPE_CHECKING:
    from .control import run_control
    from .tracker import NTKTracker

__all__ = ["NTKTracker", "run_control"]

_HOME = {"NTKTracker": "tracker", "run_control": "control"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
