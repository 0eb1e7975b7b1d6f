"""The public names, pinned: other people's code depends on them. Oracle: this list, written by hand from the design."""

import inspect

import pytest

import kerneltrack as kt

NAMES = [
    "Archive", "ArchiveWriter", "ArraySnapshot", "EigenSystem", "ForkLimits", "KernelEstimates", "NTKOperator", "Plan", "Probe",
    "ProbeRecord", "Provenance", "Snapshot", "Tracker", "analytic", "control_run", "eigensystem", "empirical_ntk", "errors",
    "kernel_estimates", "linearize", "ntk_plan", "observables", "open_archive", "regression", "schedule",
    "snapshot_from_arrays",
]  # fmt: skip

SIGNATURES = {
    "Probe": ["inputs", "targets", "name", "identity"],
    "Probe.from_dataloader": ["loader", "n", "seed", "split"],
    "Probe.standard": ["which", "root", "transform", "name"],
    "empirical_ntk": ["model", "x1", "x2", "output", "method", "params", "by_layer", "dtype", "memory_budget", "forward",
                      "metric", "progress"],
    "NTKOperator": ["model", "x", "output", "params", "forward", "metric"],
    "eigensystem": ["kernel_or_operator", "k", "previous"],
    "kernel_estimates": ["operator", "leading", "targets", "vectors", "seed"],
    "linearize": ["model", "params"],
    "Tracker": ["archive", "model", "optimizer", "probe", "schedule", "output", "gauge", "top_k", "observables", "loss",
                "keep_kernel", "metadata", "max_overhead", "log", "forward", "if_exists", "on_error"],
    "ArchiveWriter": ["path", "probes", "provenance", "if_exists"],
    "open_archive": ["path"],
    "snapshot_from_arrays": ["kernel", "outputs", "targets", "step", "loss", "learning_rates"],
    "analytic.relu_ntk": ["x1", "x2", "depth", "weight_variance", "bias_variance"],
    "analytic.biased_relu_ntk": ["x1", "x2", "bias"],
    "analytic.ntk": ["x1", "x2", "depth", "activation", "weight_variance", "bias_variance", "by_layer"],
    "analytic.nngp": ["x1", "x2", "depth", "activation", "weight_variance", "bias_variance"],
    "analytic.cnn_ntk": ["x1", "x2", "depth", "activation", "kernel_size", "padding", "weight_variance", "bias_variance",
                         "by_layer"],
    "analytic.cnn_nngp": ["x1", "x2", "depth", "activation", "kernel_size", "padding", "weight_variance", "bias_variance"],
    "analytic.dual_pair": ["p", "q", "c", "activation"],
}  # fmt: skip

TRACKER = ["archive", "probe", "schedule", "output", "gauge", "top_k", "observables", "loss", "keep_kernel", "metadata",
           "max_overhead", "log", "forward", "if_exists", "on_error"]  # fmt: skip


def test_names():
    assert sorted(kt.__all__) == NAMES
    assert set(NAMES) <= set(dir(kt))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    assert getattr(kt, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kt.nothing


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    found = kt
    for part in name.split("."):
        found = getattr(found, part)
    parameters = list(inspect.signature(found).parameters)
    assert parameters[: len(SIGNATURES[name])] == SIGNATURES[name]


def test_tracker_signature():
    from kerneltrack.callbacks import NTKTracker

    assert list(inspect.signature(NTKTracker).parameters)[: len(TRACKER)] == TRACKER


def test_analysis_names():
    from kerneltrack import analysis
    from kerneltrack.analysis import load, lr_decay_effects

    assert callable(load)
    assert callable(lr_decay_effects)
    results = {"Course", "Finding", "Forecast", "LrDecayEffects", "Summary", "Verdict"}
    assert set(analysis.__all__) == results | {"Run", "Trajectory", "load", "lr_decay_effects"}
    assert analysis.Run.forecast.__annotations__["return"] == analysis.Forecast.__name__


def test_the_trackers_of_a_loop_and_of_lightning_take_the_same():
    from kerneltrack.callbacks import NTKTracker

    theirs, ours = (list(inspect.signature(t).parameters) for t in (NTKTracker, kt.Tracker))
    assert set(theirs) - set(ours) == {"log_figures"}  # of Lightning's loggers
    assert set(ours) - set(theirs) == {"model", "optimizer", "loader", "steps", "clip"}
