"""Which changes of a learning rate are steps. Oracle: torch's own schedulers, whose steps are known by their arguments."""

import math
import pickle

import pytest
import torch
from torch.optim import lr_scheduler

from kerneltrack.errors import ScheduleError
from kerneltrack.measurement import Pace
from kerneltrack.measurement.rate_history import RateHistory
from kerneltrack.schedule import Clock, Log, OnLearningRateChange, StepDetector, StepRule, parse, read

RULE = OnLearningRateChange().rule


def rates(make, updates, *, every=1, groups=(0.1,), plateau=None):
    """The rates of every update, one for each group, under a scheduler that steps every so many updates."""
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in groups])
    scheduler, found = make(optimizer), []
    for t in range(updates):
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        if (t + 1) % every == 0:
            scheduler.step(*([] if plateau is None else [plateau(t)]))
    return found


def kinds(given, rule=RULE):
    """Each change of what is no other, by its update."""
    detector = StepDetector(rule)
    found = [(t, detector.see(t, each)) for t, each in enumerate(given)]
    return {t: kind for t, kind in found if kind in ("step", "decay")}


def steps(given, rule=RULE):
    return [t for t, kind in kinds(given, rule).items() if kind == "step"]


def warm_up_and_decay(optimizer):
    warm = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=200)
    decay = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    keeps = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=10**9)
    return lr_scheduler.SequentialLR(optimizer, [warm, keeps, decay], milestones=[200, 900])


SCHEDULERS = {
    "StepLR": (lambda o: lr_scheduler.StepLR(o, step_size=150, gamma=0.1), 1000, {}, [150, 300, 450, 600, 750, 900]),
    "MultiStepLR": (lambda o: lr_scheduler.MultiStepLR(o, [400, 700], gamma=0.5), 1000, {}, [400, 700]),
    "StepLR by epoch": (lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.2), 1000, {"every": 130}, [260, 520, 780]),
    "a rise": (lambda o: lr_scheduler.MultiStepLR(o, [300], gamma=4.0), 500, {}, [300]),
    "too soon": (lambda o: lr_scheduler.StepLR(o, step_size=99, gamma=0.1), 500, {}, []),
    "too small": (lambda o: lr_scheduler.StepLR(o, step_size=200, gamma=1 / 1.24), 1000, {}, []),
    "just large enough": (lambda o: lr_scheduler.StepLR(o, step_size=200, gamma=0.8), 500, {}, [200, 400]),
    "to nothing": (lambda o: lr_scheduler.MultiStepLR(o, [200], gamma=0.0), 300, {}, [200]),
    "cosine": (lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=1000), 1000, {}, []),
    "cosine by epoch": (lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=200), 200 * 120, {"every": 120}, []),
    "linear by epoch": (lambda o: lr_scheduler.PolynomialLR(o, total_iters=50), 50 * 120, {"every": 120}, []),
    "exponential by epoch": (lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9), 50 * 120, {"every": 120}, []),
    "one-cycle": (lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=901), 900, {}, []),
    "one-cycle by epoch": (lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=91), 90 * 120, {"every": 120}, []),
    "warm-up and decay": (warm_up_and_decay, 1000, {}, [901]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_of_torchs_schedulers(name):
    """That of "warm-up and decay" is its first change after the warm-up, wherever torch puts it."""
    make, updates, options, expected = SCHEDULERS[name]
    found = rates(make, updates, **options)
    if name == "warm-up and decay":
        expected = [next(t for t in range(300, len(found)) if found[t] != found[t - 1])]
    assert steps(found) == expected


def test_reduce_on_plateau():
    """The loss stands still from update 600 on; patience is counted in looks, one every 50 updates."""

    def make(o):
        return lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=3)

    found = rates(make, 1500, every=50, plateau=lambda t: max(1 - t / 600, 0.0))
    changed = [t for t in range(1, 1500) if found[t] != found[t - 1]]
    assert len(changed) > 2
    assert steps(found) == changed


def test_two_groups():
    """A step of one group is a step, whatever the other does: by hand, of a constant, a cosine and a staircase."""
    for other in (lambda t: 0.5, lambda t: 0.5 * (1 + math.cos(t / 400))):
        assert steps([(other(t), 0.1 if t < 250 else 0.01) for t in range(600)]) == [250]
    together = rates(lambda o: lr_scheduler.StepLR(o, step_size=300, gamma=0.1), 500, groups=(0.1, 0.7))
    assert steps(together) == [300]
    assert steps([(0.1, 0.5 if t < 50 else 0.1) for t in range(200)]) == []  # it had not held


def test_a_group_that_comes_or_goes_is_no_step():
    assert steps([(0.1,)] * 200 + [(0.1, 0.5)] * 200 + [(0.1,)] * 200) == []


