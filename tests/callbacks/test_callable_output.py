"""A callable output g: (O,) → (K,) with any K. Oracle: Jacobians of g(f) by torch.autograd.grad in float64, sample by sample."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import Regressor, trainer

N = 6


def two(f):
    return torch.stack([f.sum(), f.square().sum()])


def one(f):
    return f.square().sum()


def same(f):
    return f.exp()


def three(f):
    return torch.cat([f, f[:1].square()])[:3].repeat(3)[:3]


def fit(path, g, outputs, targets, **options):
    torch.manual_seed(0)
    module = Regressor(batchnorm=False, dropout=0.0)
    module.layers[4] = nn.Linear(6, outputs)
    x = torch.randn(24, 3)
    y = x[:, :1].sin().repeat(1, outputs)
    start = copy.deepcopy(module.layers)
    probe = Probe(x[:N], y[:N] if targets else None, name="train")
    watched = NTKTracker(path, probe=probe, schedule=2, output=g, keep_kernel="all", log=False, **options)
    trainer(watched, max_steps=4).fit(module, DataLoader(TensorDataset(x, y), batch_size=8))
    return {0: start, 4: module.layers}, x[:N]


def kernel_of(layers, g, x):
    layers = copy.deepcopy(layers).double()
    rows = []
    for sample in x.double():
        values = g(layers(sample[None])[0]).reshape(-1)
        for value in values:
            gradient = torch.autograd.grad(value, list(layers.parameters()), retain_graph=True)
            rows.append(torch.cat([p.reshape(-1) for p in gradient]))
    J = torch.stack(rows).reshape(len(x), -1, len(rows[0]))
    return torch.einsum("nop,mqp->nmoq", J, J)


@pytest.mark.parametrize(
    ("g", "outputs", "targets"),
    [
        (two, 1, True),
        (two, 3, False),
        (same, 2, True),
        pytest.param(one, 2, True, marks=pytest.mark.nightly),
        pytest.param(three, 1, False, marks=pytest.mark.nightly),
        pytest.param(two, 1, False, marks=pytest.mark.nightly),
        pytest.param(two, 3, True, marks=pytest.mark.nightly),
        pytest.param(one, 2, False, marks=pytest.mark.nightly),
        pytest.param(same, 2, False, marks=pytest.mark.nightly),
        pytest.param(three, 1, True, marks=pytest.mark.nightly),
    ],
)
def test_the_kernel_is_of_g_and_the_outputs_are_the_networks(tmp_path, g, outputs, targets):
    path = tmp_path / "run.h5"
    states, x = fit(path, g, outputs, targets, observables="all")
    assert check(path) == []
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 2, 4]
        for snapshot in archive:
            assert (snapshot.status, "eigenvalues" in snapshot.probes["train"]) == ("ok", True)
            assert snapshot.probes["train"]["outputs"].shape == (N, outputs)
        for row, layers in zip((archive[0], archive[-1]), states.values(), strict=True):
            found, exact = row.probes["train"], kernel_of(layers, g, x)
            np.testing.assert_allclose(found["kernel"], exact, atol=1e-5 * float(exact.abs().max()))
            size = exact.shape[0] * exact.shape[2]
            values = torch.linalg.eigvalsh(exact.permute(0, 2, 1, 3).reshape(size, size)).flip(0)
            np.testing.assert_allclose(found["eigenvalues"], values, atol=1e-5 * float(values[0]))
            with torch.no_grad():
                np.testing.assert_allclose(found["outputs"], layers(x), rtol=1e-5, atol=1e-6)
        archive.to_xarray().load()


def test_what_does_not_fit_is_missing_and_named(tmp_path):
    """g has two values where the archive's outputs are three: a number for each of g's values has no place there."""
    path = tmp_path / "run.h5"
    fit(path, two, 3, True, observables=["trace", "displacement_energy_by_output"])
    with open_archive(path) as archive:
        assert all("trace" in row.probes["train"] for row in archive)
        assert not any("displacement_energy_by_output" in row.probes["train"] for row in archive)
        assert "displacement_energy_by_output is not stored: 2 along 'output' for 3" in archive[-1].message
