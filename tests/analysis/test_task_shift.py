"""Forgetting foretold from an archive. Oracle: a linear model, where the kernel at the switch tells everything."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.derived import task_overlap, task_shift
from kerneltrack.analysis.derived.flow_time import flow_time
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report.forgetting import forgetting
from kerneltrack.errors import AnalysisError
from kerneltrack.regression import flow_filter
from tests.analysis.altered import stored
from tests.analysis.h5_by_hand import numbers, sig

SWITCH, RATE = 4, 0.3


def tracked(path, *, steps, later=RATE, outputs=2, loss="half_mse"):
    """Task A for four updates, then B for six, the last four of them at another rate; full batches; seen through A."""
    torch.manual_seed(0)
    model = nn.Linear(5, outputs).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    a, b = ((torch.randn(n, 5).double(), torch.randn(n, outputs).double()) for n in (9, 8))
    with kt.Tracker(
        path,
        model,
        optimizer,
        probe={"new": kt.Probe(*b), "old": kt.Probe(*a)},
        output="full",
        observables=["target_energy_out_of_sample", "trace", "frobenius", "noise_floor", "probe_loss"],
        loss=loss,
        schedule=kt.schedule.At(steps),
        metadata={"switch": SWITCH},
        log=False,
    ) as tracker:
        for step in range(10):
            x, y = a if step < SWITCH else b
            optimizer.param_groups[0]["lr"] = RATE if step < 6 else later
            with tracker.update():
                optimizer.zero_grad()
                ((model(x) - y) ** 2).sum(1).mean().div(2 if loss == "half_mse" else outputs).backward()
                optimizer.step()
    return load(path, probe="old").only


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tracked(tmp_path_factory.mktemp("tasks") / "run.h5", steps=[0, SWITCH, SWITCH + 1, 10])


def test_of_a_linear_model_the_kernel_foretells_all(run):
    """Vectors carried over are stored in float32: 1e-5."""
    found = task_shift(run)
    assert found.switch == SWITCH
    assert found.steps.tolist() == [5, 10]
    outputs = run.values("outputs")
    np.testing.assert_array_equal(found.actual, outputs[2:] - outputs[1])
    np.testing.assert_allclose(found.predicted, found.actual, atol=1e-5 * np.abs(found.actual).max())
    assert (found.error < 1e-9).all()
    np.testing.assert_allclose(found.losses, run.values("probe_loss")[2:] - run.values("probe_loss")[1], rtol=1e-9)
    assert found.share == pytest.approx(1, abs=1e-4)


def test_the_slope_of_the_loss_counts(tmp_path):
    """Of the mean over three outputs it is 2/3, and a linear model is foretold as above."""
    run = tracked(tmp_path / "run.h5", steps=[0, SWITCH, 10], outputs=3, loss="mse")
    found = task_shift(run)
    assert (found.error < 1e-9).all()
    np.testing.assert_allclose(found.losses, run.values("probe_loss")[2:] - run.values("probe_loss")[1], rtol=1e-9)


def test_another_rate_is_not_foretold(run):
    """Negative control: filters of half the rate."""
    rates = run.dataset["learning_rate"]
    halved = load(run.path, probe="new").only
    halved = dataclasses.replace(halved, dataset=halved.dataset.assign(learning_rate=rates / 2))
    with mock.patch("kerneltrack.analysis.derived.task_shift.other_task", return_value=halved):
        assert (task_shift(run).error > 1e-3).all()


def test_size_and_angles_are_those_of_the_stored_kernels(run):
    """Both from what is stored, in float32; a linear model has one kernel at every moment."""
    found = task_overlap(run, modes=3)
    assert found.complete
    kernels = {p: load(run.path, probe=p).only for p in ("old", "new")}
    carried = run.at("extension", 0).reshape(18, -1)
    size = np.linalg.norm(carried) / np.sqrt(np.prod([kernels[p].values("frobenius")[0] for p in kernels]))
    np.testing.assert_allclose(found.size, size, rtol=1e-5)
    assert found.angles.shape == (4, 3)
    assert (np.diff(found.angles, axis=1) >= -1e-9).all()
    assert ((found.angles >= 0) & (found.angles <= np.pi / 2)).all()


def test_a_rate_that_changed_between_two_snapshots_is_not_taken_for_one_rate(tmp_path):
    """Oracle: gradient flow over the run's own flow time; the kernel held, of a linear model whose new kernel is XXᵀ + 11ᵀ."""
    run = tracked(tmp_path / "run.h5", steps=[0, SWITCH, 10], later=RATE / 10)
    found, times = task_shift(run), flow_time(run)
    new = load(run.path, probe="new").only
    values, carried = new.values("eigenvalues")[1], run.at("extension", 1).reshape(18, -1)
    residual = new.values("residual_coefficients")[1][:, 0]
    expected = -carried @ (flow_filter(values, (times[2] - times[1]) / new.count) * residual)
    np.testing.assert_allclose(found.predicted[0].ravel(), expected, rtol=1e-12)
    unknown = run.dataset["learning_rate"] * np.nan
    new = dataclasses.replace(new, dataset=new.dataset.assign(learning_rate=unknown))
    with (
        mock.patch("kerneltrack.analysis.derived.task_shift.other_task", return_value=new),
        pytest.raises(AnalysisError, match="needs the learning rates of steps 4 to 10"),
    ):
        task_shift(run)


