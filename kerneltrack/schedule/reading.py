"""From what a user or an archive says to the schedule that is meant."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule.events import OnLearningRateChange, OnMetricChange, Seconds
from kerneltrack.schedule.grids import At, Epochs, Every, Log
from kerneltrack.schedule.schedule import Schedule


def parse(value: int | str | Schedule) -> Schedule:
    """The schedule that an argument means: an int n, "log", "epoch", or a schedule.

    "log" is evenly in log t, and around every step of the learning rates.

    Raises:
        ScheduleError: for anything else.
    """
    if isinstance(value, Schedule):
        return _able(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Every(value)
    if value == "log":
        return Log() | OnLearningRateChange()
    if value == "epoch":
        return Epochs()
    raise ScheduleError(
        "schedule",
        expected='an int n, "log", "epoch" or a kerneltrack.schedule object',
        got=repr(value),
        remedy="For example schedule=100, or schedule=kt.schedule.Log() | kt.schedule.OnLearningRateChange().",
    )


def _able(schedule: Schedule) -> Schedule:
    kind = type(schedule)
    if kind._is_due is Schedule._is_due and kind.due is Schedule.due:
        raise ScheduleError(
            f"the schedule {kind.__name__}",
            expected="a method _is_due(clock) → bool",
            got="none",
            remedy="clock.reaches(step) says whether this is the first state at or after a step.",
        )
    return schedule


def read(text: str) -> Schedule:
    """The schedule that prints as ``text``; nothing of the text is executed.

    Raises:
        ScheduleError: it is none of this module's.
    """
    try:
        return _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise ScheduleError(
            "a schedule that cannot be read",
            expected=f"one of {', '.join(sorted(_BY_NAME))}, or several of them with |",
            got=repr(text[:200]),
            remedy="Pass schedule=.",
        ) from error


def _read(node: ast.expr) -> Schedule:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _read(node.left) | _read(node.right)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(ast.dump(node)[:80])
    given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    kind = _BY_NAME[node.func.id]
    return kind(*map(ast.literal_eval, node.args), **{**_earlier(kind, given), **given})


def _earlier(kind: type[Schedule], given: Mapping[str, object]) -> dict[str, object]:
    """What a text means by what it does not say: it was written before there was that."""
    earlier: dict[str, object] = {"pairs": 0} if hasattr(kind, "pairs") else {}
    if kind is OnLearningRateChange and "by" not in given:
        earlier |= {"by": 1.0, "held": 10, "most": None}
    return earlier


_BY_NAME: Mapping[str, type[Schedule]] = {
    kind.__name__: kind for kind in (Every, Log, Epochs, At, Seconds, OnLearningRateChange, OnMetricChange)
}
