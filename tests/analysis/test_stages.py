"""Stages. Oracles: courses whose change points are put in by hand, and false-alarm rates counted on simulated nulls.

Two laws: a kernel that turns at a constant angular velocity has no stages of motion, however its snapshots are spaced; and
what is called sharpening does not depend on the learning rate's schedule, for it is a property of the parameters.
"""

import dataclasses
import importlib
import json

import numpy as np
import pytest
import xarray as xr

from kerneltrack.analysis import load
from kerneltrack.analysis.derived.stages import (
    HELD,
    _edge,
    _held,
    _sharpening,
    change_points,
    correlations,
    judge,
    lag_one,
    stages,
)
from kerneltrack.analysis.trajectory import Run
from kerneltrack.errors import AnalysisError
from tests.archive import at_once
from tests.tiers import one_in


def ar1(rng, length, phi):
    noise = rng.standard_normal(length)
    noise[0] /= np.sqrt(1 - phi**2)
    for i in range(1, length):
        noise[i] += phi * noise[i - 1]
    return noise


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_a_change_that_was_put_in_is_found_near_its_place(phi):
    rng = np.random.default_rng(0)
    places = []
    for _ in range(20):
        values = ar1(rng, 60, phi)
        values[25:] -= 6
        places += [at for at, _ in change_points(values)][:1]
    assert len(places) >= 18
    assert abs(np.median(places) - 25) <= 1


@pytest.mark.parametrize("phi", [0.0, 0.4, 0.8])
def test_the_false_alarm_rate_on_the_null_is_what_it_says(phi):
    """100 stationary AR(1) courses of 50: at a level of 5 % at most 5 % + 3 binomial standard errors, about 12 %."""
    rng = np.random.default_rng(1)
    alarms = sum(bool(change_points(ar1(rng, 50, phi))) for _ in range(100))
    assert alarms / 100 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_a_naive_null_would_give_false_alarms():
    """Negative control: without the correlation, the same courses set the alarm off in most cases."""
    rng = np.random.default_rng(1)
    module = importlib.import_module("kerneltrack.analysis.derived.stages")  # the folder has a function of that name
    courses = [ar1(rng, 50, 0.8) for _ in range(40)]
    honest = sum(bool(change_points(c)) for c in courses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "lag_one", lambda values: 0.0)
        naive = sum(bool(change_points(c)) for c in courses)
    assert naive > 20 > honest


def test_the_correlation_is_read_through_a_jump():
    rng = np.random.default_rng(2)
    for phi in (0.0, 0.5, 0.9):
        values = ar1(rng, 4000, phi)
        values[2000:] += 20
        assert lag_one(values) == pytest.approx(phi, abs=0.05)


def written(synthetic, truth, path, steps, *, rates=0.1, keep=(), optimizer=None, **courses):
    """A run of one trace, and of the courses given, at these steps and rates."""
    (row, *_), record = synthetic.snapshots(truth), synthetic.record(truth)
    trace = {"trace": row.probes["train"]["trace"], **{name: row.probes["train"][name] for name in keep}}
    rates = np.broadcast_to(
        np.asarray(rates, dtype=float).reshape(-1, *np.shape(rates)[1:]), (len(steps), *np.shape(rates)[1:])
    )
    rows = [
        dataclasses.replace(
            row,
            step=int(step),
            learning_rates=tuple(np.atleast_1d(rates[i]).tolist()),
            probes={"train": {**trace, **{name: np.array(values[i]) for name, values in courses.items()}}},
        )
        for i, step in enumerate(steps)
    ]
    given = synthetic.provenance()
    if optimizer is not None:
        given = dataclasses.replace(given, run={**given.run, "optimizers": optimizer})
    return load(at_once.write(path, rows, record, provenance=given)).only


