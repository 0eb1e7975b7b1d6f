"""The analysis of runs in the gauge of softmax. Oracle: C = I − 11ᵀ/O on the raw functions and kernels, which hold both."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kerneltrack import ArchiveWriter, Snapshot
from kerneltrack.analysis import load
from kerneltrack.analysis.cli import app
from kerneltrack.analysis.comparison import compare
from kerneltrack.analysis.derived import assess
from kerneltrack.analysis.derived.eigenfunctions import output_in_top_modes
from kerneltrack.analysis.derived.profiles import squared_norm
from kerneltrack.analysis.figures.canvas import oriented_eigenvectors
from kerneltrack.analysis.figures.registry import Scene
from kerneltrack.analysis.report.page import render
from kerneltrack.analysis.withheld import gauge_note
from kerneltrack.errors import AnalysisError
from kerneltrack.measurement import Instrument
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training import ProbeLoss, UpdateRule

N, O = 9, 3  # noqa: E741  # the notation's letter
GENERATOR = torch.Generator().manual_seed(0)
PROBE = Probe(torch.randn(N, 2, generator=GENERATOR, dtype=torch.float64), torch.arange(N) % O, name="train")


def written(path, gauge, output, **options):
    """Two states of one classifier, as the tracker measures them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, O)).double()
    names = ["trace", "effective_rank", "target_energy", "kernel_target_alignment", "stability_ratio"]
    how = {"observables": select(names), "loss": ProbeLoss.of("cross_entropy"), **options}
    instrument = Instrument(probe=PROBE, output=output, gauge=gauge, **how)
    with ArchiveWriter(path, probes=[instrument.describe(net, keep_inputs=True)]) as writer:
        for step in range(2):
            reading = instrument.measure(net, UpdateRule((0.1,), {}, 2.0), step=step, keep_kernel=True)
            writer.append(Snapshot(step=step, learning_rates=(0.1,), probes={"train": reading.values}))
            with torch.no_grad():
                net[-1].weight += 0.3
                net[0].bias -= 0.2
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gauges")
    return {
        (gauge, output): written(folder / f"{gauge}-{output}.h5", gauge, output)
        for gauge, output in [("softmax", "full"), ("raw", "full"), ("softmax", "trace"), ("softmax", "diagonal")]
    }


@pytest.fixture(scope="module")
def runs(paths):
    return {key: load(path).only for key, path in paths.items()}


def test_no_comparison_mixes_gauges(paths):
    both = load([paths["softmax", "full"], paths["raw", "full"]])
    for ask in (both.comparable, lambda: compare(both, quantities=["trace"])):
        with pytest.raises(AnalysisError, match=r"different gauges.*softmax.*raw.*NTKTracker\(gauge="):
            ask()
    with pytest.raises(AnalysisError, match="different gauges"):
        Scene(both[0], both[1])
    said = CliRunner().invoke(app, ["compare", *map(str, (paths["softmax", "full"], paths["raw", "full"]))])
    assert said.exit_code == 1
    assert "gauge" in str(said.exception)


def test_a_run_from_before_the_gauge_is_raw(runs):
    run = runs["raw", "full"]
    settings = {key: value for key, value in run.settings.items() if key != "gauge"}
    older = dataclasses.replace(run, dataset=run.dataset.assign_attrs(settings=json.dumps(settings)))
    assert older.gauge == "raw"
    assert older.dimension == N * O
    np.testing.assert_array_equal(older.seen(np.ones((2, O))), np.ones((2, O)))


@pytest.mark.parametrize(("output", "modes"), [("full", N * (O - 1)), ("trace", N), ("diagonal", N * O)])
def test_norms_and_dimensions_are_those_of_the_gauge(runs, output, modes):
    run = runs["softmax", output]
    assert run.dimension == run.values("eigenvalues").shape[1] == modes
    raw = {"target": run.values("targets"), "output": run.at("outputs", 1), "residual": run.at("residual", 1)}
    for name, phi in raw.items():
        centred = phi - phi.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(squared_norm(run, name, 1), np.sum(centred**2), rtol=1e-9)
        np.testing.assert_allclose(np.sum(run.seen(phi) ** 2), np.sum(centred**2), rtol=1e-12)


def test_norms_with_leading_modes_only(tmp_path):
    """‖φ‖² comes from the stored functions then, which are raw."""
    run = load(written(tmp_path / "few.h5", "softmax", "full", eigenpairs="leading", top_k=3)).only
    phi = run.at("outputs", 1)
    np.testing.assert_allclose(
        squared_norm(run, "output", 1), np.sum((phi - phi.mean(1, keepdims=True)) ** 2), rtol=1e-9
    )


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_all_modes_together_are_the_output_less_its_mean(runs, output):
    run = runs["softmax", output]
    phi = run.seen(run.at("outputs", 1))
    np.testing.assert_allclose(output_in_top_modes(run, 1, run.dimension), phi[:, 0], atol=1e-6)  # float32 vectors
    assert oriented_eigenvectors(run, 1, 2).shape == (N, 2)


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_the_probes_uncertainty_is_there(runs, output):
    found = assess(runs["softmax", output])
    assert found.uncertainties["effective_rank"].probe is not None
    assert found.uncertainties["kernel_target_alignment"].probe is not None


def test_reports_say_the_gauge_and_no_longer_that_numbers_depend_on_it(runs, paths, undrawn):
    assert gauge_note(runs["softmax", "full"]) == ""
    assert "NTKTracker(gauge='softmax') takes it off" in gauge_note(runs["raw", "full"])
    page = render(runs["softmax", "full"])
    assert "depends on that gauge" not in page
    assert "gauge" in page
    shown = json.loads(CliRunner().invoke(app, ["show", str(paths["softmax", "full"]), "--json"]).stdout)
    assert shown["probes"]["train"]["gauge"] == "softmax"
    assert not [note for note in shown["probes"]["train"]["notes"] if "gauge" in note]
