"""What a run would do at another learning rate, from what one of its states has stored; and whether that came true."""

from __future__ import annotations

from .asked import rate_of, updates_of
from .forecast import forecast
from .score import Score, score
from .wording import forecast_lines, forecast_tables, score_sentence, score_table

__all__ = [
    "Score",
    "forecast",
    "forecast_lines",
    "forecast_tables",
    "rate_of",
    "score",
    "score_sentence",
    "score_table",
    "updates_of",
]
