"""What the arguments of schedules must be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kerneltrack.errors import ScheduleError


def positive(what: str, value: Any) -> None:
    """Refuse what is not a positive number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ScheduleError(what, expected="a positive number", got=repr(value))


def check_window(window: int) -> None:
    """Refuse every window but a single state, a pair and a triple."""
    if isinstance(window, bool) or window not in (1, 2, 3):
        raise ScheduleError(
            "window",
            expected="1, 2 for pairs (t, t+1), or 3 for triples (t, t+1, t+2)",
            got=repr(window),
            remedy="Leave it away for single states.",
        )


def check_pairs(pairs: Any, window: int) -> int:
    """``pairs``, 0 where ``window`` says already what every moment begins; refuses what is no number of moments."""
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 0:
        raise ScheduleError(
            "pairs",
            expected="every how many moments begin a pair, or 0 for none",
            got=repr(pairs),
            remedy="3 is the default: a third of them.",
        )
    return pairs if window == 1 else 0


def steps(what: str, given: Any) -> tuple[int, ...]:
    """The steps in order, each once; refuses anything else."""
    values = tuple(given) if isinstance(given, Iterable) else ()
    if not values or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in values):
        raise ScheduleError(what, expected="one or more steps, integers from 0", got=repr(given))
    return tuple(sorted(set(values)))
