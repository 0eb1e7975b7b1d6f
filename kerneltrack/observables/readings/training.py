"""Readings of loss and stability, of the optimizer, of predictions; a table of texts."""

from __future__ import annotations

from collections.abc import Mapping

from kerneltrack.observables.readings.text import ALIGNED, ENERGY, IN_SAMPLE, reading

READINGS: Mapping[str, str] = {
    # loss, stability
    "probe_loss": reading("the network fits the probe worse", "as the training loss", f"`training_loss`; {IN_SAMPLE}"),
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
    "hessian_sharpness": reading(
        "the loss is more curved along its steepest direction", "1 to 1.5 of the Gauss–Newton sharpness; above it at the edge",
        "`gauss_newton_sharpness` and `gauss_newton_share`; a small probe biases it upwards",
    ),
    "hessian_stability_ratio": reading(
        "the quadratic model is nearer to instability, above 1 beyond it", "0.01 to 1.4; near 1 at the edge",
        "`stability_ratio`, which has Gauss–Newton alone, and `stability_scope`",
    ),
    "gauss_newton_share": reading(
        "more of the sharpness is the kernel's, less the network's own curvature", "0.8 to 1; 1 for a linear model",
        "`probe_loss`: at a fit of every point it is 1",
    ),
    "batch_sharpness": reading(
        "a batch's own loss is more curved along its gradient", "above λ_1 of all data for small batches; 2/η at the edge of SGD",
        "`batch_sharpness_error` and `hessian_sharpness`",
    ),
    "batch_sharpness_error": reading(
        "the batches differ more", "a tenth to a third of `batch_sharpness`", "`batch_sharpness`, of which it is the error",
    ),
    "batch_stability_ratio": reading(
        "a batch's own step is nearer to overshooting on that batch", "0.1 to 1; near 1 at the edge of plain SGD",
        "the momentum: c is that of whole batches, and with momentum small batches keep below it",
    ),
    "one_step_criterion": reading(
        "the update overshoots more; above 2 the quadratic model of the probe's loss rises", "0.01 to 2; 2 at the edge of descent",
        "`linearization_error`; with momentum it judges this one step, not the rule",
    ),
    "one_step_criterion_batch": reading(
        "the update overshoots more on the batch it was made from; above 2 that batch's quadratic model rises",
        "0.1 to 2; η times the batch's own sharpness for plain descent", "`one_step_criterion`, which is of the probe's loss",
    ),
    "oscillation_loss": reading(
        "more of the loss is made by going to and fro", "0 below the edge, 0.01 to 0.5 of the loss at it",
        "`oscillation_loss_seen`, which is exact for squares, and `probe_loss`",
    ),
    "oscillation_loss_seen": reading(
        "the loss over both phases stands farther above that of their mean", "as `oscillation_loss`",
        "`oscillation_loss`: apart, the loss is curved beyond second order",
    ),
    "oscillation_leading_share": reading(
        "the oscillation is one of a few modes", "0.9 to 1 at the edge; 5/M for a random direction",
        "`stability_ratio`: near 1 the first mode is the one that oscillates",
    ),
    "edge_swing": reading(
        "the parameters go farther to and fro along the one mode at the edge", "10⁻⁶ to 10⁻² of ‖θ‖²",
        "`edge_swing_predicted`: equal where the sharpness stands still",
    ),
    "edge_swing_predicted": reading(
        "the way of the loss leads more steeply to sharper states, and a larger swing holds it",
        "0 where it leads to flatter ones; near `edge_swing` in balance",
        "`edge_swing`: below it λ_1 is still to rise, above it to fall",
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
    "optimizer_effective_rank": reading(
        "the optimizer learns along more directions at once", "2 to 60; under Adam above the kernel's own", "`effective_rank`",
    ),
    "optimizer_participation_ratio": reading(
        "the optimizer's large modes are more alike", "1 to 30; under Adam above the kernel's own", "`participation_ratio`",
    ),
    "loss_weighted_eigenvalues": reading(
        "the loss is more curved along the mode", "the first is `gauss_newton_sharpness`; falls where cross-entropy fits",
        "`eigenvalues`, which know no loss",
    ),
    "loss_weighted_effective_rank": reading(
        "the loss is curved along more modes", "2 to 30; of squares it is the kernel's own", "`effective_rank`",
    ),
    "loss_weighted_participation_ratio": reading(
        "the large curvatures are more alike", "1 to 20; of squares it is the kernel's own", "`participation_ratio`",
    ),
    "loss_weighted_stable_rank": reading(
        "the first mode holds less of the curvature", "1 to 10; of squares it is the kernel's own", "`stable_rank`",
    ),
    "optimizer_kernel_distance": reading(
        "the optimizer learns other modes than the kernel's", "0 for one rate, 0.05 to 0.7 for Adam",
        "`optimizer_target_alignment`",
    ),
    "optimizer_target_alignment": reading(
        "the optimizer's kernel tells like targets better", ALIGNED,
        "`optimizer_target_alignment_null`, `kernel_target_alignment`",
    ),
    "optimizer_target_alignment_null": reading(
        "that alignment says less", "0.1 to 0.5", "`optimizer_target_alignment`, of which it is the null",
    ),
    # predictions
    "network_error": reading(
        "the network fits the probe worse", "1 for predicting zero, 0 for a fit", f"`probe_loss`; {IN_SAMPLE}",
    ),
    "network_accuracy": reading("the network names more classes right", "1/O by chance to 1", f"`probe_loss`; {IN_SAMPLE}"),
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
        "eigenfunctions of the first probe hold more of this one's target", ENERGY,
        "k/N, and `target_energy` of the first probe",
    ),
    "output_energy_out_of_sample": reading(
        "eigenfunctions of the first probe hold more of this one's output", "0.8 to 1 at k = 20",
        "k/N, and `output_energy` of the first probe",
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
