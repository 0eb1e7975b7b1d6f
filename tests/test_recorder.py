"""The recorder's overhead rule, on a clock that the test owns. Oracle: the share worked out from what was measured."""

import pytest
import torch
from torch import nn

import kerneltrack.measurement.recorder as module
from kerneltrack.errors import TrackerError
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.moment import Moment
from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.recorder import Recorder
from kerneltrack.probe import Probe
from kerneltrack.schedule import Clock, Due, Every, Log, OnLearningRateChange, OnMetricChange, Seconds
from kerneltrack.snapshot import Snapshot
from kerneltrack.training.update_rule import UpdateRule

COST, STEP = 1.0, 0.05  # seconds of a measurement and of a training step


class Writer:
    def __init__(self):
        self.rows = []

    def append(self, snapshot):
        self.rows.append(snapshot)

    def close(self):
        pass


def run(monkeypatch, schedule, steps, cap, *, known=True, changes=()):
    """A run of ``steps`` updates in which every measurement takes COST seconds; returns the rows."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    writer, net = Writer(), nn.Linear(2, 1)
    instrument = Instrument(probe=Probe(torch.randn(3, 2), name="p"))
    recorder = Recorder(
        writer, {"p": instrument}, Pace({"p": schedule}, max_overhead=cap, horizon=steps if known else None)
    )
    measure = Instrument.measure

    def slow(self, *args, **kwargs):
        now[0] += COST
        return measure(self, *args, **kwargs)

    monkeypatch.setattr(Instrument, "measure", slow)
    for step in range(steps):
        due = recorder.due(Clock(step=step, learning_rates=(0.1 / 2 ** sum(c <= step for c in changes),)))
        if due:
            recorder.open_row(net, Moment(step=step, train_seconds=STEP * step), UpdateRule((0.1,), {}, None), due)
            recorder.close_row(net, update_applied=True)
    return writer.rows


@pytest.mark.parametrize("schedule", [Every(1), Every(7), Log(8), Every(3) | Log(2)], ids=str)
@pytest.mark.parametrize("cap", [0.05, 0.3])
def test_the_share_is_kept_and_the_steps_nest(monkeypatch, schedule, cap):
    steps = 2000
    rows = run(monkeypatch, schedule, steps, cap)
    share = COST * len(rows) / (COST * len(rows) + STEP * steps)
    assert share <= cap + COST / (STEP * steps)  # one row of slack: the rule looks ahead after a row
    assert share > cap / 4 or len(rows) >= len(run(monkeypatch, schedule, steps, None))
    unthinned = {t for t in range(steps) if schedule.due(Clock(step=t))}
    seconds = {t + 1 for t in unthinned if schedule.due(Clock(step=t)).window == 2}
    assert {row.step for row in rows if not row.window} <= unthinned
    assert {row.step for row in rows} <= unthinned | seconds


def test_without_a_known_end_the_share_is_kept_too(monkeypatch):
    rows = run(monkeypatch, Every(1), 2000, 0.2, known=False)
    assert COST * len(rows) <= 0.25 * (COST * len(rows) + STEP * 2000)


def test_rate_changes_are_never_skipped_and_skips_are_said(monkeypatch):
    schedule = Every(2) | OnLearningRateChange(after=(0, 1))
    rows = run(monkeypatch, schedule, 2000, 0.02, changes=(1001,))
    assert {1001, 1002} <= {row.step for row in rows}
    said = [row.message for row in rows if "skipped" in row.message]
    assert said
    assert "max_overhead=0.02" in said[0]


def test_no_cap_skips_nothing(monkeypatch):
    assert [row.step for row in run(monkeypatch, Every(5), 40, None)] == list(range(0, 40, 5))


def asked(recorder, clocks):
    """step → probes that are due, by asking alone."""
    return {clock.step: sorted(found) for clock in clocks if (found := recorder.due(clock))}


def test_schedules_by_the_clock_and_by_metrics_count_for_each_probe_by_itself():
    """Oracle: counting by hand. A probe measured every second never puts off one that is due every four."""

    def recorder():
        instruments = {name: Instrument(probe=Probe(torch.randn(3, 2), name=name)) for name in "abc"}
        return Recorder(None, instruments, Pace({"a": Seconds(1), "b": Seconds(4), "c": OnMetricChange("loss", by=2)}))

    def clocks(start, stop):
        return [Clock(step=t, seconds=float(t), metrics={"loss": 2.0 ** (-t / 3)}) for t in range(start, stop)]

    expected = {
        0: ["a", "b", "c"],
        1: ["a"],
        2: ["a"],
        3: ["a", "c"],
        4: ["a", "b"],
        5: ["a"],
        6: ["a", "c"],
        7: ["a"],
        8: ["a", "b"],
        9: ["a", "c"],
    }
    assert asked(recorder(), clocks(0, 10)) == expected
    for stop in range(1, 10):  # resumed at any step, the schedule is the same
        first, second = recorder(), recorder()
        before = asked(first, clocks(0, stop))
        second.load_state_dict(first.state_dict(), torch.device("cpu"))
        assert before | asked(second, clocks(stop, 10)) == expected


def test_the_last_state_counts_too():
    """By hand: 100 updates of 1 s, 2 s a row, one measured. With 50 and 100 to come 6 s of 106 are too much, 4 of 104 not."""
    pace = Pace({"p": Every(50)}, max_overhead=0.05, horizon=100)
    assert pace.halvings(1, 1.0, 2.0, 1) == 1


def test_an_unknown_end_is_twice_as_far():
    """By hand: 100 updates of 1 s, 5 s a row, 10 rows so far, a cap of a quarter, every tenth state.

    Up to 200 there are nine more and the last: 100 of 300 s. Halved once there are four and the last, 75 of 275 s; halved
    twice two and the last, 65 of 265 s: 24.5 %. Fails where the end is taken for now: the last alone would be 55 of 155 s,
    too much however often the grid is halved.
    """
    assert Pace({"p": Every(10)}, max_overhead=0.25).halvings(100, 100.0, 50.0, 10) == 2


def test_the_share_is_one_of_the_whole_run():
    """By hand: measuring 25 s beside 75 s of training is a quarter of the run, and a third of the training.

    One row of 5 s is made; 75 updates of 1 s; Every(25) asks for 3 more and the last: 5 + 20 s. Fails where the share is
    one of the training alone.
    """
    pace = Pace({"p": Every(25)}, max_overhead=0.25, horizon=76)
    assert pace.halvings(1, 75 / 76, 5.0, 1) == 0
    assert Pace({"p": Every(25)}, max_overhead=0.24, horizon=76).halvings(1, 75 / 76, 5.0, 1) > 0


def test_a_resumed_run_goes_on_with_the_halved_grid(monkeypatch):
    """Oracle: the steps of the run that was not interrupted. Fails where the halvings are not in a recorder's state."""

    def recorder():
        instrument = Instrument(probe=Probe(torch.randn(3, 2), name="p"))
        return Recorder(Writer(), {"p": instrument}, Pace({"p": Every(1)}, max_overhead=0.5, horizon=64))

    first, second = recorder(), recorder()
    first.pace.thinned = 3
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    clocks = [Clock(step=step) for step in range(17, 64)]
    assert asked(second, clocks) == asked(first, clocks) == {step: ["p"] for step in range(24, 64, 8)}


