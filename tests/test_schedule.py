"""Schedules against explicit lists of steps worked out by hand, and laws over products of schedules."""

import itertools
import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from kerneltrack.errors import ScheduleError
from kerneltrack.measurement import Pace
from kerneltrack.measurement.rate_history import RateHistory
from kerneltrack.schedule import (
    At,
    Clock,
    Epochs,
    Every,
    Log,
    OnLearningRateChange,
    OnMetricChange,
    RateChange,
    Schedule,
    Seconds,
    parse,
    read,
)


def steps(schedule, until, **clock):
    return [t for t in range(until) if schedule.due(Clock(step=t, **clock))]


def changes(*at):
    """Changes of the rates at these steps, the first rate from step 0."""
    return [RateChange(step=now, held=now - before) for before, now in itertools.pairwise((0, *at))]


def states(pattern, until):
    """The steps at which there is a state: 0 and what the pattern's jumps reach."""
    found = np.cumsum([0, *itertools.islice(itertools.cycle(pattern), until)])
    return found[found < until].tolist()


def rates(step):
    """0.1, from step 37 on 0.01; a ramp over 150 to 179; from 300 on 0.5."""
    return 0.1 if step < 37 else 0.01 if step < 150 else 0.001 * min(step - 148, 31) if step < 300 else 0.5


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
    assert steps(schedule, 60, rate_changes=changes(33)) == [0, 33, 34]


def test_rate_change_counts_from_the_first_update_at_the_new_rate():
    schedule = OnLearningRateChange(after=(0, 1, 10))
    assert steps(schedule, 200, rate_changes=changes(50, 120)) == [50, 51, 60, 120, 121, 130]


def test_a_continuous_schedule_is_not_a_change_at_every_step():
    """A cosine schedule changes the rate at each update; only its first change had a rate that held."""
    assert steps(OnLearningRateChange(after=(0,)), 100, rate_changes=changes(*range(20, 100))) == [20]
    assert steps(OnLearningRateChange(), 100, rate_changes=changes(*range(20, 100))) == []


@pytest.mark.parametrize(
    "schedule", [Every(3), Every(7, window=2), Log(2), Log(3.5), At((4, 9, 40)), Every(5) | At((3,))]
)
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 100), (1, 64), (33, 34), (50, 50), (7, 65)])
def test_counts(schedule, start, stop):
    """Oracle: asking at every step, and the states of the groups that begin there; those asked for anyway count once."""
    whole = light = 0
    for member in getattr(schedule, "members", (schedule,)):
        due = {t: member.due(Clock(step=t)).window for t in steps(member, stop + 2)}
        whole += len([t for t in due if start <= t < stop])
        light += len({t + i for t in due if start <= t < stop for i in range(1, due[t])} - due.keys())
    assert (schedule.count(start, stop), schedule.count_light(start, stop)) == (whole + light, light)


@pytest.mark.parametrize("per_octave", [0.5, 1, 2, 3, 7.5, 64])
@pytest.mark.parametrize("pairs", [0, 1, 2, 3, 5])
def test_log_begins_a_pair_at_one_moment_of_several(per_octave, pairs):
    """Oracle: asking at every step. More states than before are one in ``pairs``, and halved grids measure none that is new."""
    schedule = Log(per_octave, pairs=pairs)
    moments = steps(schedule, 1500)

    def added(schedule):
        return {t + 1 for t in steps(schedule, 1500) if schedule.due(Clock(step=t)).window == 2} - set(moments)

    for until in (10, 100, 1500):
        extra = [t for t in added(schedule) if t < until]
        assert len(extra) <= (len([t for t in moments if t < until]) / pairs if pairs else 0)
    assert bool(added(schedule)) == bool(pairs)
    assert added(schedule.thinned(1)) <= added(schedule)