def test_modes_that_are_rounding_have_no_angles(run):
    """A kernel of two outputs and five features with a bias has 12 modes of 16; what is behind them has no direction."""
    found = task_overlap(run, modes=16)
    assert np.isfinite(found.angles[:, :12]).all()
    assert np.isnan(found.angles[:, 12:]).all()
    # all of the parameters' directions are in both spans: float32's arc cosine
    assert (found.angles[:, :12] < 3e-3).all()
    cosines = choose("task-shift")(Scene(run)).axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(cosines, np.cos(task_overlap(run).angles[:, 0]))
    nothing = dataclasses.replace(run, dataset=run.dataset.assign(eigenvalues=0 * run.dataset["eigenvalues"]))
    assert np.isnan(task_overlap(nothing).angles).all()
    assert forgetting(nothing) is None


def test_what_is_not_there_is_said(run):
    with pytest.raises(AnalysisError, match="needs 'switch'"):
        task_shift(dataclasses.replace(run, dataset=run.dataset.assign_attrs(provenance="{}")))
    with pytest.raises(AnalysisError, match="no snapshot at the switch, step 3"):
        task_shift(run, 3)
    with pytest.raises(AnalysisError, match="no state after the switch"):
        task_shift(run, 10)
    with pytest.raises(AnalysisError, match="needs 'extension'"):
        task_shift(load(run.path, probe="new").only)
    with pytest.raises(AnalysisError, match="not the mean of squares"):
        task_shift(stored(run, settings={"loss": "cross_entropy"}))


def test_the_sentence_and_the_figure(run):
    found, overlap = task_shift(run), task_overlap(run)
    told = forgetting(run)
    expected = [10, sig(found.losses[-1], 2), SWITCH, 100, 0]
    assert numbers(told.sentence)[:3] == pytest.approx(expected[:3])
    assert numbers(told.sentence)[-2:] == pytest.approx([sig(overlap.size[1], 2), sig(np.cos(overlap.angles[1, 0]), 2)])
    left, right = choose("task-shift")(Scene(run)).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in (*left.lines, *right.lines)}
    assert lines["size"] == overlap.size.tolist()
    assert lines["measured"] == found.losses.tolist()
    assert lines["foretold"] == found.foretold.tolist()


def test_where_nothing_was_forgotten_nothing_is_said(run):
    assert forgetting(stored(run, probe_loss=1e9)) is None
    assert forgetting(load(run.path, probe="new").only) is None
