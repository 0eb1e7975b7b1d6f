"""What is said of a run, as values: a finding, a verdict, the summary of both, a forecast. Nothing is computed here."""

from __future__ import annotations

from .finding import Finding, percent
from .forecast import Course, Forecast, forecast_by, forecasting
from .summary import Summary, summarised_by, summarising
from .verdict import UNDECIDED, Verdict

__all__ = [
    "UNDECIDED",
    "Course",
    "Finding",
    "Forecast",
    "Summary",
    "Verdict",
    "forecast_by",
    "forecasting",
    "percent",
    "summarised_by",
    "summarising",
]
