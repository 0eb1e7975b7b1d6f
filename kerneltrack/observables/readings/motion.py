"""Readings of how kernel, layers and parameters move, and of classes; a table of texts."""

from __future__ import annotations

from collections.abc import Mapping

from kerneltrack.observables.readings.text import ALIGNED, reading

READINGS: Mapping[str, str] = {
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
        "this layer tells like targets better", ALIGNED, "`layer_target_alignment_null` and `layer_share`",
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
        "the last hidden layer tells like targets better", ALIGNED,
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
    "weight_spectral_change": reading(
        "the layer's weights have changed more of their own size", "0.01 lazy, 0.1 to 3 rich; of a lazy run it falls with width",
        "`activation_relative_deviation` and the same at other widths",
    ),
    "weight_spectral_scale": reading(
        "the layer makes its inputs larger", "0.5 to 3 at any width where features are learned",
        "`weight_change_scale`: the condition asks both to be of one size",
    ),
    "weight_change_scale": reading(
        "the layer's features change more", "0.1 to 3 at any width where they are learned, falling with width where not",
        "`weight_spectral_scale` and `activation_neuron_deviation`",
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
}  # fmt: skip