def built(steps, **courses):
    """The same without a file, for what looks at a course and its steps alone."""
    rows = {"step": np.asarray(steps), "trace": np.ones(len(steps)), **courses}
    dataset = xr.Dataset({name: ("snapshot", values) for name, values in rows.items()})
    return Run(dataset=dataset.assign_attrs(settings=json.dumps({"dtype": "float32"})), probe="train")


def test_a_kernel_that_slows_down_has_two_stages():
    """It turns a hundred times slower from the twelfth snapshot on, with an alternation of a tenth."""
    steps = np.arange(0, 240, 10)
    omega = np.where(steps < 120, 1e-3, 1e-5) * (1 + 0.1 * (-1.0) ** np.arange(24))
    omega[0] = np.nan
    run = built(steps, kernel_angular_velocity=omega)
    found = {stage.name: stage for stage in stages(run)}
    assert (found["fast kernel motion"].first, found["fast kernel motion"].last) == (10, 110)
    assert found["slow kernel motion"].first == 120
    assert all(stage.false_alarm < 0.05 for stage in found.values())
    assert judge(run)[1] == ()


SPACINGS = {
    "log": np.unique(np.round(2 ** (np.arange(0, 20) / 2)).astype(int)),
    "pairs": np.sort(np.concatenate([np.arange(0, 6000, 500), np.arange(1, 6000, 500)])),
    "around changes": np.sort(np.concatenate([np.arange(0, 2000, 100), [1001, 1011, 1501, 1511]])),
    "four times as wide": np.concatenate([np.arange(12), 12 + 4 * np.arange(12)]),
    "a third wider": np.concatenate([3 * np.arange(12), 36 + 4 * np.arange(12)]),
    "even": np.arange(0, 300, 10),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("motion", ["smooth", "to and fro"])
@pytest.mark.parametrize("every", [True, False], ids=["every-gap", "one-lag"])
def test_one_motion_has_no_stages_however_its_snapshots_are_spaced(spacing, motion, every):
    """Law. Oracle: a smooth motion turns by ωΔ, one of period 2 by one angle at odd gaps and none at even ones.

    Over every gap, as another tracker may store it, and at the lag of the first two, as this one does.
    """
    steps = SPACINGS[spacing]
    gaps = np.diff(steps)
    angle = 1e-4 * gaps if motion == "smooth" else np.where(gaps % 2, 0.37, 1e-5)
    omega = angle / gaps * np.exp(1e-3 * np.random.default_rng(5).standard_normal(len(gaps)))
    told = np.append(np.nan, np.where(every | (gaps == gaps[0]), omega, np.nan))
    run = built(steps, kernel_angular_velocity=told)
    known = gaps[np.isfinite(told[1:])]
    wide = known.max() > 2 * known.min()
    try:
        found, reasons = judge(run)
    except AnalysisError as error:  # fewer than six at the lag: that is said
        assert len(known) < 6
        assert "6 snapshots or more" in str(error)  # noqa: PT017
        return
    assert found == ()
    assert any("gaps differ" in reason for reason in reasons) == wide


def test_a_kernel_that_turns_by_its_rounding_has_no_stages():
    """Steps so small that the angle is the rounding of the kernel's entries say nothing of motion."""
    omega = np.where(np.arange(30) < 15, 1e-3, 1e-16)
    run = built(np.arange(30), kernel_angular_velocity=omega)
    assert stages(run) == ()
    assert any("15 snapshots the kernel turned by no more than its rounding" in reason for reason in judge(run)[1])


def ornstein(rng, steps, memory):
    """An AR(1) process in time, seen at these steps: what is remembered over a gap g is e^(−g/memory)."""
    values = rng.standard_normal(len(steps))
    for i, gap in enumerate(np.diff(steps), start=1):
        r = np.exp(-gap / memory)
        values[i] = r * values[i - 1] + np.sqrt(1 - r * r) * values[i]
    return values


def test_the_null_knows_the_gaps():
    """False alarms on AR(1) courses in time, seen densely at first and rarely later: at most 5 % + 3 standard errors of 60.

    Negative control: a null that takes them for even, as the counter of snapshots does, gives several times as many.
    """
    steps = np.concatenate([np.arange(24), 24 + 50 * np.arange(1, 13)])
    rng = np.random.default_rng(6)
    courses = [ornstein(rng, steps, 20.0) for _ in range(60)]
    told, naive = (sum(bool(change_points(course, at=at)) for course in courses) / 60 for at in (steps, None))
    assert told <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60) < naive


