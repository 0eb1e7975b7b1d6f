"""Kernel, eigensystem and outputs become named numbers here, in NumPy float64, each with one definition.

``catalogue()`` lists them; :class:`State` holds what was measured; ``compute`` gives the values and
``measurement`` the arrays of the archive's schema. The formulas are also plain functions of arrays.
``docs/notation.md`` defines the letters.
"""

from kerneltrack.observables.alignment import (
    centre,
    centred_frobenius,
    kernel_target_alignment,
    permuted_squares,
    rayleigh_quotient,
    relative_energy,
)
from kerneltrack.observables.dynamics import cosine, relative_squared_error
from kerneltrack.observables.measured import energy_k, measurement
from kerneltrack.observables.motion import kernel_distance, relative_kernel_change
from kerneltrack.observables.observable import Need, Observable
from kerneltrack.observables.registry import Values, catalogue, compute, needs, register, select
from kerneltrack.observables.spectral import (
    condition_number,
    effective_rank,
    gap,
    participation_ratio,
    stable_rank,
)
from kerneltrack.observables.state import State, Update, check_targets, project

__all__ = [
    "Need",
    "Observable",
    "State",
    "Update",
    "Values",
    "catalogue",
    "centre",
    "centred_frobenius",
    "check_targets",
    "compute",
    "condition_number",
    "cosine",
    "effective_rank",
    "energy_k",
    "gap",
    "kernel_distance",
    "kernel_target_alignment",
    "measurement",
    "needs",
    "participation_ratio",
    "permuted_squares",
    "project",
    "rayleigh_quotient",
    "register",
    "relative_energy",
    "relative_kernel_change",
    "relative_squared_error",
    "select",
    "stable_rank",
]
