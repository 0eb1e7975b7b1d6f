"""Write docs/how-to/analyses.md, which analysis answers what: ``python docs/analyses_page.py``. ``--check`` compares.

Each analysis is a row of :data:`ANALYSES`; tests/docs/test_analyses.py looks that what a row names is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kerneltrack.observables import NEEDS, catalogue

PAGE = Path(__file__).parent / "how-to" / "analyses.md"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One question that an archive answers.

    Attributes:
        question: as a reader asks it.
        observables: of the catalogue, what must be measured; each has its definition, reading, need and cost there.
        beside: what the archive needs besides.
        functions: of ``kerneltrack.analysis.derived``, what follows from an archive.
        reading: of what a function gives that is no observable; "" where every number of the answer is one.
        figures: that draw it.
        sentence: title of the statement in report and summary.
        maker: the function of ``kerneltrack.analysis.report`` that makes it, ``module.name``.
        silent: when nothing is said.
        oracles: the tests that hold it against closed forms or brute force.
    """

    question: str
    observables: tuple[str, ...]
    beside: str
    functions: tuple[str, ...] = ()
    reading: str = ""
    figures: tuple[str, ...]
    sentence: str
    maker: str
    silent: str
    oracles: tuple[str, ...]


ANALYSES = (
    Analysis(
        question="How fast does the kernel turn?",
        observables=("kernel_angular_velocity",),
        beside="even gaps, or pairs: `schedule=kt.schedule.Every(n, window=2)`",
        figures=("angular-velocity",),
        sentence="Kernel turning",
        maker="motion.turning",
        silent="no two snapshots at the run's one lag, or several lags",
        oracles=("observables/test_motion.py", "analysis/test_groups.py"),
    ),
    Analysis(
        question="How sharp is the loss: Gauss–Newton, Hessian, or batches? Does the real update pass the edge?",
        observables=(
            "gauss_newton_sharpness", "hessian_sharpness", "hessian_stability_ratio", "gauss_newton_share", "batch_sharpness",
            "batch_sharpness_error", "batch_stability_ratio", "one_step_criterion", "one_step_criterion_batch",
        ),
        beside="`loss=`; of batches, a training loader",
        figures=("sharpness",),
        sentence="Sharpness",
        maker="dials.sharpness",
        silent="none of them is stored but Gauss–Newton, whose ρ has a sentence of its own",
        oracles=("test_hessian.py", "analysis/test_dials.py"),
    ),
    Analysis(
        question="How much of the loss is only oscillation at the edge, in which modes, and does it hold the sharpness?",
        observables=(
            "oscillation_loss", "oscillation_loss_seen", "oscillation_leading_share", "edge_swing", "edge_swing_predicted",
        ),
        beside="triples of states, `schedule=kt.schedule.Every(n, window=3)`; every other row says that it is not a third one",
        functions=("oscillation",),
        reading="Higher: more of the outputs goes to and fro. Typical: 0 below the edge. Beside it: ρ.",
        figures=("oscillation", "edge-swing"),
        sentence="Oscillation",
        maker="motion.oscillating",
        silent="no triples, or what oscillates is rounding",
        oracles=("observables/test_oscillation.py", "test_edge_mode.py", "analysis/test_groups.py"),
    ),
    Analysis(
        question="What does the kernel look like in the metric of the loss, or of the optimizer?",
        observables=(
            "loss_weighted_eigenvalues", "loss_weighted_effective_rank", "loss_weighted_participation_ratio",
            "loss_weighted_stable_rank", "optimizer_eigenvalues", "optimizer_effective_rank", "optimizer_participation_ratio",
        ),
        beside="one of the two kernels an archive; of the loss a full kernel",
        functions=("weighted_spectrum",),
        reading="Higher participation ratio than the kernel's: the metric makes modes more alike. Typical: 0.3 to 3 times that. "
        "Beside it: `participation_ratio`.",
        figures=("weighted-spectrum",),
        sentence="Weighted kernel",
        maker="metrics.weighted",
        silent="both spectra are one up to a factor: a mean of squares, or one learning rate",
        oracles=("observables/test_weighted.py", "observables/test_optimizer_kernel.py", "analysis/test_metrics.py"),
    ),
    Analysis(
        question="What test error does the spectrum predict?",
        observables=("eigenvalues", "target_coefficients"),
        beside="a probe that is not trained on, whole spectra",
        functions=("eigenlearning",),
        reading="Higher: the kernel is predicted to learn the target from n points worse. Typical: 0.1 to 1, 1 for predicting "
        "nothing. Beside it: regression on random subsets, and the network's own error.",
        figures=("learning-curves",),
        sentence="Learning curve",
        maker="learning.learning",
        silent="a probe that is trained on, or of which that is not known, or fewer than eight points",
        oracles=("regression/test_learning_curve.py", "analysis/test_eigenlearning.py"),
    ),
    Analysis(
        question="Which functions does the kernel know, and since when?",
        observables=("layer_kernel",),
        beside="eigenvectors, targets; `layer_kernel` for one layer alone",
        functions=("feature_atlas", "own_features"),
        reading="Higher z: the function lies in the leading modes beyond chance. Typical: −5 to 40, above 5 it stands out. "
        "Beside it: the nuisances, and `target_energy_null`.",
        figures=("feature-atlas",),
        sentence="Known functions",
        maker="features.known_functions",
        silent="no eigenvectors or targets, or every function of the archive is constant",
        oracles=("analysis/test_feature_atlas.py",),
    ),
    Analysis(
        question="How much of the forgetting does the kernel at the switch foretell?",
        observables=("target_energy_out_of_sample",),
        beside='the new task\'s probe first, the old one\'s beside it, `metadata={"switch": step}`',
        functions=("task_shift", "task_overlap"),
        reading="Higher size of the cross-kernel, or cosine: the tasks move the network in common directions. Typical: 0.05 "
        "to 0.9. Beside it: the share of the forgetting that is foretold.",
        figures=("task-shift",),
        sentence="Forgetting",
        maker="forgetting.forgetting",
        silent="no second probe or switch, a loss that is no mean of squares, or nothing was forgotten",
        oracles=("regression/test_task_shift.py", "analysis/test_task_shift.py"),
    ),
    Analysis(
        question="Lazy or rich, layer by layer? Did alignment come first?",
        observables=(
            "kernel_distance_from_initial", "anchored_linearization_error", "weight_spectral_change", "weight_spectral_scale",
            "weight_change_scale", "activation_neuron_deviation",
        ),
        beside="the state at step 0",
        functions=("alignment_order",),
        reading="Before: alignment had nine tenths of its last value when the loss had not lost a tenth. Typical: before in "
        "rich runs from small weights. Beside it: the spacing of the snapshots.",
        figures=("lazy-rich",),
        sentence="Weights",
        maker="dials.weights",
        silent="the change of weights is not stored",
        oracles=("test_weight_norms.py", "observables/test_laziness.py", "analysis/test_dials.py"),
    ),
    Analysis(
        question="Does the kernel know where the network errs? Which points does it rest on?",
        observables=("posterior_variance", "posterior_calibration", "ntk_gp_nll", "log_evidence", "information_gain"),
        beside='a held-out probe beside the trained one; of attribution kept kernels, `keep_kernel="all"`',
        functions=("attribution",),
        reading="Larger in size: without the point the kernel's regression would be farther off. Typical: a hundredth of ‖y‖. "
        "Beside it: the leverage, and the linear datamodelling score.",
        figures=("calibration", "influence"),
        sentence="Uncertainty",
        maker="calibrated.calibrated",
        silent="no probe that another one's data predict; of single points the figure says it",
        oracles=("observables/test_bayesian.py", "analysis/test_attribution.py"),
    ),
    Analysis(
        question="What is the size of a kernel that no memory holds?",
        observables=tuple(
            f"{name}_estimate{end}"
            for name in ("trace", "frobenius", "participation_ratio", "alignment")
            for end in ("", "_error")
        ),
        beside='`eigenpairs="leading"`, `memory_budget=`',
        figures=("estimates",),
        sentence="Estimated size",
        maker="estimated.estimated",
        silent="every eigenpair is known, so that nothing is estimated",
        oracles=("test_estimates.py",),
    ),
)  # fmt: skip

