"""What is said of a run, as values: findings, verdicts, summaries, forecasts, and which figures there are. It computes nothing."""

from __future__ import annotations

from .drawing import Drawing, drawn_by
from .finding import TIERS, Finding, Held, by_surprise, percent
from .forecast import Course, Forecast, forecast_by, forecasting
from .summary import Summary, summarised_by, summarising
from .verdict import UNDECIDED, Verdict

__all__ = [
    "TIERS",
    "UNDECIDED",
    "Course",
    "Drawing",
    "Finding",
    "Forecast",
    "Held",
    "Summary",
    "Verdict",
    "by_surprise",
    "drawn_by",
    "forecast_by",
    "forecasting",
    "percent",
    "summarised_by",
    "summarising",
]
