"""What the commands do behind the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import loader

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


__getattr__ = loader(__name__, _HOME)
