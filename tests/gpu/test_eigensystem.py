"""The eigensystem of a kernel on the device. Oracle: SciPy's of the same kernel."""

import numpy as np
import pytest
import torch

import kerneltrack as kt
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.observables import catalogue
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(300,), (100, 3)])
def test_a_kernel_on_the_device_is_solved_there(device, shape, dtype):
    """Between gaps to 1e-10 of λ_1; the spectrum halves every ten modes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(*shape, 60, generator=generator, dtype=torch.float64) * 2 ** (-torch.arange(60) / 10)
    kernel = features @ features.T if len(shape) == 1 else torch.einsum("nop,mqp->nmoq", features, features)
    there, here = (kt.eigensystem(kernel.to(dtype).to(place)) for place in (device, "cpu"))
    assert (there.solver, here.solver) == ("torch" if device.type == "cuda" else "lapack", "lapack")
    assert all(type(part) is np.ndarray for part in (there.values, there.vectors, there.residuals))
    np.testing.assert_allclose(there.values, here.values, rtol=0, atol=1e-10 * here.values[0])
    np.testing.assert_allclose(there.vectors[:, :20], here.vectors[:, :20], atol=1e-9)
    assert there.noise_floor == pytest.approx(here.noise_floor, rel=1e-9)
    assert there.residuals.max() < 1e-12 * here.values[0]


@pytest.mark.parametrize("output", ["full", "trace"])
def test_a_state_stays_on_the_device_and_gives_the_same_numbers(device, output):
    """Oracle: the same state with its kernel and eigenvectors on the host, every observable of NumPy."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3)).double().to(device)
    probe = Probe(torch.randn(10, 3, dtype=torch.float64).to(device), (torch.arange(10) % 3).to(device))
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    options = {"probe": probe, "output": output, "gauge": "softmax", "loss": ProbeLoss.of("cross_entropy")}
    there, here = (
        Instrument(**options, observables=tuple(catalogue().values()), place=place).measure(model, rule, step=0)
        for place in ("auto", "host")
    )
    if device.type == "cuda":
        assert there.state.kernel.is_cuda
        assert there.state.eigensystem.vectors.is_cuda
    assert there.reasons == here.reasons
    for name, value in here.values.items():
        assert type(there.values[name]) is type(value)
        scale = np.abs(np.nan_to_num(value, posinf=0, neginf=0)).max(initial=0.0)
        tolerance = 2e-7 if np.asarray(value).dtype == np.float32 else 1e-8
        if name != "eigen_residual":
            np.testing.assert_allclose(there.values[name], value, rtol=0, atol=tolerance * scale + 1e-10, err_msg=name)