_HEAD = """# Which analysis answers what

What is not asked for is not measured: name the observables, `NTKTracker(observables=["default", …])`, and draw the figures with
`kerneltrack plot run.h5 --figure NAME`. Functions live in `kerneltrack.analysis.derived`; formulas with their sources, and how each
number is read, stand in [the catalogue](../observables.md). A number that an archive cannot give is NaN with its reason, and a
figure that it cannot give says what is missing. Pictures are in [the gallery](../gallery.md).

This page is generated: `python docs/analyses_page.py`.
"""


def markdown(analyses: Iterable[Analysis]) -> str:
    """The whole page."""
    return _HEAD + "".join(map(_entry, analyses))


def _entry(one: Analysis) -> str:
    costs = "; ".join(f"{NEEDS[need].what}: {NEEDS[need].cost}" for need in _needs(one))
    lines = [
        f"\n## {one.question}\n",
        f"- Observables: {_listed(one.observables)}.",
        f"- Besides: {one.beside}.",
        f"- Cost: {costs}." if costs else "",
        f"- In Python: {_listed(one.functions)}. {one.reading}" if one.functions else "",
        f"- Figures: {_listed(one.figures)}.",
        f"- Report and summary: “{one.sentence}”. Silent: {one.silent}.\n",
    ]
    return "\n".join(filter(None, lines))


def _needs(one: Analysis) -> list[str]:
    """What it costs beside the kernel, its spectrum and a forward pass, which every archive has."""
    common = {
        "eigenvalues",
        "eigenvectors",
        "spectrum",
        "kernel",
        "matrix",
        "outputs",
        "targets",
        "loss",
        "initial",
        "previous",
        "size",
    }
    asked = {need for name in one.observables if name in catalogue() for need in catalogue()[name].needs}
    return [name for name in NEEDS if name in asked - common]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> int:
    text = markdown(ANALYSES)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/how-to/analyses.md is not what the table says", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
