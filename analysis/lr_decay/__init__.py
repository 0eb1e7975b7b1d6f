"""What followed each change of the learning rate, and beside a control its effect."""

from __future__ import annotations

from .change_effects import ChangeEffects
from .effects import NO_CONTROL, LrDecayEffects, TrendCurve, lr_decay_effects
from .null import Null
from .runs import RunsEffects, analyse, as_dict, lines_and_tables
from .seeds import SeedEffects
from .time_point import TimePoint
from .wording import change_table, factor_table, quantities, sentence, trend_sentence, trend_table

__all__ = [
    "NO_CONTROL",
    "ChangeEffects",
    "LrDecayEffects",
    "Null",
    "RunsEffects",
    "SeedEffects",
    "TimePoint",
    "TrendCurve",
    "analyse",
    "as_dict",
    "change_table",
    "factor_table",
    "lines_and_tables",
    "lr_decay_effects",
    "quantities",
    "sentence",
    "trend_sentence",
    "trend_table",
]
