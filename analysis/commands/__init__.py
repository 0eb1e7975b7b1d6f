"""What the commands do behind the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import loader

if TYPE_CHECKING:
    from .compare import Asked, run_compare, run_sweep
    from .control import control_of, require_another
    from .demo import run_demo
    from .effect import refuse_useless
    from .export import to_csv, to_netcdf
    from .forecast import run_check, run_forecast
    from .measuring_options import MeasuringOptions
    from .options import (
        ArchivePath,
        ArchivePaths,
        AsJson,
        By,
        Control,
        Controls,
        Eigenpairs,
        Factory,
        Forward,
        Gauge,
        Loss,
        MemoryBudget,
        Model,
        Output,
        Params,
        Picture,
        PictureFormat,
        ProbeName,
        Reduction,
        StyleName,
        TopK,
    )
    from .plan import run_plan
    from .plot import list_figures, run_plot
    from .publish import run_publish
    from .shard import Shard, join
    from .show import overview, tables
    from .track import run_track
    from .watch import run_watch
    from .workers import Workers

__all__ = [
    "ArchivePath",
    "ArchivePaths",
    "AsJson",
    "Asked",
    "By",
    "Control",
    "Controls",
    "Eigenpairs",
    "Factory",
    "Forward",
    "Gauge",
    "Loss",
    "MeasuringOptions",
    "MemoryBudget",
    "Model",
    "Output",
    "Params",
    "Picture",
    "PictureFormat",
    "ProbeName",
    "Reduction",
    "Shard",
    "StyleName",
    "TopK",
    "Workers",
    "control_of",
    "join",
    "list_figures",
    "overview",
    "refuse_useless",
    "require_another",
    "run_check",
    "run_compare",
    "run_demo",
    "run_forecast",
    "run_plan",
    "run_plot",
    "run_publish",
    "run_sweep",
    "run_track",
    "run_watch",
    "tables",
    "to_csv",
    "to_netcdf",
]

_HOME = {
    "control_of": "control",
    "require_another": "control",
    "list_figures": "plot",
    "run_plot": "plot",
    "run_sweep": "compare",
    "refuse_useless": "effect",
    "PictureFormat": "options",
    "Picture": "options",
    "ArchivePath": "options",
    "ArchivePaths": "options",
    "AsJson": "options",
    "Asked": "compare",
    "By": "options",
    "Control": "options",
    "Controls": "options",
    "Eigenpairs": "options",
    "Factory": "options",
    "Forward": "options",
    "Gauge": "options",
    "MeasuringOptions": "measuring_options",
    "Loss": "options",
    "MemoryBudget": "options",
    "Model": "options",
    "Output": "options",
    "Params": "options",
    "ProbeName": "options",
    "Reduction": "options",
    "StyleName": "options",
    "TopK": "options",
    "Workers": "workers",
    "overview": "show",
    "run_check": "forecast",
    "run_compare": "compare",
    "run_forecast": "forecast",
    "run_demo": "demo",
    "run_plan": "plan",
    "run_publish": "publish",
    "run_track": "track",
    "Shard": "shard",
    "join": "shard",
    "tables": "show",
    "run_watch": "watch",
    "to_csv": "export",
    "to_netcdf": "export",
}


__getattr__ = loader(__name__, _HOME)
