"""The eigensystem of a kernel on the device. Oracle: SciPy's of the same kernel."""

import numpy as np
import pytest
import torch

import kerneltrack as kt


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
