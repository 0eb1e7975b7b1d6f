"""Numbers that follow from what a run has stored, one question a file."""

from __future__ import annotations

from .attribution import Attribution, attribution
from .eigenfunctions import mean_frequencies, output_in_top_modes, span_overlaps, spread_points
from .eigenlearning import LearningCurves, eigenlearning, unseen_rows
from .feature_atlas import STANDS_OUT, FeatureAtlas, feature_atlas, leading_modes, own_features
from .flow_time import check_one_clock, flow_time, gain
from .freeze_here import FreezeHere, freeze_here
from .kernels import full_kernel, kernel_matrix, rows_with_kernels, similarities
from .ledger_shares import learned_modes, learned_shares
from .matched_modes import CERTAIN, MatchedModes, matched_modes
from .mode_factors import ModeFactors, mode_factors, no_single_modes
from .oscillation import LEADING, Oscillation, oscillation
from .permuted_energy import DRAWS, PermutedEnergy, permuted_energy
from .profiles import Function, binned, energy_profile, followed, mode_energy, nearest_k, representative_rows, speeds
from .quantities import across_sizes, check_across_sizes, key_of, nearest, pair_numbers, quantity, title_of
from .rate_changes import Change, Trend, learning_rate_changes
from .silent_alignment import AlignmentOrder, alignment_order
from .stages import HELD, MOVED, judge
from .task_shift import TaskOverlap, TaskShift, task_overlap, task_shift
from .uncertainty import assess, assessment_table
from .weighted_spectrum import WeightedSpectrum, weighted_spectrum

__all__ = [
    "CERTAIN",
    "DRAWS",
    "HELD",
    "LEADING",
    "MOVED",
    "STANDS_OUT",
    "AlignmentOrder",
    "Attribution",
    "Change",
    "FeatureAtlas",
    "FreezeHere",
    "Function",
    "LearningCurves",
    "MatchedModes",
    "ModeFactors",
    "Oscillation",
    "PermutedEnergy",
    "TaskOverlap",
    "TaskShift",
    "Trend",
    "WeightedSpectrum",
    "across_sizes",
    "alignment_order",
    "assess",
    "assessment_table",
    "attribution",
    "binned",
    "check_across_sizes",
    "check_one_clock",
    "eigenlearning",
    "energy_profile",
    "feature_atlas",
    "flow_time",
    "followed",
    "freeze_here",
    "full_kernel",
    "gain",
    "judge",
    "kernel_matrix",
    "key_of",
    "leading_modes",
    "learned_modes",
    "learned_shares",
    "learning_rate_changes",
    "matched_modes",
    "mean_frequencies",
    "mode_energy",
    "mode_factors",
    "nearest",
    "nearest_k",
    "no_single_modes",
    "oscillation",
    "output_in_top_modes",
    "own_features",
    "pair_numbers",
    "permuted_energy",
    "quantity",
    "representative_rows",
    "rows_with_kernels",
    "similarities",
    "span_overlaps",
    "speeds",
    "spread_points",
    "task_overlap",
    "task_shift",
    "title_of",
    "unseen_rows",
    "weighted_spectrum",
]