def test_a_change_is_found_whatever_the_gaps():
    """Six standard deviations, put in at a place where snapshots are rare."""
    steps = np.array([1, 2, 3, 4, 9, 24, 65, 182, 513, 1449, 2048, 4097])
    rng = np.random.default_rng(8)
    courses = [ornstein(rng, steps, 5.0) - 6 * (np.arange(12) >= 6) for _ in range(10)]
    found = [change_points(course, at=steps) for course in courses]
    assert sum(places[:1] != [] and places[0][0] == 6 for places in found) >= 9


@pytest.mark.parametrize("course", ["a line", "1/t", "1/(1 + t/5)"])
def test_a_motion_that_slows_down_gradually_has_no_stages(course):
    """Fifteen of them, of three sizes of noise; at most two are called two stages. A step in their place always is."""
    rng, t = np.random.default_rng(9), np.arange(1, 31)
    falling = {"a line": -t / 6, "1/t": -np.log(t), "1/(1 + t/5)": -np.log1p(t / 5)}[course]
    noises = [size * rng.standard_normal(30) for size in (0.01, 0.1, 0.5) for _ in range(5)]
    assert sum(bool(change_points(falling + noise, at=t)) for noise in noises) <= 2
    assert all(change_points(-3.0 * (t > 14) + noise, at=t) for noise in noises)


def test_what_is_remembered_over_a_gap_is_read_from_the_course():
    """Oracle: the memory that the course was drawn with; over equal gaps it is the correlation of neighbours."""
    rng = np.random.default_rng(7)
    steps = np.cumsum(rng.choice([1, 30], 2000))
    gaps = np.diff(steps)
    jumped = ornstein(rng, steps, 20.0) + 20 * (np.arange(2000) >= 900)
    np.testing.assert_allclose(correlations(jumped, gaps), np.exp(-gaps / 20.0), atol=0.05)
    even = ornstein(rng, np.arange(200), 3.0)
    np.testing.assert_array_equal(correlations(even, np.ones(199)), np.full(199, lag_one(even)))


def climbing():
    """ρ at a constant rate 0.1: it climbs to the edge and stays there."""
    rng = np.random.default_rng(3)
    return np.concatenate([np.geomspace(0.05, 0.93, 20), 1 + 0.05 * rng.standard_normal(25)])


def test_sharpening_and_the_edge_are_marked_on_a_course_that_has_both():
    ratio = climbing()
    (sharpening,), (edge,) = _sharpening(np.arange(45) * 10, ratio, 0), _edge(np.arange(45) * 10, ratio, 0)
    assert (sharpening.name, sharpening.first, sharpening.last) == ("progressive sharpening", 0, 200)
    assert (edge.name, edge.first, edge.last, edge.snapshots) == ("edge of stability", 200, 440, 25)
    assert f"{HELD[0]:g} to {HELD[1]:g}" in edge.rule


