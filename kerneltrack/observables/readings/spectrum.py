"""Readings of the spectrum, and of what lies along its modes; a table of texts."""

from __future__ import annotations

from collections.abc import Mapping

from kerneltrack.observables.readings.text import ALIGNED, ENERGY, IN_SAMPLE, OWN_NULL, reading

READINGS: Mapping[str, str] = {
    # spectrum
    "trace": reading(
        "outputs answer more to the parameters", "grows with N and width; within a run it changes by a few times",
        "tr Θ/N at step 0, and `gauss_newton_sharpness`",
    ),
    "frobenius": reading(
        "the kernel is larger, its leading modes above all", "between tr Θ/√M and tr Θ",
        "`trace` and `participation_ratio`",
    ),
    "condition_number": reading(
        "the slowest mode learns more slowly than the fastest", "10² to ∞; ∞ where the last mode is rounding",
        "`numerical_rank` and `noise_floor`: it is no better than λ_M",
    ),
    "numerical_rank": reading(
        "more modes stand above rounding", "a tenth of M to M; a lower bound, because the floor is conservative",
        "`noise_floor`, M",
    ),
    "effective_rank": reading(
        "the trace is spread over more modes", "2 to 30, and it often falls in training",
        "`participation_ratio` and `stable_rank`: three averages of one spectrum",
    ),
    "participation_ratio": reading(
        "the large eigenvalues are more alike", "1 to 20; 1 for a single mode",
        "`effective_rank`, which sees the small ones too",
    ),
    "stable_rank": reading(
        "the first mode holds less of the trace", "1 to 10; 1 for a single mode", "`trace_share` at k = 1, its inverse",
    ),
    "trace_share": reading(
        "k modes are enough for the kernel", "0.3 to 0.9 at k = 1 and 5",
        "`target_energy` at the same k: a large mode need not be a useful one",
    ),
    "square_share": reading(
        "k modes decide distances and alignments of the kernel", "0.8 to 1 from k = 5 on",
        "`trace_share`, which is smaller",
    ),
    "noise_floor": reading(
        "fewer eigenvalues can be told from rounding", "10⁻⁶ λ_1 in float32, 10⁻¹⁵ λ_1 in float64", "`numerical_rank`",
    ),
    "eigen_residual": reading(
        "the solver's eigenvalues may be farther off", "below `noise_floor`",
        "`noise_floor`: above it, believe the larger one",
    ),
    # energies
    "target_energy": reading(
        "the target lies in fewer leading modes", f"{ENERGY}; 0.5 to 0.95 at k = 20", "`target_energy_null` and step 0",
    ),
    "target_energy_centred": reading(
        "the target less its mean lies in fewer leading modes", f"{ENERGY}; below `target_energy`",
        "`target_energy_centred_null` and step 0",
    ),
    "target_energy_null": reading(
        "chance alone gives a higher energy", "above k/M; for O balanced classes at least near 1/O",
        "`target_energy`, of which it is the null",
    ),
    "target_energy_centred_null": reading(
        "chance alone gives a higher centred energy", "near k/N", "`target_energy_centred`, of which it is the null",
    ),
    "output_energy": reading(
        "the output lies in fewer leading modes", "0.9 to 1 at k = 20",
        "k/M, and `displacement_energy`, which knows no start",
    ),
    "residual_energy": reading(
        "what is left to learn lies in fast modes", f"{ENERGY}; it falls as these are learned",
        "`target_energy` and `probe_loss`",
    ),
    "displacement_energy": reading(
        "what was learned lies in fewer leading modes", "0.8 to 1 at k = 20", "k/M, and `output_energy`",
    ),
    "output_energy_centred": reading(
        "the output less its mean lies in fewer leading modes", "0.8 to 1 at k = 20", "k/M and `output_energy`",
    ),
    "residual_energy_centred": reading(
        "what is left to learn, less its mean, lies in fast modes", f"{ENERGY}; it falls as these are learned",
        "`target_energy_centred`",
    ),
    "displacement_energy_centred": reading(
        "what was learned, less its mean, lies in fewer leading modes", "0.8 to 1 at k = 20",
        "k/M and `displacement_energy`",
    ),
    "target_rayleigh": reading(
        "the target is learned faster", "λ_1 times the part of the target in leading modes; grows with N",
        "`residual_rayleigh` and λ_1",
    ),
    "residual_rayleigh": reading(
        "the loss falls faster now", "falls by orders of magnitude as fast modes are learned; grows with N",
        "`target_rayleigh` and `probe_loss`",
    ),
    # alignment in one number
    "kernel_target_alignment": reading(
        "points with like targets have a larger kernel", ALIGNED, f"{OWN_NULL}; {IN_SAMPLE}",
    ),
    "kernel_target_alignment_null": reading(
        "the alignment says less of the targets", "0.1 to 0.5; grows as N falls and spectra flatten",
        "`kernel_target_alignment`",
    ),
    "kernel_target_alignment_centred": reading(
        "points with like targets have a larger kernel, beyond what is constant", "0 to 0.8", f"{OWN_NULL}; {IN_SAMPLE}",
    ),
    "kernel_target_alignment_centred_null": reading(
        "the centred alignment says less of the targets", "of order 1/√N to 1/N", "`kernel_target_alignment_centred`",
    ),
    "kernel_target_alignment_flattened": reading(
        "the whole kernel is nearer to yyᵀ", "0 to 1/O for a kernel that treats outputs alike",
        f"{OWN_NULL}; never `kernel_target_alignment`",
    ),
    "kernel_target_alignment_flattened_null": reading(
        "the flattened alignment says less of the targets", "a third of it", "`kernel_target_alignment_flattened`",
    ),
    "kernel_target_alignment_centred_flattened": reading(
        "the whole centred kernel is nearer to yyᵀ", "0 to 1/(O − 1) for a kernel that treats outputs alike", OWN_NULL,
    ),
    "kernel_target_alignment_centred_flattened_null": reading(
        "the centred flattened alignment says less of the targets", "of order 1/N",
        "`kernel_target_alignment_centred_flattened`",
    ),
    # modes, outputs by themselves
    "target_energy_by_output": reading(
        "this output's target lies in fewer leading modes", ENERGY, "`target_energy` and the other outputs",
    ),
    "residual_energy_by_output": reading(
        "what is left of this output lies in fast modes", ENERGY, "`residual_energy` and the other outputs",
    ),
    "output_energy_by_output": reading(
        "this output lies in fewer leading modes", "0.9 to 1 at k = 20", "`output_energy` and the other outputs",
    ),
    "displacement_energy_by_output": reading(
        "what this output learned lies in fewer leading modes", "0.8 to 1 at k = 20",
        "`displacement_energy` and the other outputs",
    ),
    "predicted_factor": reading(
        "the mode is learned more slowly; above 1 it grows", "0 to 1; near 1 for most modes",
        "`measured_factor`, and for other optimizers `ledger_remainder`",
    ),
    "measured_factor": reading(
        "the update left more of the residual along the mode", "0 to 2; scatters with the minibatch", "`predicted_factor`",
    ),
    "optimizer_factor": reading(
        "the mode of the optimizer's kernel is learned more slowly", "0.9 to 1",
        "`measured_factor` and `optimizer_eigenvalues`",
    ),
    # decay
    "spectrum_exponent": reading(
        "the spectrum falls faster", "0.8 to 3; it depends on N", "the figure of the spectrum: is it a power law at all",
    ),
    "target_exponent": reading(
        "fast modes hold more of the target", "0.5 to 2.5", "`spectrum_exponent`; in the figure, whether it is a power law",
    ),
    "target_complexity": reading(
        "the target is harder for this kernel", "1 to 1/0.001; 1 for the first mode of a flat kernel",
        "`target_modes_90`, N",
    ),
    "target_modes_90": reading("the target needs more modes", "5 to M; grows with N", "M and `target_energy`"),
    "effective_dimension": reading(
        "regression has more free directions", "a third of M to M; grows with N", "`effective_rank`, γ",
    ),
}  # fmt: skip
