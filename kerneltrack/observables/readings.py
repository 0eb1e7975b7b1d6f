"""Readings: how each number of the catalogue is read. What a higher value means, a typical range, what to look at beside it.

A table of texts, one entry a number, which is why this file is long. Ranges are of ordinary networks in ordinary training, not
bounds, unless they say so. M is the number of modes.
"""

from __future__ import annotations

from collections.abc import Mapping


def reading(higher: str, typical: str, beside: str) -> str:
    """The three parts as text.

    >>> reading("more classes", "1 to 10", "`trace`")
    'Higher: more classes. Typical: 1 to 10. Beside it: `trace`.'
    """
    return f"Higher: {higher}. Typical: {typical}. Beside it: {beside}."


_OWN_NULL = "its `_null`, the mean over permuted targets, and its value at step 0"
_ENERGY = "0 to 1; k/M for a random direction"
_ALIGNED = "0 to 1; what permuted targets give is often a third of it"
_IN_SAMPLE = "`probe_in_training`: on points that were trained on it is in-sample"

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
        "the target lies in fewer leading modes", f"{_ENERGY}; 0.5 to 0.95 at k = 20", "`target_energy_null` and step 0",
    ),
    "target_energy_centred": reading(
        "the target less its mean lies in fewer leading modes", f"{_ENERGY}; below `target_energy`",
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
        "what is left to learn lies in fast modes", f"{_ENERGY}; it falls as these are learned",
        "`target_energy` and `probe_loss`",
    ),
    "displacement_energy": reading(
        "what was learned lies in fewer leading modes", "0.8 to 1 at k = 20", "k/M, and `output_energy`",
    ),
    "output_energy_centred": reading(
        "the output less its mean lies in fewer leading modes", "0.8 to 1 at k = 20", "k/M and `output_energy`",
    ),
    "residual_energy_centred": reading(
        "what is left to learn, less its mean, lies in fast modes", f"{_ENERGY}; it falls as these are learned",
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
        "points with like targets have a larger kernel", _ALIGNED, f"{_OWN_NULL}; {_IN_SAMPLE}",
    ),
    "kernel_target_alignment_null": reading(
        "the alignment says less of the targets", "0.1 to 0.5; grows as N falls and spectra flatten",
        "`kernel_target_alignment`",
    ),
    "kernel_target_alignment_centred": reading(
        "points with like targets have a larger kernel, beyond what is constant", "0 to 0.8", f"{_OWN_NULL}; {_IN_SAMPLE}",
    ),
    "kernel_target_alignment_centred_null": reading(
        "the centred alignment says less of the targets", "of order 1/√N to 1/N", "`kernel_target_alignment_centred`",
    ),
    "kernel_target_alignment_flattened": reading(
        "the whole kernel is nearer to yyᵀ", "0 to 1/O for a kernel that treats outputs alike",
        f"{_OWN_NULL}; never `kernel_target_alignment`",
    ),
    "kernel_target_alignment_flattened_null": reading(
        "the flattened alignment says less of the targets", "a third of it", "`kernel_target_alignment_flattened`",
    ),
    "kernel_target_alignment_centred_flattened": reading(
        "the whole centred kernel is nearer to yyᵀ", "0 to 1/(O − 1) for a kernel that treats outputs alike", _OWN_NULL,
    ),
    "kernel_target_alignment_centred_flattened_null": reading(
        "the centred flattened alignment says less of the targets", "of order 1/N",
        "`kernel_target_alignment_centred_flattened`",
    ),
    # modes, outputs by themselves
    "target_energy_by_output": reading(
        "this output's target lies in fewer leading modes", _ENERGY, "`target_energy` and the other outputs",
    ),
    "residual_energy_by_output": reading(
        "what is left of this output lies in fast modes", _ENERGY, "`residual_energy` and the other outputs",
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
    # motion
    "kernel_distance_from_initial": reading(
        "the kernel has turned farther", "10⁻⁴ in a lazy run, 0.05 to 0.7 where features are learned",
        "`relative_kernel_change`, which sees scale",
    ),
    "relative_kernel_change": reading(
        "the kernel has changed more, scale included", "0.01 in a lazy run, 0.5 to 10 where features are learned",
        "`kernel_distance_from_initial`",
    ),
    "kernel_angle_from_initial": reading(
        "the kernel has turned farther", "0.01 to 1.2 rad; at most π/2", "`kernel_radius_from_initial`",
    ),
    "kernel_radius_from_initial": reading(
        "the kernel lies farther from its start", "grows with N; divide by its last value", "`kernel_angle_from_initial`",
    ),
    "kernel_distance_from_previous": reading(
        "the kernel turned more between two snapshots", "10⁻⁵ to 0.1, and it depends on the gap",
        "the gap in steps: other gaps are other numbers",
    ),
    "kernel_velocity": reading(
        "the kernel turns faster", "10⁻³ per step early, 10⁻⁶ late",
        "the lag, and pairs at the edge of stability, where it goes to and fro",
    ),
    "kernel_angular_velocity": reading(
        "the kernel turns faster", "10⁻² rad per step early, 10⁻⁴ late",
        "the lag Δ, and pairs at the edge of stability, where it goes to and fro",
    ),
    "cka_with_initial": reading(
        "the kernel is still what it was, up to scale and what is constant", "0.3 to 1",
        "`cka_with_initial_null`: two unrelated kernels have that",
    ),
    "cka_with_initial_null": reading(
        "a high CKA says less", "0.05 to 0.3; grows as N falls and spectra flatten",
        "`cka_with_initial`, of which it is the null",
    ),
    "cka_with_initial_unbiased": reading(
        "the kernel is still what it was", "0.3 to 1; 0 for unrelated kernels, and it may fall below",
        "`cka_with_initial`, which is biased upwards",
    ),
    "subspace_overlap_with_initial": reading(
        "the first k modes are still those of the start", "0.3 to 1; k/M for random ones",
        "k/M and `subspace_rotation_bound`",
    ),
    "subspace_overlap_with_previous": reading(
        "the first k modes stayed", "0.8 to 1, and it depends on the gap",
        "the gap in steps, and `subspace_rotation_bound_previous`",
    ),
    "principal_angle_with_initial": reading(
        "at least one direction left the span of the first k modes", "0.1 to π/2; near π/2 as soon as one mode left",
        "`subspace_overlap_with_initial`",
    ),
    "subspace_rotation_bound": reading(
        "the first k modes can have turned farther", "0.1 to 1; 1 says nothing",
        "`subspace_overlap_with_initial`, which is measured",
    ),
    "subspace_rotation_bound_previous": reading(
        "the first k modes can have turned farther since the snapshot before", "0.01 to 1; 1 says nothing",
        "`subspace_overlap_with_previous`",
    ),
    # layers
    "layer_trace": reading(
        "the layer's parameters move the outputs more", "over orders of magnitude between layers", "`layer_share`",
    ),
    "layer_share": reading(
        "more of the kernel comes from this layer", "0 to 1, 1 in all",
        "the layer's number of parameters and `layer_target_alignment`",
    ),
    "layer_kernel": reading(
        "these two points and outputs share more in this layer", "as the kernel's entries",
        "the other layers: they add up to Θ",
    ),
    "layer_frobenius": reading("the layer's kernel is larger", "over orders of magnitude between layers", "`layer_trace`"),
    "layer_target_alignment": reading(
        "this layer tells like targets better", _ALIGNED, "`layer_target_alignment_null` and `layer_share`",
    ),
    "layer_target_alignment_null": reading("this layer's alignment says less", "0.1 to 0.5", "`layer_target_alignment`"),
    "layer_target_alignment_centred": reading(
        "this layer tells like targets better, beyond what is constant", "0 to 0.8",
        "`layer_target_alignment_centred_null` and `layer_share`",
    ),
    "layer_target_alignment_centred_null": reading(
        "this layer's centred alignment says less", "of order 1/√N to 1/N", "`layer_target_alignment_centred`",
    ),
    # readout
    "conjugate_kernel": reading(
        "the readout sees these two points as more alike", "as products of hidden activations", "`class_within`",
    ),
    "conjugate_kernel_share": reading(
        "more of the kernel is the readout's weights", "0.1 to 0.9; 1 for a linear model without bias",
        "`conjugate_kernel_share_with_bias`, `layer_share`",
    ),
    "conjugate_kernel_share_with_bias": reading(
        "more of the kernel is the readout's", "0.1 to 0.9; 1 where nothing below the readout trains",
        "`conjugate_kernel_share`, `layer_share`",
    ),
    "conjugate_kernel_effective_rank": reading("the last hidden layer uses more directions", "2 to 30", "`effective_rank`"),
    "conjugate_kernel_target_alignment": reading(
        "the last hidden layer tells like targets better", _ALIGNED,
        "`conjugate_kernel_target_alignment_null`, `kernel_target_alignment`",
    ),
    "conjugate_kernel_target_alignment_null": reading(
        "that alignment says less", "0.1 to 0.5", "`conjugate_kernel_target_alignment`, of which it is the null",
    ),
    "conjugate_kernel_distance_from_initial": reading(
        "the last hidden layer has turned farther", "10⁻⁴ in a lazy run, 0.05 to 0.5 where features are learned",
        "`kernel_distance_from_initial`",
    ),
    # classes
    "class_diagonal": reading(
        "single points move their own outputs more", "above `class_within`", "`class_within` and `class_between`",
    ),
    "class_within": reading(
        "points of one class share more", "between `class_between` and `class_diagonal`",
        "`class_between`, `class_pair_r2`",
    ),
    "class_between": reading(
        "points of different classes share more", "near `class_within` at the start, below it later",
        "`class_within`; pooled, large classes weigh more",
    ),
    "class_pair_r2": reading(
        "labels explain more of the kernel between points", "0.05 to 0.6",
        "`class_pair_r2_null` and `class_pair_r2_score`; step 0",
    ),
    "class_pair_r2_null": reading(
        "chance explains more", "about one over the number of pairs", "`class_pair_r2`, of which it is the null",
    ),
    "class_pair_r2_score": reading(
        "the labels are less likely chance", "below 3 without class structure, tens to thousands with it",
        "`class_pair_r2`: a sure effect may be small",
    ),
    "class_three_level_share": reading(
        "the kernel is nearer to three levels", "0.5 to 1 for any flat kernel",
        "`class_three_level_share_null`; class structure is `class_pair_r2`",
    ),
    "class_three_level_share_null": reading(
        "the share says less of the classes", "0.4 to 1", "`class_three_level_share`, of which it is the null",
    ),
    "kernel_specialization": reading(
        "each output's kernel fits its own target better than another's", "0.9 to 3; 1 for none", "`cross_output_share`",
    ),
    "cross_output_share": reading(
        "outputs are coupled, or differ, more", "0 for k ⊗ I (wide, at the start), to 0.7",
        "`kernel_specialization` and the number of outputs",
    ),
    # loss, stability
    "probe_loss": reading("the network fits the probe worse", "as the training loss", f"`training_loss`; {_IN_SAMPLE}"),
    "stability_ratio": reading(
        "the quadratic model is nearer to instability, above 1 beyond it", "0.01 to 1.3; near 1 at the edge",
        "`stability_scope`, and `stability_ratio_bias` on a sample of the data: it is biased upwards there",
    ),
    "stability_ratio_bias": reading(
        "the probe makes ρ look larger than it is", "0 to half of ρ; falls as N grows",
        "`stability_ratio`, from which it may be taken off",
    ),
    "gauss_newton_sharpness": reading(
        "the loss is more curved along its steepest direction", "0.1 to 10³; rises until the edge, then stays",
        "`stability_ratio`, which has η in it; a small probe biases it upwards",
    ),
    "stability_bound": reading(
        "larger eigenvalues are stable", "2N/η for gradient descent", "λ_1: at the edge they are equal",
    ),
    "linearization_error": reading(
        "one update is less a straight step", "10⁻⁶ to 0.1; 1 for predicting no change",
        "`linearization_cosine` and the learning rate",
    ),
    "linearization_cosine": reading(
        "one update is more a straight step", "0.9 to 1", "`linearization_error`, which sees the length too",
    ),
    "kernel_flow_error": reading(
        "one update is less the step of the probe's own loss", "0.01 for full-batch descent, 0.3 to 2 with minibatches",
        "`linearization_error`: the rest is optimizer and minibatch",
    ),
    "anchored_linearization_error": reading(
        "the run is less lazy", "below 0.01 lazy, 0.1 to 1 rich; above 1 worse than no motion",
        "`kernel_distance_from_initial`, `relative_kernel_change`",
    ),
    "function_gap": reading(
        "training sees another function than the measured one",
        "0 without dropout and batch statistics, 0.05 to 0.5 with them", "the flags of training, N",
    ),
    # optimizer
    "optimizer_eigenvalues": reading(
        "the optimizer learns the mode faster", "η λ_i for one rate", "`eigenvalues` and `optimizer_kernel_distance`",
    ),
    "optimizer_kernel_distance": reading(
        "the optimizer learns other modes than the kernel's", "0 for one rate, 0.05 to 0.7 for Adam",
        "`optimizer_target_alignment`",
    ),
    "optimizer_target_alignment": reading(
        "the optimizer's kernel tells like targets better", _ALIGNED,
        "`optimizer_target_alignment_null`, `kernel_target_alignment`",
    ),
    "optimizer_target_alignment_null": reading(
        "that alignment says less", "0.1 to 0.5", "`optimizer_target_alignment`, of which it is the null",
    ),
    # laziness
    "parameter_distance": reading(
        "the parameters have gone farther", "0.1 to 10, and it depends on the scale of the weights",
        "‖θ_0‖, `jacobian_change`",
    ),
    "layer_parameter_distance": reading(
        "the layer's parameters have gone farther", "0.01 to 10", "the layer's ‖θ_0‖ and `layer_share`",
    ),
    "jacobian_change": reading("the Jacobian has changed more", "grows with N", "‖J_0‖₂ = √λ_1(Θ_0)"),
    "jacobian_stability": reading(
        "the condition of lazy training is farther away", "0.01 to 100; from ½ on it is refuted",
        "`stability_radius_share`",
    ),
    "stability_radius": reading("training may go farther and still be lazy", "1 to 10⁴", "`parameter_distance`"),
    "stability_radius_share": reading(
        "training has used more of that ball", "0 to 1; beyond 1 it has left it", "`jacobian_stability`",
    ),
    # hidden layers
    "activation_neuron_deviation": reading(
        "single neurons have moved farther", "falls with width in a lazy run, 0.1 to 1 in a rich one",
        "`activation_layer_deviation`",
    ),
    "activation_largest_deviation": reading(
        "the neuron that moved most moved farther", "several times the RMS", "`activation_neuron_deviation`",
    ),
    "activation_layer_deviation": reading(
        "the layer as a whole has moved farther", "stays with width in a lazy run",
        "`activation_neuron_deviation`, `activation_relative_deviation`",
    ),
    "activation_relative_deviation": reading(
        "the layer has moved more of its own size", "0.01 lazy, 0.3 to 2 rich", "`activation_layer_deviation`",
    ),
    "gate_flips": reading(
        "more gates opened or closed", "0.01 to 0.3; ½ for unrelated signs", "`activation_relative_deviation`",
    ),
    # predictions
    "network_error": reading(
        "the network fits the probe worse", "1 for predicting zero, 0 for a fit", f"`probe_loss`; {_IN_SAMPLE}",
    ),
    "network_accuracy": reading("the network names more classes right", "1/O by chance to 1", f"`probe_loss`; {_IN_SAMPLE}"),
    "kernel_regression_error": reading(
        "the network linearised here would end farther from the targets", "0 to 1; 1 for predicting zero",
        "`network_error` at the end, on a held-out probe",
    ),
    "kernel_logistic_loss": reading(
        "the network linearised here would end with a larger loss", "0 to ln O; ln O for knowing nothing",
        "`probe_loss` at the end, on a held-out probe",
    ),
    "kernel_logistic_accuracy": reading(
        "the network linearised here would name more classes right", "1/O by chance to 1",
        "`network_accuracy` at the end, on a held-out probe",
    ),
    "leave_one_out_error": reading(
        "the kernel predicts points it has not seen worse", "0.1 to 1.3; 1 for predicting zero",
        "`kernel_alignment_risk`, and N: it falls with more points",
    ),
    "kernel_alignment_risk": reading(
        "the kernel is expected to predict worse", "0.1 to 1.5; 1 for predicting zero",
        "`leave_one_out_error`, and N: it falls with more points",
    ),
    "target_energy_out_of_sample": reading(
        "eigenfunctions of the first probe hold more of this one's target", _ENERGY,
        "k/N, and `target_energy` of the first probe",
    ),
    "output_energy_out_of_sample": reading(
        "eigenfunctions of the first probe hold more of this one's output", "0.8 to 1 at k = 20",
        "k/N, and `output_energy` of the first probe",
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
    # ledger
    "ledger_kernel_flow": reading(
        "the probe's own gradient flow moves the mode more", "either sign; shrinks with the residual",
        "`ledger_remainder`, `ledger_curvature`",
    ),
    "ledger_remainder": reading(
        "optimizer and minibatch move the mode more", "either sign; of the flow's size with minibatches",
        "`ledger_kernel_flow`",
    ),
    "ledger_curvature": reading(
        "the network is less linear over the update", "either sign; a hundredth of the flow", "`linearization_error`",
    ),
}  # fmt: skip
