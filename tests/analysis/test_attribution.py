"""Which points carry the kernel's regression, and whether it is calibrated. Oracles: refits by NumPy; numbers put in by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.derived import attribution
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report.calibrated import calibrated
from kerneltrack.errors import AnalysisError
from tests.analysis.altered import stored
from tests.analysis.h5_by_hand import numbers


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


def test_removals_are_refits(run):
    """Ridge regression without point i, at the others; float32 kernels, whose γ is 1e-3 of the mean eigenvalue: 1e-4."""
    found, n = attribution(run), run.count
    kernel = run.at("kernel", len(run) - 1)[:, :, 0, 0]
    y = run.values("targets")
    kernel, ridge = (kernel + kernel.T) / 2, 1e-3 * np.trace(kernel) / n
    whole = kernel @ np.linalg.solve(kernel + ridge * np.eye(n), y)
    for i in (0, 7, 30):
        rest = np.delete(np.arange(n), i)
        inner = kernel[np.ix_(rest, rest)]
        without = inner @ np.linalg.solve(inner + ridge * np.eye(n - 1), y[rest])
        np.testing.assert_allclose(found.removal[rest, i], np.abs(whole[rest] - without)[:, 0], rtol=1e-4, atol=1e-7)
        assert found.removal[i, i] == 0
    assert found.step == 700


def test_of_a_full_kernel_all_outputs_of_a_point_are_removed(tmp_path):
    """Oracle: refits without its rows; float32 kernels as above."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    probe = kt.Probe(torch.randn(6, 3).double(), torch.randn(6, 2).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    given = {"output": "full", "observables": ["trace"], "keep_kernel": "all", "log": False}
    with kt.Tracker(tmp_path / "run.h5", model, optimizer, probe=probe, **given) as tracker, tracker.update():
        optimizer.step()
    run = load(tmp_path / "run.h5").only
    kernel, target = run.at("kernel", 0).transpose(0, 2, 1, 3).reshape(12, 12), run.values("targets").ravel()
    ridge, found = 1e-3 * np.trace(kernel) / 12, attribution(run)
    whole = kernel @ np.linalg.solve(kernel + ridge * np.eye(12), target)
    for i in range(6):
        rest = np.delete(np.arange(12), [2 * i, 2 * i + 1])
        without = kernel[:, rest] @ np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(10), target[rest])
        expected = np.linalg.norm((whole - without).reshape(6, 2), axis=1)
        np.testing.assert_allclose(np.delete(found.removal[:, i], i), np.delete(expected, i), rtol=1e-4, atol=1e-7)


def test_the_most_influential_are_sorted_and_hold_their_share(run):
    found = attribution(run)
    reach = np.sqrt((found.removal**2).sum(axis=0) / 47)
    assert found.most().tolist() == np.argsort(-reach)[:10].tolist()
    assert found.share(48) == pytest.approx(1)
    assert found.share(10) == pytest.approx(np.sum(reach[found.most()] ** 2) / np.sum(reach**2))


def test_the_order_of_the_points_follows(run):
    """Law: attribution of a permuted probe is permuted."""
    order = np.random.default_rng(0).permutation(run.count)
    turned = run.dataset.isel(sample=order, sample_2=order)

    a, b = attribution(run), attribution(dataclasses.replace(run, dataset=turned))
    np.testing.assert_allclose(b.removal, a.removal[np.ix_(order, order)], rtol=1e-6, atol=1e-9)


def test_without_a_kernel_or_targets_there_is_none(run):
    with pytest.raises(AnalysisError, match="needs 'kernel'"):
        attribution(stored(run, without=["kernel"]))
    with pytest.raises(AnalysisError, match="needs 'targets'"):
        attribution(stored(run, without=["targets"]))


def test_the_bars_are_the_removals(run):
    ax = choose("influence")(Scene(run)).axes[0]
    found = attribution(run)
    assert [bar.get_height() for bar in ax.patches] == found.reach[found.most()].tolist()
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(i) for i in found.most()]


@pytest.mark.parametrize(("last", "word"), [(3.0, "too sure"), (1.5, "is calibrated"), (0.2, "too unsure")])
def test_the_sentence_on_uncertainty(run, last, word):
    ratio, nll = np.append(np.full(12, 9.0), last), np.linspace(2, -0.4, 13)
    nll[3] = -1.2
    told = calibrated(stored(run, posterior_calibration=ratio, ntk_gp_nll=nll))
    assert word in told.sentence
    assert numbers(told.sentence) == [700, last, 0.5, 2, run.steps[3], -1.2]
    assert numbers(told.value) == [last]


def test_nothing_is_said_where_it_was_not_measured(run):
    assert calibrated(run) is None
    assert calibrated(stored(run, posterior_calibration=np.nan, ntk_gp_nll=1.0)) is None
