"""The tracker's schedules as they are given: one, or one for each probe; and what else depends on which they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kerneltrack.errors import ScheduleError, TrackerError
from kerneltrack.probe import Probe
from kerneltrack.schedule import OnMetricChange, Schedule, Seconds, parse


def schedule(given: Any, probes: int | Probe | Mapping[str, Any]) -> Schedule | dict[str, Schedule]:
    """A schedule, or one for each of the named probes.

    Raises:
        ScheduleError: a value that is no schedule.
        TrackerError: names that are not the probes'.
    """
    if not isinstance(given, Mapping):
        return _one_schedule(given, "schedule")
    if isinstance(probes, Mapping) and given.keys() != probes.keys():
        raise one_schedule_per_probe(given, probes)
    return {str(name): _one_schedule(value, f"schedule[{name!r}]") for name, value in given.items()}


def by_probe(given: Schedule | dict[str, Schedule], probes: Iterable[str]) -> dict[str, Schedule]:
    """The schedule of each probe.

    Raises:
        TrackerError: schedules whose names are not the probes'.
    """
    names = list(probes)
    if not isinstance(given, dict):
        return dict.fromkeys(names, given)
    if given.keys() != set(names):
        raise one_schedule_per_probe(given, names)
    return given


def one_schedule_per_probe(given: Iterable[str], probes: Iterable[str]) -> TrackerError:
    """The error of schedules whose names are not the probes'."""
    return TrackerError(
        "schedule",
        expected=f"one per probe: {sorted(probes)}",
        got=sorted(given),
        remedy="Give each probe its schedule under the probe's name, or one schedule for all.",
    )


def _one_schedule(given: Any, argument: str) -> Schedule:
    try:
        return parse(given)
    except ScheduleError as error:
        raise ScheduleError(
            argument,
            expected=error.expected,
            got=repr(given),
            remedy=error.remedy or "For example schedule=100: every hundredth update.",
        ) from error


def members(schedule: Schedule | dict[str, Schedule]) -> list[Schedule]:
    """The elementary schedules of one schedule, or of one per probe."""
    given = list(schedule.values()) if isinstance(schedule, dict) else [schedule]
    return [element for s in given for element in s.elements]


def has_member(schedule: Schedule | dict[str, Schedule], *kinds: type[Schedule]) -> bool:
    """Whether an elementary schedule is of one of these kinds."""
    return any(isinstance(member, kinds) for member in members(schedule))


def differs_between_ranks(schedule: Schedule | dict[str, Schedule]) -> bool:
    """Whether a schedule looks at what the processes of one training do not share: clocks, logged metrics.

    Then the leader decides for all, at a message an update.
    """
    return has_member(schedule, Seconds, OnMetricChange)


def overhead(share: float | None, schedule: Schedule | dict[str, Schedule]) -> float | None:
    """The share of wall time that measuring may take, if the schedule can keep it.

    Raises:
        TrackerError: not a share, or a schedule whose steps nobody can count beforehand.
    """
    if share is None:
        return None
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise TrackerError(
            "max_overhead",
            expected="a share between 0 and 1, or None",
            got=repr(share),
            remedy="0.05 lets measuring take five percent of the run.",
        )
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
