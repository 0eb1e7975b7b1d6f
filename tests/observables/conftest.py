"""A measured state under every reduction, from a random Jacobian."""

import numpy as np
import pytest

from kerneltrack.observables import State
from kerneltrack.spectrum.decomposition import eigensystem

REDUCE = {
    "full": lambda kernel: kernel,
    "diagonal": lambda kernel: np.einsum("nmoo->nmo", kernel),
    "trace": lambda kernel: np.einsum("nmoo->nm", kernel),
    "sum": lambda kernel: kernel.sum(axis=(2, 3)),
}


class Problem:
    """A Jacobian J (N, O, P), targets and outputs (N, O), and the states they make."""

    def __init__(self, samples=7, outputs=3, parameters=30, seed=0):
        rng = np.random.default_rng(seed)
        self.jacobian = rng.standard_normal((samples, outputs, parameters))
        self.targets = rng.standard_normal((samples, outputs)) + 0.7
        self.outputs = rng.standard_normal((samples, outputs)) - 0.3

    def kernel(self, reduction):
        return REDUCE[reduction](np.einsum("nop,mqp->nmoq", self.jacobian, self.jacobian))

    def matrix(self, reduction):
        """The kernel matrix by explicit placement: NO×NO for full and diagonal, else N×N."""
        kernel = self.kernel(reduction)
        if kernel.ndim == 2:
            return kernel
        samples, outputs = self.targets.shape
        matrix = np.zeros((samples, outputs, samples, outputs))
        for o in range(outputs):
            for p in range(outputs):
                if kernel.ndim == 4:
                    matrix[:, o, :, p] = kernel[:, :, o, p]
                elif o == p:
                    matrix[:, o, :, o] = kernel[:, :, o]
        return matrix.reshape(samples * outputs, samples * outputs)

    def columns(self, phi, reduction):
        """φ as the columns that this matrix acts on, written out independently of the package."""
        if reduction == "trace":
            return phi
        if reduction == "sum":
            return phi @ np.ones((phi.shape[1], 1))
        return np.array([[phi[n, o]] for n in range(phi.shape[0]) for o in range(phi.shape[1])])

    def state(self, reduction="full", **changes):
        kernel = self.kernel(reduction)
        fields = {
            "eigensystem": eigensystem(kernel),
            "kernel": kernel,
            "reduction": reduction,
            "outputs": self.outputs,
            "targets": self.targets,
            "residual": self.outputs - self.targets,
            "probe_loss": 0.5,
            "settings": {"dtype": "float64"},
        }
        return State(**fields | changes)


@pytest.fixture
def problem():
    return Problem()


@pytest.fixture(params=list(REDUCE))
def reduction(request):
    return request.param