STEPS = np.arange(45) * 10
FACTORS = {
    "constant": np.ones(45),
    "warm-up": np.minimum(np.arange(1, 46) / 20, 1),
    "from zero": np.arange(45) / 44,
    "cosine": 0.505 + 0.495 * np.cos(np.pi * np.arange(45) / 44),
    "one cycle": np.interp(np.arange(45), [0, 15, 44], [0.04, 1, 0.001]),
    "halvings": 0.5 ** (np.arange(45) // 15),
    "a jump": np.where(np.arange(45) < 20, 0.1, 1.0),
    "by epochs": np.repeat(np.linspace(1, 0.1, 9), 5),
}


#: A rate that begins at zero, one that rises and falls, one that jumps; the others are their kin.
every_schedule = pytest.mark.parametrize(
    "factors",
    [
        name if name in ("from zero", "one cycle", "halvings") else pytest.param(name, marks=pytest.mark.nightly)
        for name in FACTORS
    ],
)


def sharpening(found):
    return [(stage.first, stage.last, stage.level) for stage in found if stage.name == "progressive sharpening"]


@every_schedule
def test_sharpening_is_a_property_of_the_parameters(synthetic, truth, tmp_path, factors):
    """Law: at the same parameters η → aη multiplies ρ by a, and what is called sharpening does not change."""
    known = FACTORS[factors] > 0
    rates = 0.1 * FACTORS[factors]
    first = written(synthetic, truth, tmp_path / "one.h5", STEPS[known], stability_ratio=climbing()[known])
    other = written(
        synthetic, truth, tmp_path / "two.h5", STEPS, rates=rates, stability_ratio=climbing() * FACTORS[factors]
    )
    assert len(sharpening(stages(first))) == 1
    assert sharpening(stages(other)) == sharpening(stages(first))


@every_schedule
def test_a_kernel_that_stands_still_has_no_stage_whatever_the_rate(synthetic, truth, tmp_path, factors):
    """Law: with a constant Θ and S, ρ is the rate times a constant (here to a float32 kernel's rounding)."""
    noise = 1 + 2.0**-23 * np.random.default_rng(0).standard_normal(45)
    rates = 0.1 * FACTORS[factors]
    ratio = FACTORS[factors] * noise
    assert stages(written(synthetic, truth, tmp_path / "run.h5", STEPS, rates=rates, stability_ratio=ratio)) == ()


GROUP = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0}
UNCLEAR = {
    "Adam": (FACTORS["constant"], [{"class": "Adam", "groups": [GROUP]}], "is not SGD"),
    "AdamW": (FACTORS["warm-up"], [{"class": "AdamW", "groups": [GROUP]}], "is not SGD"),
    "unknown": (FACTORS["constant"], [], "optimizer is not stored"),
    "cycled momentum": (
        FACTORS["one cycle"], [{"class": "SGD", "groups": [{**GROUP, "base_momentum": 0.5, "max_momentum": 0.99}]}],
        "the momentum with it",
    ),
    "large decay": (
        FACTORS["warm-up"], [{"class": "SGD", "groups": [{**GROUP, "weight_decay": 5.0}]}], "what weight decay takes",
    ),
    "groups apart": (
        np.stack([FACTORS["constant"], FACTORS["warm-up"]], axis=1), [{"class": "SGD", "groups": [GROUP, GROUP]}],
        "moved against each other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", one_in(2, UNCLEAR))
def test_where_the_preconditioner_moves_no_sharpening_is_told_and_why(synthetic, truth, tmp_path, kind):
    factors, optimizer, reason = UNCLEAR[kind]
    course = climbing() * (factors if factors.ndim == 1 else 1)
    run = written(
        synthetic, truth, tmp_path / "run.h5", STEPS, rates=0.1 * factors, stability_ratio=course, optimizer=optimizer
    )
    assert sharpening(stages(run)) == []
    assert any(reason in said for said in judge(run)[1])


@pytest.mark.parametrize("kind", one_in(2, UNCLEAR, first=1))
def test_stored_sharpness_is_judged_whatever_the_optimizer_did(synthetic, truth, tmp_path, kind):
    """The stage is that of the stored course; ρ, which is NaN for the first updates of Adam, has no part in it."""
    factors, optimizer, _ = UNCLEAR[kind]
    ratio = np.where(np.arange(45) < 3, np.nan, climbing() * (factors if factors.ndim == 1 else 1))
    numbers = {"gauss_newton_sharpness": 7 * climbing(), "stability_ratio": ratio}
    run = written(synthetic, truth, tmp_path / "run.h5", STEPS, rates=0.1 * factors, optimizer=optimizer, **numbers)
    alone = written(synthetic, truth, tmp_path / "one.h5", STEPS, stability_ratio=climbing())
    assert sharpening(stages(run)) == sharpening(stages(alone))
    assert not any("sharpening" in said for said in judge(run)[1])


@pytest.mark.parametrize("ratio", [(1.0, 1.0), (1.0, 0.3)])
def test_groups_whose_rates_move_together_are_one_rate(synthetic, truth, tmp_path, ratio):
    rates = 0.1 * FACTORS["warm-up"][:, None] * np.array(ratio)
    optimizer = [{"class": "SGD", "groups": [GROUP, GROUP]}]
    run = written(
        synthetic,
        truth,
        tmp_path / "run.h5",
        STEPS,
        rates=rates,
        optimizer=optimizer,
        stability_ratio=climbing() * FACTORS["warm-up"],
    )
    assert len(sharpening(stages(run))) == 1


def test_the_edge_is_judged_at_one_rate(synthetic, truth, tmp_path):
    """A rate that moves at every snapshot moves the bound: nothing is told of the edge, and why."""
    run = written(
        synthetic, truth, tmp_path / "run.h5", STEPS, rates=0.1 * FACTORS["cosine"], stability_ratio=climbing()
    )
    assert not [stage for stage in stages(run) if stage.name == "edge of stability"]
    assert any("edge of stability: the rate moved" in said for said in judge(run)[1])


def test_a_course_that_rises_to_its_very_end_is_sharpening():
    """Shuffled, its increments come as far every time: a null without random signs would give a rate of one.

    With signs, 24 of 24 increments of one size must be positive for a walk to come as far: never in 999 draws, a rate of
    1/1,000. Fails where the null has no random signs.
    """
    (stage,) = _sharpening(np.arange(25), np.geomspace(0.01, 0.8, 25), 0)
    assert (stage.name, stage.last) == ("progressive sharpening", 24)
    assert stage.false_alarm == pytest.approx(1 / 1000)


def test_random_walks_are_rarely_called_sharpening_or_the_edge():
    """The rules on draws from their own null, 60 walks of 40: the rate is a rank among 999, so 5 % + 3 standard errors."""
    rng = np.random.default_rng(4)
    marked = {"progressive sharpening": 0, "edge of stability": 0}
    for _ in range(60):
        walk = 0.2 * np.exp(np.cumsum(0.2 * rng.standard_normal(40)))
        for stage in [*_sharpening(np.arange(40), walk, 0), *_edge(np.arange(40), walk, 0)]:
            marked[stage.name] += 1
    assert max(marked.values()) <= 60 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 60))


def test_passing_the_edge_is_not_staying_there():
    assert _held(np.geomspace(0.1, 10, 20)) < 4
    assert _held(np.full(10, 0.5)) == 0
    assert _held(np.array([0.5, 1.0, 1.0, 0.9, 2.0, 1.0])) == 3


def test_what_cannot_be_judged_says_so(synthetic, truth, tmp_path):
    rows = list(synthetic.snapshots(truth))[:3]
    with pytest.raises(AnalysisError, match="6 snapshots or more"):
        stages(load(synthetic.write(tmp_path / "short.h5", rows, synthetic.record(truth))).only)
    rows = list(synthetic.snapshots(truth, drop={"kernel_angular_velocity", "stability_ratio"}))
    with pytest.raises(AnalysisError, match="finding stages needs 'kernel_angular_velocity'"):
        stages(load(synthetic.write(tmp_path / "none.h5", rows, synthetic.record(truth))).only)
    nan = [dataclasses.replace(row, status="failed", message="x", probes={}) for row in synthetic.snapshots(truth)]
    with pytest.raises(AnalysisError):
        stages(load(synthetic.write(tmp_path / "nan.h5", nan, synthetic.record(truth))).only)
