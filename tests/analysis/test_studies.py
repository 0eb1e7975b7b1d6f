"""The tour through the digits in docs/studies: small versions from end to end, the whole one is marked slow.

Oracle: what was trained.
"""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.comparison.sweep import sweep
from kerneltrack.analysis.report.page import write_report

STUDIES = Path(__file__).parents[2] / "docs" / "studies"


def study(name):
    spec = importlib.util.spec_from_file_location(f"study_{name}", STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(STUDIES))  # the modules beside it
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return study("digits")


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")
def test_a_small_classification_is_analysed_from_end_to_end(digits, tmp_path):
    path = digits.classification(tmp_path, "cnn", "sgd", "step", digits.SMALL)
    run = load(path).only
    (change,) = lr_decay_effects(run).changes
    assert (change.change.step, change.change.exact) == (12, True)
    np.testing.assert_allclose((change.change.old, change.change.new), ((0.1,), (0.01,)), rtol=1e-12)
    (page,) = write_report(run, tmp_path / "cnn.html")
    drawn = set(re.findall(r'id="figure-([a-z-]+)"', page.read_text(encoding="utf-8")))
    assert {"class-blocks", "class-levels", "target-energy", "kernel-distances", "stability"} <= drawn
    # the oracle of the class levels: the stored kernel itself, by a loop over pairs
    labels = run.values("targets").argmax(axis=1)
    kernel = np.einsum("nmoo->nm", run.at("kernel", 0))
    pairs = [kernel[i, j] for i in range(12) for j in range(12) if i != j and labels[i] == labels[j]]
    assert run.values("class_within")[0] == pytest.approx(np.mean(pairs), rel=1e-5)  # the kernel is kept in float32
    # its own count of modes, beside that of permuted labels, is what the archive says of the first snapshot
    own, permuted = map(int, re.findall(r"(\d+) (?:modes|for)", digits.permuted_modes("cnn", digits.SMALL)))
    assert own == run.values("target_modes_90")[0]
    assert own < permuted <= 9 * 12


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")
def test_a_closely_watched_run_draws_what_it_measured(digits, tmp_path, undrawn):
    """Two probes, hidden neurons, the ledger. Oracle: the outputs of two states one update apart, and plain norms."""
    path = digits.watched_run(tmp_path, digits.SMALL)
    run = load(path, probe="new").only
    (page,) = write_report(run, tmp_path / "watched.html")
    drawn = set(re.findall(r'id="figure-([a-z-]+)"', page.read_text(encoding="utf-8")))
    assert {"freeze-here", "activations", "ledger", "ledger-modes"} <= drawn
    outputs, y = run.values("outputs"), run.values("targets")
    error = np.sum((outputs - y) ** 2, axis=(1, 2)) / np.sum(y**2)
    np.testing.assert_allclose(run.values("network_error"), error, rtol=1e-5)  # float32 outputs
    np.testing.assert_array_equal(np.isfinite(run.values("kernel_regression_error")), run.measured)
    assert run.measured.sum() > len(run) / 2
    assert run.steps[:2].tolist() == [0, 1]
    vectors = run.at("eigenvectors", 0).reshape(20, -1)  # all twenty, for the probe has twenty points
    moved = vectors.T @ (outputs[1] - outputs[0])
    flow, rest, curvature = (run.at(f"ledger_{part}", 0) for part in ("kernel_flow", "remainder", "curvature"))
    # float32 eigenvectors and outputs of size 1: 20 points add up to some 1e-6
    np.testing.assert_allclose(flow.sum(axis=1) + rest.sum(axis=1) + curvature, moved, atol=5e-6)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")
def test_a_small_sweep_gets_lazier_with_width(digits, tmp_path):
    """Three widths, two seeds, twelve updates: the kernel of a wider network moves less (theory: slope −1 at the end)."""
    size = digits.SMALL
    runs = load([digits.width_run(tmp_path, width, seed, size) for width in (8, 32, 128) for seed in (0, 1)])
    (found,) = sweep(runs, "width", ["relative_kernel_change"])
    assert found.slope < -0.3


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_whole_study_runs_small(digits, tmp_path):
    lines = digits.main(tmp_path, digits.SMALL)
    assert len([line for line in lines if line.startswith(("| MLP", "| CNN"))]) == 8
    assert len(list(tmp_path.glob("*.html"))) == 10  # the closely watched run through both of its probes
