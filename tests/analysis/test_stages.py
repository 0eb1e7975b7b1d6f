"""Stages. Oracles: courses whose change points are put in by hand, and false-alarm rates counted on simulated nulls."""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.stages import HELD, _held, _stability, change_points, lag_one, stages
from kerneltrack.errors import AnalysisError


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
    from kerneltrack.analysis import stages as module

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


def test_the_synthetic_run_s_stages(archives, synthetic):
    """Velocity falls a hundredfold from the eighth snapshot on; λ_1 climbs to its bound before the halving."""
    found = {stage.name: stage for stage in stages(load(archives[0]).only)}
    assert (found["fast kernel motion"].first, found["fast kernel motion"].last) == (0, 100)
    assert found["slow kernel motion"].first == 200
    assert all(stage.false_alarm < 0.05 for stage in found.values())


def test_sharpening_and_the_edge_are_marked_on_a_course_that_has_both():
    rng = np.random.default_rng(3)
    ratio = np.concatenate([np.geomspace(0.05, 0.93, 20), 1 + 0.05 * rng.standard_normal(25)])
    sharpening, edge = _stability(np.arange(45) * 10, ratio, 0)
    assert (sharpening.name, sharpening.first, sharpening.last) == ("progressive sharpening", 0, 200)
    assert (edge.name, edge.first, edge.last, edge.snapshots) == ("edge of stability", 200, 440, 25)
    assert f"{HELD[0]:g} to {HELD[1]:g}" in edge.rule


def test_random_walks_are_rarely_called_sharpening_or_the_edge():
    """The rules on draws from their own null, 60 walks of 40: the rate is a rank among 999, so 5 % + 3 standard errors."""
    rng = np.random.default_rng(4)
    marked = {"progressive sharpening": 0, "edge of stability": 0}
    for _ in range(60):
        walk = 0.2 * np.exp(np.cumsum(0.2 * rng.standard_normal(40)))
        for stage in _stability(np.arange(40), walk, 0):
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
    rows = list(synthetic.snapshots(truth, drop={"kernel_velocity", "stability_ratio"}))
    with pytest.raises(AnalysisError, match="finding stages needs 'kernel_velocity'"):
        stages(load(synthetic.write(tmp_path / "none.h5", rows, synthetic.record(truth))).only)
    nan = [dataclasses.replace(row, status="failed", message="x", probes={}) for row in synthetic.snapshots(truth)]
    with pytest.raises(AnalysisError):
        stages(load(synthetic.write(tmp_path / "nan.h5", nan, synthetic.record(truth))).only)