def waiting_for(*calls):
    """A recorder after those calls, its writer, and the call that the next one is."""
    writer, net = Writer(), nn.Linear(2, 1)
    recorder = Recorder(writer, {"p": Instrument(probe=Probe(torch.randn(3, 2), name="p"))}, Pace({"p": Every(1)}))
    step = iter(range(9))

    def open_row():
        recorder.open_row(net, Moment(step=next(step)), UpdateRule((0.1,), {}, None), {"p": Due("every")})

    made = {
        "open_row": open_row,
        "use_rates": lambda: recorder.use_rates([0.2]),
        "close_row": lambda: recorder.close_row(None, update_applied=None),
        "store": lambda: recorder.store(Snapshot(step=7, learning_rates=(0.7,))),
        "close": recorder.close,
    }
    for call in calls:
        made[call]()
    return writer, made


#: State → (how to come there, what may be called), as the table in the docstring of Recorder has it.
STATES = {
    "idle": ((), {"open_row", "store", "close"}),
    "idle again": (("open_row", "close_row"), {"open_row", "store", "close"}),
    "open": (("open_row",), {"use_rates", "close_row", "close"}),
    "open with its rates": (("open_row", "use_rates"), {"use_rates", "close_row", "close"}),
    "closed": (("close",), {"close"}),
    "closed while open": (("open_row", "close"), {"close"}),
}


@pytest.mark.parametrize("call", ["open_row", "use_rates", "close_row", "store", "close"])
@pytest.mark.parametrize("state", STATES)
def test_a_call_out_of_turn_is_refused_and_loses_nothing(state, call):
    """Oracle: the table, by hand. Before, a second open_row dropped the row that waited, and a closed one wrote nowhere."""
    before, allowed = STATES[state]
    writer, made = waiting_for(*before)
    if call in allowed:
        made[call]()
    else:
        wanted = "idle" if call in ("open_row", "store") else "open"
        with pytest.raises(
            TrackerError, match=rf"{call}\(\).* out of turn: expected .*{wanted}, got {state.split()[0]}"
        ):
            made[call]()
    made["close"]()
    opened = [*before, call].count("open_row") - (call == "open_row" and call not in allowed)
    given = writer.rows.pop() if call == "store" and call in allowed else None
    assert given is None or (given.step, given.learning_rates) == (7, (0.7,))
    assert [row.step for row in writer.rows] == list(range(opened))
    used = [*before, call].count("use_rates") - (call == "use_rates" and call not in allowed)
    assert [row.learning_rates for row in writer.rows] == [(0.2,) if used else (0.1,)] * opened


def test_a_row_that_cannot_be_measured_leaves_no_row_open(monkeypatch):
    """It raises, and the next state is measured as if nothing had been."""
    writer, made = waiting_for()
    measure = Instrument.measure
    monkeypatch.setattr(Instrument, "measure", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made["open_row"]()
    monkeypatch.setattr(Instrument, "measure", measure)
    made["open_row"]()
    made["close_row"]()
    assert [row.step for row in writer.rows] == [1]
