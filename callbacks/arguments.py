"""The tracker's arguments, checked when the tracker is made: what is wrong is said then, not hours later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerneltrack.errors import ProbeError, TrackerError
from kerneltrack.probe import Probe
from kerneltrack.schedule import Schedule, Union


def probe(given: Any) -> int | Probe | dict[str, Any]:
    """A number of training samples, a probe (read if it is a path), or several by name.

    Raises:
        ProbeError: anything else, or a file that holds no probe.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise ProbeError("probe", expected="at least one sample", got=given)
        return given
    if isinstance(given, (str, Path)):
        return Probe.load(given)
    if isinstance(given, Mapping) and given:
        return {str(name): probe(found) for name, found in given.items()}
    if isinstance(given, Probe):
        return given
    raise ProbeError("probe", expected="an int, a Probe, a path, or a mapping of names to probes", got=repr(given))


def choice(argument: str, value: Any, choices: tuple[str, ...]) -> Any:
    """``value``, if it is one of the choices.

    Raises:
        TrackerError: it is not.
    """
    if value not in choices:
        raise TrackerError(argument, expected=f"one of {', '.join(map(repr, choices))}", got=repr(value))
    return value


def members(schedule: Schedule | dict[str, Schedule]) -> list[Schedule]:
    """The elementary schedules of one schedule, or of one per probe."""
    given = list(schedule.values()) if isinstance(schedule, dict) else [schedule]
    return [member for s in given for member in (s.members if isinstance(s, Union) else (s,))]


def overhead(share: float | None, schedule: Schedule | dict[str, Schedule]) -> float | None:
    """The share of wall time that measuring may take, if the schedule can keep it.

    Raises:
        TrackerError: not a share, or a schedule whose steps nobody can count beforehand.
    """
    if share is None:
        return None
    if not 0 < share < 1:
        raise TrackerError("max_overhead", expected="a share between 0 and 1, or None", got=repr(share))
    uncounted = [s for s in members(schedule) if s.count(0, 1, per_epoch=1) is None]
    if uncounted:
        raise TrackerError(
            f"max_overhead with {uncounted[0]}",
            expected="a schedule whose steps can be counted beforehand (an int, Log, Epochs, At, OnLearningRateChange)",
            remedy="Choose one of those, or measure less often by hand.",
        )
    return share


def countable(share: float | None, schedule: Schedule | dict[str, Schedule], per_epoch: float | None) -> None:
    """Check, once the data are known, that the schedule's steps can be counted.

    Raises:
        TrackerError: ``max_overhead`` with epochs of a length that nobody knows.
    """
    if share is None or per_epoch is not None:
        return
    if any(s.count(0, 1) is None for s in members(schedule)):
        raise TrackerError(
            "max_overhead with a schedule by epochs",
            expected="a training loader that knows its length",
            remedy="Give the dataset a length, or schedule by updates.",
        )
