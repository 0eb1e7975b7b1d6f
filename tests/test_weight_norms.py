"""Spectral norms of weights and of their change. Oracle: changes of known norm, and the singular values."""

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.measurement import weight_norms as module_of_norms
from kerneltrack.measurement.weight_norms import weight_norms
from kerneltrack.probe import Probe

NAMES = ("weight_spectral_change", "weight_spectral_scale", "weight_change_scale")


class Both(nn.Module):
    """Layers with one matrix, with a convolution's, with none, with one that has no n_in, and with several."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(2, 5, 3)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 7)
        self.table = nn.Embedding(6, 3)
        self.recurrent = nn.RNN(3, 2)


def test_norms_are_those_of_the_singular_values_and_of_a_change_of_known_norm():
    """A rank-one change of norm 0.3 in the linear layer. Lanczos' residual of 1e-6 bounds its error."""
    torch.manual_seed(0)
    module = Both().double()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    u, v = torch.randn(7).double(), torch.randn(4).double()
    with torch.no_grad():
        module.linear.weight += 0.3 * torch.outer(u / u.norm(), v / v.norm())
    found = weight_norms(module, start, {name: p.detach() for name, p in module.named_parameters()})
    largest = {name: float(torch.linalg.svdvals(w.reshape(len(w), -1))[0]) for name, w in start.items() if w.ndim > 1}
    np.testing.assert_allclose(found["linear"][[0, 2, 3]], [largest["linear.weight"], 0.3, (7 / 4) ** 0.5], rtol=1e-6)
    assert found["linear"][1] == pytest.approx(float(torch.linalg.svdvals(module.linear.weight.detach())[0]), rel=1e-6)
    expected = [largest["convolution.weight"], largest["convolution.weight"], 0, (5 / 6) ** 0.5]
    np.testing.assert_allclose(found["convolution"], expected, rtol=1e-6, atol=1e-12)
    assert found["table"][0] == pytest.approx(largest["table.weight"], rel=1e-6)
    assert np.isnan(found["table"][3])
    assert np.isnan(found["norm"]).all()
    assert np.isnan(found["recurrent"]).all()


def test_what_a_layer_makes_its_weight_of_is_not_taken_for_it():
    """Under spectral norm the layer's matrix has norm 1, whatever its parameter has. Negative control: a plain layer."""
    made = {
        "new": nn.utils.parametrizations.spectral_norm,
        "old": nn.utils.spectral_norm,
        "scaled": nn.utils.parametrizations.weight_norm,
        "plain": lambda layer: layer,
    }
    module = nn.ModuleDict({name: make(nn.Linear(4, 3)) for name, make in made.items()})
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = weight_norms(module, start, start)
    assert {name for name, norms in found.items() if np.isfinite(norms).all()} == {"plain"}
    assert all(np.isnan(found[name]).all() for name in ("new", "old", "scaled"))


def test_a_transposed_convolution_has_its_inputs_first():
    """Oracle: singular values of the matrix (n_out, all others) of a weight (n_in, n_out, 3)."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose1d(2, 5, 3), nn.ConvTranspose1d(4, 6, 3, groups=2)).double()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    found = weight_norms(module, start, start)
    expected = float(torch.linalg.svdvals(start["0.weight"].transpose(0, 1).reshape(5, 6))[0])
    assert found["0"][0] == pytest.approx(expected, rel=1e-6)
    assert abs(float(torch.linalg.svdvals(start["0.weight"].reshape(2, 15))[0]) / expected - 1) > 1e-2
    assert np.isnan(found["1"]).all()  # a matrix for each group


def tracked(path, names, updates=3):
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double(),
        torch.randn(6, 3),
        torch.randn(6, 2),
    )
    x, y, start = x.double(), y.double(), [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with kt.Tracker(
        path, model, optimizer, probe=Probe(x, y), loss="half_mse", schedule=1, log=False, observables=names
    ) as tracker:
        for _ in range(updates):
            with tracker.update((x, y)):
                optimizer.zero_grad()
                ((model(x) - y) ** 2).sum(1).mean().backward()
                optimizer.step()
    with kt.open_archive(path) as archive:
        return start, [p.detach() for p in model.parameters()], list(archive)


def test_the_archive_has_them_by_layer_and_nothing_is_computed_unasked(tmp_path, monkeypatch):
    """Oracle: singular values of the real weights at the ends; at step 0 the change is 0. Law: the two scales' ratio."""
    start, end, rows = tracked(tmp_path / "run.h5", ["trace", *NAMES])
    first, last = rows[0].probes["probe"], rows[-1].probes["probe"]
    for i, layer in enumerate((0, 2)):
        norms = [float(torch.linalg.svdvals(w)[0]) for w in (start[layer], end[layer], end[layer] - start[layer])]
        balance = (len(start[layer]) / start[layer].shape[1]) ** 0.5
        assert first["weight_spectral_change"][i] == 0
        assert last["weight_spectral_change"][i] == pytest.approx(norms[2] / norms[0], rel=1e-5)
        assert last["weight_spectral_scale"][i] == pytest.approx(norms[1] / balance, rel=1e-5)
        assert last["weight_change_scale"][i] == pytest.approx(norms[2] / balance, rel=1e-5)

    def refused(*_):
        raise AssertionError("asked for")

    monkeypatch.setattr(module_of_norms, "_spectral_norm", refused)
    tracked(tmp_path / "second.h5", ["trace", "layer_parameter_distance"])
    with pytest.raises(AssertionError, match="asked for"):
        tracked(tmp_path / "third.h5", [NAMES[0]])


def test_output_scale_makes_a_run_lazy(tmp_path):
    """Law: as α grows the way back is shorter, and the anchored error falls to zero (Chizat et al. 2019); at α = 1 it does not."""
    errors, changes = [], []
    for alpha in (1.0, 30.0):
        torch.manual_seed(1)
        inner = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        x, y = torch.randn(6, 3).double(), torch.randn(6, 1).double()
        at_start = inner(x).detach()
        optimizer = torch.optim.SGD(inner.parameters(), lr=0.2 / alpha**2)
        path = tmp_path / f"{alpha}.h5"
        with kt.Tracker(
            path, inner, optimizer, probe=Probe(x, y), schedule=kt.schedule.At((0,)), log=False,
            observables=["anchored_linearization_error", NAMES[0]],
        ) as tracker:  # fmt: skip
            for _ in range(100):
                with tracker.update((x, y)):
                    optimizer.zero_grad()
                    ((alpha * (inner(x) - at_start) - y) ** 2).mean().backward()
                    optimizer.step()
        with kt.open_archive(path) as archive:
            last = archive[-1].probes["probe"]
        errors.append(float(last["anchored_linearization_error"]))
        changes.append(float(last[NAMES[0]].max()))
    assert errors[1] < 1e-2 * errors[0]
    assert changes[1] < 0.1 * changes[0]
