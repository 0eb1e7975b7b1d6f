"""What the commands do behind the command line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demo import run_demo
    from .export import to_csv, to_netcdf
    from .options import (
        ArchivePath,
        ArchivePaths,
        AsJson,
        Control,
        Eigenpairs,
        Loss,
        MemoryBudget,
        Output,
        ProbeName,
        Reduction,
        StyleName,
        TopK,
    )
    from .plan import run_plan
    from .show import overview, tables
    from .track import run_track

__all__ = [
    "ArchivePath",
    "ArchivePaths",
    "AsJson",
    "Control",
    "Eigenpairs",
    "Loss",
    "MemoryBudget",
    "Output",
    "ProbeName",
    "Reduction",
    "StyleName",
    "TopK",
    "overview",
    "run_demo",
    "run_plan",
    "run_track",
    "tables",
    "to_csv",
    "to_netcdf",
]

_HOME = {
    "ArchivePath": "options",
    "ArchivePaths": "options",
    "AsJson": "options",
    "Control": "options",
    "Eigenpairs": "options",
    "Loss": "options",
    "MemoryBudget": "options",
    "Output": "options",
    "ProbeName": "options",
    "Reduction": "options",
    "StyleName": "options",
    "TopK": "options",
    "overview": "show",
    "run_demo": "demo",
    "run_plan": "plan",
    "run_track": "track",
    "tables": "show",
    "to_csv": "export",
    "to_netcdf": "export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
