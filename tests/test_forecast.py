"""What measuring will take of a run, and what would make it less. Oracle: the shares worked out by hand from given seconds."""

import pytest

from kerneltrack.measurement.forecast import AFFORDABLE, Forecast, UpdateTime, WholeState, forecast
from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.pieces import LEADING, LEADING_PAIR, Pieces
from kerneltrack.schedule import Every, Log
from kerneltrack.snapshot import Snapshot

#: Seconds of a state: 0.2 kernel, 0.5 eigensystem, 0.1 observables, 0.2 of what does not grow with the kernel.
SECONDS = {"kernel": 0.2, "eigensystem": 0.5, "observables": 0.1}
WHOLE, STEP = 1.0, 0.01


def pieces(outputs=10, *, rows=1280, blocks=False, pairs=0):
    return Pieces(seconds=SECONDS, rows=rows, outputs=outputs, blocks=blocks, pairs=pairs)


def state(**options):
    return WholeState(seconds=WHOLE, pieces={"p": pieces(**options)})


def told(found, steps, *, every=10, trace=lambda name: 0.25):
    return forecast(found, Pace({"p": Every(every)}, horizon=steps), STEP, trace)


def test_the_share_is_what_states_and_updates_take():
    """Every(10) of 1,000 updates: 100 states of 1 s beside 10 s of updates."""
    assert told(state(), 1000).share == pytest.approx(100 / 110)
    assert told(state(), 1000, every=1000).share == pytest.approx(1 / 11)


def test_light_states_take_their_kernel():
    """Counted by the schedule: Log begins a pair at one state of three, whose second one has no eigenpairs."""
    pace = Pace({"p": Log()}, horizon=10_000)
    found = forecast(state(), pace, STEP, lambda name: None)
    light = pace.light_states
    assert light > 3
    measuring = WHOLE * (pace.states - light) + 0.2 * light
    assert found.share == pytest.approx(measuring / (measuring + 10_000 * STEP))


def test_light_states_take_what_they_took_where_one_was_measured():
    """By hand: 1.7 s beside 0.2 s of the kernel, in every light state; never less than the kernel's."""
    pace = Pace({"p": Every(10, window=3)}, horizon=1000)
    light, whole = pace.light_states, WHOLE * (pace.states - pace.light_states)
    for measured, each in ((1.7, 1.7), (0.1, 0.2)):
        found = forecast(state(), pace, STEP, lambda name: None, measured)
        assert found.share == pytest.approx((whole + each * light) / (whole + each * light + 10))


def test_probes_of_one_schedule_are_measured_in_the_same_rows():
    """Two of them were counted as twice as many rows, each of the time of both."""
    one, two = Pace({"p": Every(10)}, horizon=1000), Pace({"p": Every(10), "q": Every(10)}, horizon=1000)
    assert (two.states, two.share(1.0, 0.0, 0.01)) == (one.states, one.share(1.0, 0.0, 0.01))
    assert two.halvings(10, 0.1, 1.0, 1) == one.halvings(10, 0.1, 1.0, 1) == 0  # no limit was asked for
    capped = [Pace(dict.fromkeys(names, Every(10)), max_overhead=0.1, horizon=1000) for names in ("p", "pq")]
    assert len({pace.halvings(10, 0.1, 1.0, 1) for pace in capped}) == 1
    assert Pace({"p": Every(10), "q": Every(20)}, horizon=1000).states == 150


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({}, 0.2 * 0.75 + 0.5 * (1 - 1e-3) + 0.1 * 0.99),
        ({"blocks": True, "rows": 128}, 0.2 * 0.75 + 0.5 * 0.9 + 0.1 * 0.99),
    ],
)
def test_a_trace_kernel_has_fewer_rows(options, saved):
    """Ten outputs: the solve is of a tenth of the rows (of one block of ten), the observables of a hundredth of the numbers."""
    found = told(state(**options), 1000)
    each = WHOLE - saved
    assert found.remedies['output="trace"'] == pytest.approx(100 * each / (100 * each + 10))


def test_leading_pairs_spare_the_solve():
    """By the seconds of Lanczos over those of a dense solve, as measured."""
    left = (LEADING + 64 * LEADING_PAIR) / 1280
    each = WHOLE - 0.5 * (1 - left)
    found = told(state(outputs=1, pairs=64), 200, every=200, trace=lambda name: None)
    assert found.remedies == {'eigenpairs="leading"': pytest.approx(each / (each + 2))}
    assert told(state(outputs=1), 200, trace=lambda name: None).remedies == {}


@pytest.mark.parametrize(
    ("share", "remedies", "named"),
    [
        (0.8, {'output="trace"': 0.09, 'eigenpairs="leading"': 0.3}, {'output="trace"'}),
        (0.8, {'output="trace"': 0.09, 'eigenpairs="leading"': 0.05}, {'output="trace"', 'eigenpairs="leading"'}),
        (0.8, {'output="trace"': 0.04, 'eigenpairs="leading"': 0.03}, {'output="trace"'}),
        (0.8, {'output="trace"': 0.7}, set()),
        (0.06, {'eigenpairs="leading"': 0.03}, {'eigenpairs="leading"'}),
        (0.8, {}, set()),
    ],
)
def test_a_remedy_is_named_where_it_helps(share, remedies, named):
    found = Forecast(share=share, remedies=remedies)
    assert not found.is_affordable
    assert found.worth_naming.keys() == named
    assert Forecast(share=AFFORDABLE, remedies={}).is_affordable


def test_nothing_is_computed_of_a_share_that_nobody_minds():
    """No plan of another kernel is made; nor is there a forecast without an end."""

    def never(name):
        raise AssertionError

    assert told(state(), 10**6, every=10**5, trace=never).is_affordable
    assert forecast(state(), Pace({"p": Every(1)}), STEP, never) is None


def test_an_update_is_the_median_of_those_after_the_first():
    """The first sets things up: 2 s. Of the next one is slow: 1 s, where the others take 0.1 s and 0.2 s. By hand."""
    time, found = UpdateTime(), []
    for step, seconds in ((0, 5.0), (0, 5.0), (1, 7.0), (2, 8.0), (4, 8.2), (5, 8.4)):
        time.see(step, seconds)
        found.append(time.each)
    assert found == [None] * 5 + [pytest.approx(0.2)]
    time.see(6, 8.5)  # 1, 0.1, 0.2, 0.1
    assert time.each == pytest.approx(0.15)


def test_a_run_that_goes_on_counts_what_is_to_come():
    """Every(10) of 1,000 updates, from step 505 on: 510, …, 990."""
    pace = Pace({"p": Every(10)}, horizon=1000)
    assert (pace.states, pace.states_from(505), pace.states_from(990)) == (100, 49, 1)
    assert Pace({"p": Every(10)}).states_from(505) is None


def test_the_state_that_took_the_least_counts():
    """The first one is checked closely. Rows that failed, or are light, say nothing."""
    rows = [
        Snapshot(step=step, train_seconds=float(step), snapshot_seconds=seconds, status=status, probes={"p": {}})
        for step, seconds, status in ((2, 8.0, "ok"), (3, 1.0, "failed"), (4, 3.0, "ok"), (5, 4.0, "ok"))
    ]
    found = None
    for row in rows:
        found = WholeState.cheaper(found, row, {"p": pieces()})
    assert found.seconds == 3.0
    assert WholeState.cheaper(None, rows[0], {}) is None
