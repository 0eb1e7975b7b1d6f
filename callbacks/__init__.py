"""Callbacks of trainers: :class:`NTKTracker` for Lightning's; :mod:`.transformers` has that of Hugging Face's.

Each is imported when it is asked for, so that nobody loads a trainer that is not theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kerneltrack.errors import require_torch

require_torch()

if TYPE_CHECKING:
    from .tracker import NTKTracker

__all__ = ["NTKTracker"]


def __getattr__(name: str) -> Any:
    if name != "NTKTracker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .tracker import NTKTracker

    globals()[name] = NTKTracker
    return NTKTracker


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
