"""Kernel, eigensystem and outputs become named numbers here, in NumPy float64, each with one definition.

``catalogue()`` lists them; :class:`State` holds what was measured; ``compute`` gives the values and ``measurement`` the
arrays of the archive's schema. The formulas are also plain functions of arrays. ``docs/notation.md`` defines the
letters.
"""

from kerneltrack.observables.activations import (
    gate_flips,
    largest_deviation,
    layer_deviation,
    neuron_deviation,
    relative_deviation,
)
from kerneltrack.observables.alignment import (
    centre,
    centred_frobenius,
    kernel_target_alignment,
    permuted_squares,
    rayleigh_quotient,
    relative_energy,
)
from kerneltrack.observables.classes import (
    class_blocks,
    class_labels,
    class_levels,
    class_pair_r2,
    class_three_level_share,
    cross_output_share,
    kernel_specialization,
    pair_kernel,
)
from kerneltrack.observables.datasets import energy_k, initial_basis, measurement
from kerneltrack.observables.decay import decay_exponent, effective_dimension, modes_for, target_complexity
from kerneltrack.observables.dynamics import (
    change_is_rounding,
    cosine,
    decided_by_rounding,
    missed_by_rounding,
    relative_squared_error,
)
from kerneltrack.observables.functions import check_targets, project
from kerneltrack.observables.layers import quadratic_form, shares
from kerneltrack.observables.laziness import grams_tell, jacobian_change, jacobian_stability, stability_radius
from kerneltrack.observables.ledger import Ledger, update_ledger
from kerneltrack.observables.modes import loss_curvature, predicted_factor
from kerneltrack.observables.motion import (
    angular_velocity,
    centred_kernel,
    cka,
    kernel_angle,
    kernel_distance,
    permuted_cka,
    relative_kernel_change,
    turn_is_rounding,
    unbiased_cka,
)
from kerneltrack.observables.need import NEEDS, Need, in_order, is_light
from kerneltrack.observables.observable import Observable
from kerneltrack.observables.oscillation import Triple, mode_shares, predicted_excess, seen_excess
from kerneltrack.observables.registry import Values, catalogue, compute, needs, register, select
from kerneltrack.observables.regression import extended_energy, ridge_of
from kerneltrack.observables.seen import held_out, in_training
from kerneltrack.observables.sharpness import one_step_criterion
from kerneltrack.observables.similarity import similarity_bounds
from kerneltrack.observables.spectral import (
    condition_number,
    effective_rank,
    participation_ratio,
    square_share,
    stable_rank,
    trace_share,
)
from kerneltrack.observables.state import EdgeMode, State, Update, epsilon_of
from kerneltrack.observables.subspaces import largest_principal_angle, subspace_overlap
from kerneltrack.observables.superseded import SUPERSEDED, Superseded
from kerneltrack.observables.target_alignment import pair_alignment, permuted_pair_alignment
from kerneltrack.observables.uncertainty import Uncertainty, disjoint_halves
from kerneltrack.regression import CrossEntropy as CrossEntropy
from kerneltrack.regression import MeanLoss as MeanLoss
from kerneltrack.regression import Through as Through
from kerneltrack.regression import kernel_alignment_risk, kernel_newton, kernel_regression, leave_one_out

__all__ = [
    "NEEDS",
    "SUPERSEDED",
    "EdgeMode",
    "Ledger",
    "Need",
    "Observable",
    "State",
    "Superseded",
    "Triple",
    "Uncertainty",
    "Update",
    "Values",
    "angular_velocity",
    "catalogue",
    "centre",
    "centred_frobenius",
    "centred_kernel",
    "change_is_rounding",
    "check_targets",
    "cka",
    "class_blocks",
    "class_labels",
    "class_levels",
    "class_pair_r2",
    "class_three_level_share",
    "compute",
    "condition_number",
    "cosine",
    "cross_output_share",
    "decay_exponent",
    "decided_by_rounding",
    "disjoint_halves",
    "effective_dimension",
    "effective_rank",
    "energy_k",
    "epsilon_of",
    "extended_energy",
    "gate_flips",
    "grams_tell",
    "held_out",
    "in_order",
    "in_training",
    "initial_basis",
    "is_light",
    "jacobian_change",
    "jacobian_stability",
    "kernel_alignment_risk",
    "kernel_angle",
    "kernel_distance",
    "kernel_newton",
    "kernel_regression",
    "kernel_specialization",
    "kernel_target_alignment",
    "largest_deviation",
    "largest_principal_angle",
    "layer_deviation",
    "leave_one_out",
    "loss_curvature",
    "measurement",
    "missed_by_rounding",
    "mode_shares",
    "modes_for",
    "needs",
    "neuron_deviation",
    "one_step_criterion",
    "pair_alignment",
    "pair_kernel",
    "participation_ratio",
    "permuted_cka",
    "permuted_pair_alignment",
    "permuted_squares",
    "predicted_excess",
    "predicted_factor",
    "project",
    "quadratic_form",
    "rayleigh_quotient",
    "register",
    "relative_deviation",
    "relative_energy",
    "relative_kernel_change",
    "relative_squared_error",
    "ridge_of",
    "seen_excess",
    "select",
    "shares",
    "similarity_bounds",
    "square_share",
    "stability_radius",
    "stable_rank",
    "subspace_overlap",
    "target_complexity",
    "trace_share",
    "turn_is_rounding",
    "unbiased_cka",
    "update_ledger",
]