@pytest.mark.parametrize(
    "after", [(0,), (0, 1), (5,), (0, 1, 10), (0, 1, 10, 100), (0, 1, 2, 3), (0, 10, 100, 1000, 5000, 9000)]
)
def test_a_rate_change_has_a_pair_at_one_moment_of_three(after):
    """The last offsets first, none of which is completed by another one anyway; of fewer than three moments none."""
    schedule = OnLearningRateChange(after=after)
    moments = steps(schedule, 12_000, rate_changes=changes(200))
    due = {t: schedule.due(Clock(step=t, rate_changes=changes(200))) for t in moments}
    begun = [t - 200 for t, found in due.items() if found.window == 2]
    assert len(begun) <= len(after) / 3
    alone = [offset for offset in after if offset + 1 not in after]
    assert begun == sorted(alone[::-3][: len(after) // 3])


def test_what_an_archive_does_not_say_of_pairs_was_none():
    """A schedule that was stored before there were pairs of its own goes on as it was."""
    then = OnLearningRateChange(pairs=0, by=1.0, held=10, most=None)
    assert read("Log(2) | OnLearningRateChange(after=(0, 1, 10, 100))") == Log(pairs=0) | then
    for schedule in (Log(), Log(pairs=0), Log(window=2), Log(window=3, light=False), OnLearningRateChange(pairs=2)):
        assert read(str(schedule)) == schedule


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


#: Updates between one state and the next: one optimizer, two, three; a critic's five steps; accumulation that changes.
JUMPS = {"one": (1,), "two": (2,), "three": (3,), "critic": (1, 1, 1, 1, 2), "irregular": (1, 4, 2, 7, 1, 1, 11)}
GRIDS = {
    Every(1): range(400), Every(3): range(0, 400, 3), Every(50): range(0, 400, 50),
    At((1, 3, 5, 7)): (1, 3, 5, 7), At((0, 100, 101, 102, 399)): (0, 100, 101, 102, 399),
    Log(2, pairs=0): {0, *(round(2 ** (j / 2)) for j in range(20))},
    Log(7.5, pairs=0): {0, *(round(2 ** (j / 7.5)) for j in range(70))},
    Log(64, pairs=0): {0, *(round(2 ** (j / 64)) for j in range(600))},
    Every(40) | At((33, 34)): {33, 34, *range(0, 400, 40)},
}  # fmt: skip


def asked(schedule, jumps, *, window=1, until=400, resumed=None, epochs=lambda step: 0):
    """The states that are due, by a run's pace; with ``resumed`` the run goes on from its checkpoint at that state."""
    pace, found = Pace({"p": schedule}), []
    for position, step in enumerate(states(jumps, until)):
        if position == resumed:
            memory = pickle.loads(pickle.dumps(pace.state_dict()))
            pace = Pace({"p": schedule})
            pace.load_state_dict(memory)
        clock = Clock(step=step, learning_rates=(rates(step),), epoch=epochs(step), starts_epoch=step == 0)
        due = pace.due(clock)
        pace.group(due, step)
        if due:
            found.append(step)
    return found


def first_at_or_after(points, jumps, until=400):
    """The oracle: for every point the first of the states that is not before it, by NumPy's search."""
    there = np.array(states(jumps, until))
    at = np.searchsorted(there, sorted(points))
    return sorted(set(there[at[at < len(there)]].tolist()))


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("schedule", GRIDS, ids=str)
def test_a_point_that_no_state_lies_on_is_met_by_the_next(schedule, jumps):
    assert asked(schedule, JUMPS[jumps]) == first_at_or_after({0, *GRIDS[schedule]}, JUMPS[jumps])


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize(
    "schedule", [Every(7), Log(3), At((5, 6, 90)), Epochs(2), OnLearningRateChange((0, 1, 10))], ids=str
)
def test_a_resumed_run_meets_the_same_points(schedule, jumps):
    """At any state: oracle is the run that went through."""
    through = asked(schedule, JUMPS[jumps], epochs=lambda step: step // 13)
    for resumed in range(1, len(states(JUMPS[jumps], 400)), 17):
        assert asked(schedule, JUMPS[jumps], resumed=resumed, epochs=lambda step: step // 13) == through


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_halved_grids_nest_whatever_the_jumps(jumps, times):
    for schedule in (Every(3), Log(4), Epochs(1), Every(5) | Log(2)):
        finer, coarser = (
            set(asked(schedule.thinned(t), JUMPS[jumps], epochs=lambda s: s // 9)) for t in (times, times + 1)
        )
        assert coarser < finer


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("length", [4, 9, 40])
def test_no_epoch_is_missed(jumps, n, length):
    """Oracle: the first state of each n-th epoch or, where that has none, of the one after it, among all states."""
    found = asked(Epochs(n), JUMPS[jumps], epochs=lambda step: step // length)
    assert found == first_at_or_after(range(0, 400, n * length), JUMPS[jumps])


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("grid", [Every(9, window=2), Log(1, window=2), At((3, 30, 31, 200), window=2)], ids=str)
def test_a_pair_is_a_state_and_that_of_the_next_update(grid, jumps):
    """Oracle: from the list of states; one that completes a pair begins none."""
    there = states(JUMPS[jumps], 400)
    begun = first_at_or_after({0, *(t for t in range(400) if grid.due(Clock(step=t)))}, JUMPS[jumps])
    expected, second = [], None
    for state, after in itertools.pairwise([*there, math.inf]):
        if state in begun or state == second:
            expected.append(state)
        begins = state in begun and state != second and (state > 0 or bool(grid.due(Clock(step=0))))
        second = after if begins else None
    assert asked(grid, JUMPS[jumps]) == expected


@pytest.mark.parametrize("jumps", ["one", "critic", "irregular"])
@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("light", [True, False])
def test_a_group_goes_on_after_a_checkpoint_within_it(jumps, window, light):
    """Every state of a group knows its place, its lag and how much of it is measured; resumed anywhere it is the same.

    Oracle: counting through the list of states.
    """
    there, schedule, expected = states(JUMPS[jumps], 60), Every(11, window=window, light=light), []
    begin = None  # position of the open group's first state
    for i, state in enumerate(there):
        asks = i == 0 or state // 11 > there[i - 1] // 11
        place = 0 if begin is None else i - begin
        if begin is not None or asks:
            extent = "whole" if asks or not light else ("kernel", "outputs")[place - 1]
            expected.append((state, place, state - there[i - place], extent))
            begin = i - place if place + 1 < window else None
    found, pace = [], Pace({"p": schedule})
    for state in there:
        memory = pickle.loads(pickle.dumps(pace.state_dict()))
        pace = Pace({"p": schedule})
        pace.load_state_dict(memory)
        due = pace.due(Clock(step=state))
        if due:
            found.append((state, *pace.group(due, state), due["p"].extent))
    assert found == expected


@pytest.mark.parametrize("jumps", JUMPS)
@pytest.mark.parametrize("after", [(0,), (0, 1, 10), (0, 1, 2, 3), (5, 100)])
@pytest.mark.parametrize("held", [1, 10, 30, 150])
def test_rate_changes_are_met_whatever_the_jumps(jumps, after, held):
    """Oracle: the rates of all states, compared in order; a change counts where the rate before was that of ``held`` updates.

    Changes of every size: what it takes besides for a step has tests of its own, in test_rate_steps.py.
    """
    there = states(JUMPS[jumps], 400)
    events, since = [], 0
    for before, now in itertools.pairwise(there):
        if rates(now) != rates(before):
            if now - since >= held:
                events.append(now)
            since = now
    points = {0, *(event + offset for event in events for offset in after)}
    every_change = OnLearningRateChange(after, held=held, pairs=0, by=1, most=None)
    assert asked(every_change, JUMPS[jumps]) == first_at_or_after(points, JUMPS[jumps])


def test_a_warm_up_that_begins_with_the_run_is_no_change():
    """By hand: twenty updates of a rising rate, then 0.1 for eighty, which is long enough for ten, then 0.01."""
    pace = Pace({"p": OnLearningRateChange(after=(0, 1, 10))})
    given = [min(t + 1, 20) / 200 if t < 100 else 0.01 for t in range(130)]
    assert [t for t in range(130) if pace.due(Clock(step=t, learning_rates=(given[t],)))] == [0, 100, 101, 110]


def test_what_is_kept_of_the_rates_is_bounded():
    """A cosine's every update, then a staircase's many: what a schedule can still ask for is at most 100 / 10 + 1 changes."""
    history = RateHistory([OnLearningRateChange()])
    for step in range(3000):
        history.see(step, (math.cos(step / 3000),))
        assert not history.changes
    history = RateHistory([OnLearningRateChange(held=10, most=None)])
    for step in range(3000, 9000):
        history.see(step, (2.0 ** (step // 10 % 7),))
        assert len(history.changes) <= 2 * (100 // 10 + 1)
    assert len(history.changes) > 100 // 10
    assert len(pickle.dumps(history.state_dict())) < 2000


class Looks(list):
    """Counts how many entries are looked at."""

    looks = 0

    def __getitem__(self, index):
        Looks.looks += 1
        return super().__getitem__(index)

    def __iter__(self):
        Looks.looks += len(self)
        return super().__iter__()


def test_no_history_is_walked():
    """Of a hundred thousand changes four offsets look at a logarithm each: 2 · 17 entries, and those that are met."""
    known = Looks(RateChange(step=10 * i, held=10) for i in range(1, 100_001))
    Looks.looks = 0
    assert OnLearningRateChange().due(Clock(step=1_000_005, rate_changes=known)) is None
    assert Looks.looks <= 4 * 2 * 18


class Evens(Schedule):
    """No dataclass, and nothing but the method that is needed."""

    def __init__(self, n):
        self.n = n
        self._cache = {}

    def _is_due(self, clock):
        return clock.reaches(clock.step - clock.step % self.n)


@dataclass(frozen=True, repr=False)
class Odd(Schedule):
    n: int = 1
    window: int = 1

    def _is_due(self, clock):
        return clock.step % 2 == 1


@pytest.mark.parametrize("jumps", JUMPS)
def test_a_schedule_of_ones_own_need_be_no_dataclass(jumps):
    assert asked(Evens(6), JUMPS[jumps]) == first_at_or_after(range(0, 400, 6), JUMPS[jumps])
    assert str(Evens(6) | Odd(3)) == "Evens(n=6) | Odd(3)"
    assert Evens(6).due(Clock(step=6)).trigger == "Evens(n=6)"


def test_a_schedule_without_its_method_is_refused_by_name():
    class Nothing(Schedule):
        pass

    with pytest.raises(ScheduleError, match=r"Nothing.*_is_due\(clock\).*clock.reaches"):
        parse(Nothing())


def test_a_union_with_what_is_no_schedule_is_refused():
    with pytest.raises(ScheduleError, match="a schedule on either side, got 5"):
        Every(2) | 5


@pytest.mark.parametrize(
    "schedule", [Every(3), Log(4, window=2), Epochs(2), At((3, 1)), Seconds(2.5), OnLearningRateChange((0, 5), held=3),
                 OnMetricChange("a/b", by=1.5), Every(2) | At((1,)) | Log()], ids=str,
)  # fmt: skip
def test_what_is_printed_is_read_again(schedule):
    assert read(str(schedule)) == schedule


@pytest.mark.parametrize(
    "text", ["", "Every(", "Evens(n=6)", "Every(n=open('x'))", "__import__('os').getcwd()", "Every(0)", "Every(3) + Log()",
             "Every(3, 4, 5)", "Every(**{})", "(" * 500, "At((1,)) | 3"],
)  # fmt: skip
def test_nothing_else_is_read(text):
    with pytest.raises(ScheduleError, match="expected"):
        read(text)


def test_parse():
    assert parse(5) == Every(5)
    assert parse("log") == Log() | OnLearningRateChange()
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
        lambda: Every(2, window=4),
        lambda: Every(2, window=True),
        lambda: Log(pairs=-1),
        lambda: OnLearningRateChange(pairs=1.5),
        lambda: OnMetricChange("loss", by=1.0),
        lambda: OnLearningRateChange(after=()),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ScheduleError, match="expected"):
        make()
