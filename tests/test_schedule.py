"""Schedules against explicit lists of steps worked out by hand, and laws over products of schedules."""

import itertools
import math

import pytest

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule import At, Clock, Epochs, Every, Log, OnLearningRateChange, OnMetricChange, Seconds, parse


def steps(schedule, until, **clock):
    return [t for t in range(until) if schedule.due(Clock(step=t, **clock))]


def test_every_is_the_multiples_with_zero():
    assert steps(Every(7), 30) == [0, 7, 14, 21, 28]


def test_log_is_zero_and_rounded_powers_without_duplicates():
    # round(2^(j/2)) for j = 0…10: 1 1 2 3 4 6 8 11 16 23 32
    assert steps(Log(2), 33) == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32]


@pytest.mark.parametrize("per_octave", [0.5, 1, 2, 3, 7.5])
def test_log_equals_the_set_of_its_formula(per_octave):
    """Oracle: the defining set {0} ∪ {round(2^(j/p))}, enumerated."""
    wanted = {0} | {round(2 ** (j / per_octave)) for j in range(int(per_octave * math.log2(3000)) + 2)}
    assert set(steps(Log(per_octave), 3000)) == {s for s in wanted if s < 3000}


@pytest.mark.parametrize("schedule", [Every(3), Log(2), Log(3), Every(5, window=2)])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_thinning_nests(schedule, times):
    """Runs thinned by different amounts share steps: a thinner grid is a subset of a denser one."""
    assert set(steps(schedule.thinned(times + 1), 2000)) < set(steps(schedule.thinned(times), 2000))


def test_thinning_never_drops_the_states_around_a_rate_change():
    schedule = (Every(10) | OnLearningRateChange(after=(0, 1))).thinned(5)
    assert steps(schedule, 60, rate_changes=(33,)) == [0, 33, 34]


def test_rate_change_counts_from_the_first_update_at_the_new_rate():
    schedule = OnLearningRateChange(after=(0, 1, 10))
    assert steps(schedule, 200, rate_changes=(50, 120)) == [50, 51, 60, 120, 121, 130]


def test_a_continuous_schedule_is_not_a_change_at_every_step():
    """A cosine schedule changes the rate at each update; only its first change had a rate that held."""
    assert steps(OnLearningRateChange(after=(0,)), 100, rate_changes=tuple(range(20, 100))) == [20]


@pytest.mark.parametrize(
    "schedule", [Every(3), Every(7, window=2), Log(2), Log(3.5), At((4, 9, 40)), Every(5) | At((3,))]
)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 100), (1, 64), (33, 34), (50, 50), (7, 65)])
def test_counts(schedule, start, stop):
    """Oracle: asking at every step."""
    windows = [m.window for m in getattr(schedule, "members", (schedule,))]
    members = getattr(schedule, "members", (schedule,))
    asked = sum(w * len([t for t in steps(m, stop) if t >= start]) for m, w in zip(members, windows, strict=True))
    assert schedule.count(start, stop) == asked


@pytest.mark.parametrize("per_epoch", [1, 3, 7])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 40), (1, 21), (7, 8), (6, 43)])
def test_epochs_are_counted_where_their_length_is_known(per_epoch, n, start, stop):
    """Oracle: asking at every step of a run whose epochs are that long."""
    due = [
        t for t in range(stop) if Epochs(n).due(Clock(step=t, epoch=t // per_epoch, starts_epoch=t % per_epoch == 0))
    ]
    assert Epochs(n).count(start, stop, per_epoch=per_epoch) == sum(start <= t for t in due)


def test_what_cannot_be_counted_says_so():
    assert [s.count(0, 10) for s in (Epochs(), Seconds(3), OnMetricChange("loss"), Every(2) | Epochs())] == [None] * 4


def test_epochs_are_due_once_at_their_start():
    due = [
        (epoch, start)
        for epoch, start in itertools.product(range(5), (True, False))
        if Epochs(2).due(Clock(step=1, epoch=epoch, starts_epoch=start))
    ]
    assert due == [(0, True), (2, True), (4, True)]


def test_seconds_count_from_the_last_measurement():
    assert not Seconds(10).due(Clock(step=5, seconds=19.0, last_seconds=10.0))
    assert Seconds(10).due(Clock(step=5, seconds=20.0, last_seconds=10.0))


@pytest.mark.parametrize(
    ("now", "then", "due"), [(1.0, 2.1, True), (1.0, 1.9, False), (3.0, 1.0, True), (1.0, None, True)]
)
def test_metric_change_is_a_factor_either_way(now, then, due):
    last = {} if then is None else {"loss": then}
    assert bool(OnMetricChange("loss", by=2).due(Clock(step=3, metrics={"loss": now}, last_metrics=last))) is due


def test_union_says_who_asked_and_takes_the_longer_window():
    due = (Every(5) | At((10,), window=2)).due(Clock(step=10))
    assert due is not None
    assert (due.trigger, due.window) == ("Every(5) | At((10,), window=2)", 2)


@pytest.mark.parametrize(
    "schedule",
    [
        Every(3),
        Log(),
        Log(4, window=2),
        Epochs(2),
        At((3, 1, 3)),
        Seconds(2.5),
        OnLearningRateChange(),
        OnLearningRateChange(after=(0, 5), window=2),
        OnMetricChange("loss", by=1.5),
        Every(2) | At((1,)) | Log(),
    ],
)
def test_a_schedule_prints_as_it_is_written(schedule):
    """Oracle: Python itself; evaluating the printed text gives an equal value."""
    import kerneltrack.schedule

    assert eval(repr(schedule), vars(kerneltrack.schedule)) == schedule


def test_parse():
    assert parse(5) == Every(5)
    assert parse("log") == Log()
    assert parse("epoch") == Epochs()
    assert parse(At((1,))) == At((1,))


@pytest.mark.parametrize("bad", [0, -3, True, "daily", None, 2.5])
def test_parse_refuses(bad):
    with pytest.raises(ScheduleError, match="expected"):
        parse(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Log(0),
        lambda: At(()),
        lambda: At((-1,)),
        lambda: At((1.5,)),
        lambda: Every(2, window=3),
        lambda: OnMetricChange("loss", by=1.0),
        lambda: OnLearningRateChange(after=()),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ScheduleError, match="expected"):
        make()