def test_a_trend_begins_with_its_first_fall():
    """Where a decay begins, said once: after a constant rate, at a peak, at every restart, by epoch as by update."""
    cosine = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=200), 200 * 120, every=120)
    assert kinds(cosine) == {120: "decay"}
    cycle = rates(lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=1001, pct_start=0.3), 1000)
    assert kinds(cycle) == {max(range(1000), key=lambda t: cycle[t]) + 1: "decay"}
    restarts = rates(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=300), 900)
    assert kinds(restarts) == {1: "decay", 301: "decay", 601: "decay"}
    held = [(0.1 if t < 500 else 0.1 * (1 - (t - 500) / 1000),) for t in range(1400)]
    assert kinds(held) == {501: "decay"}


def test_a_drop_within_a_trend_is_a_step():
    """An exponential decay by epoch, which drops to a tenth once: much larger than its other changes."""
    given = [(0.1 * 0.99 ** (t // 100) * (0.1 if t >= 5000 else 1.0),) for t in range(9000)]
    assert steps(given) == [5000]


def test_a_restart_by_epoch_is_a_step():
    restarts = rates(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=20), 41 * 150, every=150)
    assert steps(restarts) == [20 * 150, 40 * 150]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_resumed_detector_says_the_same(name):
    """At any update: oracle is the one that went through."""
    make, updates, options, _ = SCHEDULERS[name]
    given = rates(make, min(updates, 3000), **options)
    through = kinds(given)
    for stop in (1, 151, 700):
        first, second = StepDetector(RULE), StepDetector(RULE)
        found = {t: first.see(t, given[t]) for t in range(min(stop, len(given)))}
        second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
        found |= {t: second.see(t, given[t]) for t in range(stop, len(given))}
        assert {t: kind for t, kind in found.items() if kind in ("step", "decay")} == through


def test_how_long_a_rate_must_hold_follows_the_offsets():
    """max(10, the longest of ``after`` up to 100), unless ``held`` says it."""
    wanted = {(0,): 10, (0, 1): 10, (0, 40): 40, (0, 1, 10, 100): 100, (0, 5000): 100}
    assert {after: OnLearningRateChange(after).rule.held for after in wanted} == wanted
    assert OnLearningRateChange(held=3).rule == StepRule(held=3, by=1.25)


def due(schedule, given):
    pace, found = Pace({"p": schedule}), []
    for t, each in enumerate(given):
        asked = pace.due(Clock(step=t, learning_rates=each))
        pace.group(asked, t)
        found += [t] if asked else []
    return found, pace


def test_by_default_the_states_around_a_step_are_measured():
    """The default pins a step that lies on no point of its grid; a cosine adds nothing to the grid."""
    step = [(0.1 if t < 333 else 0.01,) for t in range(500)]
    grid = {0, *(round(2 ** (j / 2)) for j in range(18)), *(round(2 ** (j / 2)) + 1 for j in range(3, 18, 3))}
    assert set(due(parse("log"), step)[0]) == grid | {333, 334, 343, 433, 434}
    cosine = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=500), 500)
    assert set(due(parse("log"), cosine)[0]) == grid


def test_no_more_steps_are_taken_than_were_asked_for():
    """Three of five, and it is said once, with the step at which it began; a resumed run has not forgotten."""
    given = [(0.5 ** (t // 50),) for t in range(290)]
    schedule = OnLearningRateChange(after=(0, 1), most=3)
    found, pace = due(schedule, given)
    assert found == [0, 50, 51, 100, 101, 150, 151]
    assert "200" in pace.refused
    assert "most=3" in pace.refused
    assert pace.newly_refused() == pace.refused
    assert pace.newly_refused() == ""
    through = []
    for resumed in (120, 180, 220):
        first = Pace({"p": schedule})
        through = [t for t in range(resumed) if first.due(Clock(step=t, learning_rates=given[t]))]
        second = Pace({"p": schedule})
        second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
        through += [t for t in range(resumed, 290) if second.due(Clock(step=t, learning_rates=given[t]))]
        assert through == found
    assert len(due(OnLearningRateChange(after=(0, 1), most=None), given)[0]) == 11
    assert OnLearningRateChange().most == 20


def test_what_an_archive_or_a_checkpoint_does_not_say_of_steps_was_every_change():
    """A run that began when every change counted goes on with every change."""
    before = read("OnLearningRateChange(after=(0, 1), pairs=0)")
    assert (before.by, before.rule.held, before.most) == (1.0, 10, None)
    assert read(str(before)) == before
    given = [(0.1 - 0.001 * (t // 30),) for t in range(200)]
    assert due(before, given)[0] == [0, *(t + i for t in range(30, 200, 30) for i in (0, 1))]
    memory = {"rates": [0.1], "since": 0, "seen": 40, "changes": [[35, 35]]}
    history = RateHistory([Log() | OnLearningRateChange()])
    history.load_state_dict(memory)
    history.see(130, (0.05,))
    assert [(c.step, c.held) for c in history.changes] == [(35, 35), (130, 130)]


@pytest.mark.parametrize("bad", [{"by": 0.5}, {"by": math.inf}, {"by": True}, {"most": 0}, {"held": -1}])
def test_impossible_rules_are_refused(bad):
    with pytest.raises(ScheduleError, match=r"OnLearningRateChange\((by|most|held)=.*expected"):
        OnLearningRateChange(**bad)
