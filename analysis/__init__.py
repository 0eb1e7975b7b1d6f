"""Offline analysis: archives become a trajectory, a trajectory becomes numbers, numbers become figures, tables, a page.

Numbers first, pictures and text last: ``trajectory`` and ``lr_decay`` compute, ``panels`` draw what they are given,
``figures`` and ``report`` compose. Names are loaded on first use, so that ``kerneltrack --help`` loads no plotting
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy import loader
from .statements import Course, Finding, Forecast, Summary, Verdict, drawn_by, forecast_by, summarised_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from .lr_decay import LrDecayEffects, lr_decay_effects
    from .trajectory import Run, Trajectory, load

__all__ = [
    "Course",
    "Finding",
    "Forecast",
    "LrDecayEffects",
    "Run",
    "Summary",
    "Trajectory",
    "Verdict",
    "load",
    "lr_decay_effects",
]

_HOME = {
    "LrDecayEffects": "lr_decay",
    "Run": "trajectory",
    "Trajectory": "trajectory",
    "load": "trajectory",
    "lr_decay_effects": "lr_decay",
}


def _summary(run: Any, control: Any) -> Summary:
    from .report import summary_of

    return summary_of(run, control)


def _forecast(run: Any, rate: Any, **asked: Any) -> Forecast:
    from .forecasting import forecast

    return forecast(run, rate, **asked)


def _figures() -> Iterable[str]:
    from .figures import registered

    return registered()


def _draw(run: Any, name: str, **options: Any) -> Figure:
    from .figures import drawn

    return drawn(run, name, **options)


drawn_by(_figures, _draw)
summarised_by(_summary)
forecast_by(_forecast)
__getattr__ = loader(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
