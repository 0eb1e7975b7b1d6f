"""Clipped gradients: ρ is of the rate that was used. Oracle: the norm of the very gradients, by plain autograd."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kerneltrack import open_archive
from kerneltrack.analysis import load
from kerneltrack.analysis.derived.sharpness import sharpness
from kerneltrack.callbacks import NTKTracker
from kerneltrack.probe import Probe
from tests.callbacks.lightning_runs import Regressor, data, loader, trainer

NAMES = ("stability_ratio", "stability_ratio_bias", "stability_bound")


def net(**options):
    torch.manual_seed(0)
    return Regressor(batchnorm=False, dropout=0.0, momentum=0.0, **options)


class Watched(Regressor):
    """Keeps the norm and the largest entry of every gradient before anything is done to it."""

    def __init__(self, **options):
        super().__init__(batchnorm=False, dropout=0.0, momentum=0.0, **options)
        self.norms, self.largest = [], []

    def on_before_optimizer_step(self, optimizer):
        whole = torch.cat([p.grad.reshape(-1) for p in self.parameters()])
        self.norms.append(float(whole.norm()))
        self.largest.append(float(whole.abs().max()))


class InItsOwnWay(Regressor):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.01)


def rows(path, module, **options):
    x, y = data().tensors
    chosen = ["default", "stability_ratio_bias"]
    tracker = NTKTracker(path, probe=Probe(x, y), schedule=1, loss="half_mse", observables=chosen, log=False)
    trainer(tracker, max_steps=5, **options).fit(module, loader(shuffle=False))
    with open_archive(path) as archive:
        return [(row, row.probes["probe"]) for row in archive]


def test_the_ratio_is_of_the_rate_that_the_clipped_update_used(tmp_path):
    """Plain descent with the gradient shortened to the bound is descent at η · bound/‖g‖: so is its kernel flow.

    A bound between the gradients' norms leaves some updates as they are. The ratio of η itself is cρ/η = λ_1's.
    """
    torch.manual_seed(0)
    watched = Watched()
    free = rows(tmp_path / "free.h5", watched)
    bound = float(np.median(watched.norms))
    torch.manual_seed(0)
    watched = Watched()
    found = rows(tmp_path / "run.h5", watched, gradient_clip_val=bound)
    factors = [min(1, bound / norm) for norm in watched.norms]
    assert 0 < sum(f < 1 for f in factors) < 5
    for (row, values), factor in zip(found, factors, strict=False):
        eigenvalue, rate = values["eigenvalues"][0], row.learning_rates[0]
        assert values["stability_ratio"] == pytest.approx(factor * rate * eigenvalue / (2 * 24), rel=1e-4)
        assert values["stability_bound"] == pytest.approx(2 * 24 / (factor * rate), rel=1e-4)
        assert values["gauss_newton_sharpness"] == pytest.approx(eigenvalue / 24, rel=1e-4)
        assert values["stability_ratio_bias"] > 0
    last, values = found[-1]
    assert math.isnan(values.get("stability_ratio", math.nan))
    assert "no update that says by how much" in last.message
    assert all(math.isfinite(values["stability_ratio"]) for _, values in free)


def test_the_flow_of_a_clipped_update_is_at_the_rate_that_it_used(tmp_path):
    """The probe is the batch: the update is the flow's, at a tenth of the gradient. Unclipped its error would be 81."""
    x, y = data().tensors
    torch.manual_seed(0)
    watched = Watched(lr=1e-3)
    tracker = NTKTracker(tmp_path / "run.h5", probe=Probe(x, y), schedule=1, loss="half_mse", log=False)
    trainer(tracker, max_steps=1).fit(watched, loader(batch_size=24, shuffle=False))
    bound = watched.norms[0] / 10
    torch.manual_seed(0)
    tracker = NTKTracker(tmp_path / "clipped.h5", probe=Probe(x, y), schedule=1, loss="half_mse", log=False)
    trainer(tracker, max_steps=1, gradient_clip_val=bound).fit(Watched(lr=1e-3), loader(batch_size=24, shuffle=False))
    with open_archive(tmp_path / "clipped.h5") as archive:
        assert float(archive[0].probes["probe"]["kernel_flow_error"]) < 1e-3
        assert archive.probes["probe"].settings["stability_scope"] == "probe estimate"
        assert archive.provenance.run["clipping"] == f"by norm, at {bound:g}"
    only = load(tmp_path / "clipped.h5").only
    bare = replace(only, dataset=only.dataset.drop_vars("gauss_newton_sharpness"))
    course, why = sharpness(bare)
    assert np.isnan(course).all()
    assert "clipped" in why


@pytest.mark.parametrize(
    ("module", "options", "reason"),
    [
        (Regressor, {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}, "clipped by value"),
        (InItsOwnWay, {}, "in a way of its own"),
        (InItsOwnWay, {"gradient_clip_val": 1.0}, "in a way of its own"),
    ],
    ids=["by value", "own", "own and asked for"],
)
def test_what_is_no_other_rate_has_no_ratio(tmp_path, module, options, reason):
    torch.manual_seed(0)
    found = rows(tmp_path / "run.h5", module(batchnorm=False, dropout=0.0, momentum=0.0), **options)
    for row, values in found[:-1]:
        for name in NAMES:
            assert math.isnan(values.get(name, math.nan))
        assert reason in row.message
        assert math.isfinite(values["gauss_newton_sharpness"])


def test_values_below_the_bound_are_not_clipped(tmp_path):
    torch.manual_seed(0)
    bounds = {"gradient_clip_val": 1e6, "gradient_clip_algorithm": "value"}
    found = rows(tmp_path / "run.h5", Watched(), **bounds)
    assert all(math.isfinite(values["stability_ratio"]) for _, values in found[:-1])
