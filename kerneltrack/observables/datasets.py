"""measurement(): the arrays of the archive's schema that every snapshot stores, from a State."""

from __future__ import annotations

import numpy as np

from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.observables.state import Array, State
from kerneltrack.snapshot import Array as AnyArray


def energy_k(mode_count: int) -> tuple[int, ...]:
    """The numbers of leading modes at which energies are stored: 1, 2, 5, …, 200, 400, 1000, … and the count.

    The grid turns from 1-2-5 to 1-2-4 at 400, where the literature reads the spread of target energy (Kopitkov and
    Indelman 2020). Archives with equal mode counts have equal grids.
    """
    small = [k * 10**j for j in range(2) for k in (1, 2, 5)] + [100, 200, 400]
    large = [k * 10**j for j in range(3, 13) for k in (1, 2, 4)]
    return (*(k for k in small + large if k < mode_count), mode_count)


def measurement(state: State, *, top_k: int, keep_kernel: bool = False) -> dict[str, AnyArray]:
    """The schema's core datasets of one snapshot of one probe.

    Args:
        state: what was measured; of one without eigenpairs there are outputs, residual and, if asked for, the kernel.
        top_k: how many eigenvectors to keep; eigenvalues and coefficients are kept for every available mode.
        keep_kernel: whether the kernel itself goes along, and J_t J_0ᵀ if it was measured, as (N, N, K, K′).

    Returns:
        ``eigenvalues`` (mode), ``eigenvectors`` (sample, kernel_output, vector) float32, ``mode_sums`` (mode,
        kernel_output), ``…_coefficients`` (mode, coefficient) of target, output, residual and displacement, ``outputs``
        and ``residual`` (sample, output), ``initial_basis`` (vector, vector_2), ``extension`` (sample, kernel_output,
        other_vector). Targets' and residual's are absent where there are no targets; the displacement's are NaN where
        the initial state is unknown.
    """
    eigensystem = state.eigensystem
    measured: dict[str, AnyArray] = {"outputs": state.outputs}
    if state.residual is not None:
        measured["residual"] = state.residual
    if len(eigensystem.values):
        vectors = to_numpy(eigensystem.vectors[:, :top_k]).reshape(state.samples, state.kernel_outputs, -1)
        measured |= {
            "eigenvalues": eigensystem.values,
            "eigenvectors": vectors.astype(np.float32),
            "mode_sums": state.mode_sums,
            **_coefficients(state),
        }
    if state.initial is not None and state.eigensystem.complete:
        measured["initial_basis"] = initial_basis(state, state.initial.eigensystem.vectors[:, :top_k])
    if state.extension is not None:
        extension = to_numpy(state.extension).reshape(state.samples, state.kernel_outputs, -1)
        measured["extension"] = extension.astype(np.float32)
    if keep_kernel:
        kernels = {"kernel": state.kernel, "cross_time_kernel": state.cross_time}
        measured |= {name: _stored(kernel, state) for name, kernel in kernels.items() if kernel is not None}
    return measured


def initial_basis(state: State, initial_vectors: Array) -> Array:
    """V_0ᵀ Θ_t V_0 (k, k): the kernel seen by the first k eigenvectors (M, k) of initialisation.

    Off-diagonal entries are what mixes them; the diagonal divided by λ_i(0) is how much each has grown.
    """
    vectors = state.eigensystem.vectors
    overlaps = beside(initial_vectors, vectors).T @ vectors
    return to_numpy((overlaps * beside(state.eigensystem.values, vectors)) @ overlaps.T)


def _stored(kernel: Array, state: State) -> AnyArray:
    """The kernel with all four axes, in the precision in which it was computed."""
    single = not str(state.settings.get("dtype", "float32")).endswith("float64")
    kernel = to_numpy(kernel)
    return kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim)).astype(np.float32 if single else np.float64)


def _coefficients(state: State) -> dict[str, AnyArray]:
    functions = {"target": state.targets, "residual": state.residual, "displacement": state.displacement}
    found: dict[str, Array] = {"output_coefficients": state.coefficients(state.outputs)}
    found |= {f"{name}_coefficients": state.coefficients(phi) for name, phi in functions.items() if phi is not None}
    if state.displacement is None:
        found["displacement_coefficients"] = np.full_like(found["output_coefficients"], np.nan)
    return dict(found)
