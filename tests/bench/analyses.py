"""What each analysis adds to one snapshot and its update: ``python tests/bench/analyses.py`` writes docs/benchmarks-analyses.md.

Calls of the network, backward passes and CPU seconds of one measurement with the default set, and with each choice beside it.
Passes are counted, so they are the same on every machine; seconds are the least of several.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from kerneltrack.measurement import Instrument, TrainedOn
from kerneltrack.measurement.references import References
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training import ProbeLoss, UpdateRule

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-analyses.md"

#: What is chosen beside the default set → what of it is told by the default set's own passes.
CHOICES: dict[str, tuple[str, ...]] = {
    "the default set": (),
    "loss-weighted spectrum": ("loss_weighted_eigenvalues", "loss_weighted_effective_rank"),
    "optimizer's spectrum, one rate": ("optimizer_eigenvalues", "optimizer_effective_rank"),
    "oscillation": ("oscillation_loss", "oscillation_loss_seen", "oscillation_leading_share"),
    "evidence, information gain": ("log_evidence", "information_gain"),
    "weights": ("weight_spectral_change", "weight_spectral_scale", "weight_change_scale"),
    "hidden neurons": ("activation_neuron_deviation",),
    "estimates": ("trace_estimate", "trace_estimate_error", "frobenius_estimate"),
    "q on the probe": ("one_step_criterion",),
    "q on its batch": ("one_step_criterion_batch",),
    "Hessian": ("hessian_sharpness",),
    "batch sharpness, 4 batches": ("batch_sharpness", "batch_sharpness_error"),
}
#: Choices that take no pass beside the default set's.
FREE = (
    "loss-weighted spectrum",
    "optimizer's spectrum, one rate",
    "oscillation",
    "evidence, information gain",
    "weights",
    "estimates",
)


@dataclass(frozen=True)
class Cost:
    """Of one measurement and its update.

    Attributes:
        forward: calls of the network, forward-mode derivatives and vectorised calls once each.
        backward: backward passes, vectorised ones once each.
        seconds: of the process, in the fastest repeat.
    """

    forward: int
    backward: int
    seconds: float


def measured(names: tuple[str, ...], *, points: int = 60, width: int = 64, repeats: int = 1) -> Cost:
    """What a measurement with the default set and these costs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    x, y = torch.randn(points + 64, 64), torch.arange(points + 64) % 10
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    batches = tuple(Probe(x[points + 16 * i :][:16], y[points + 16 * i :][:16]) for i in range(4))
    instrument = Instrument(
        probe=Probe(x[:points], y[:points]), loss=ProbeLoss.of("cross_entropy"), observables=select(["default", *names]),
        output="full", batches=batches,
    )  # fmt: skip
    references, found = References(start=NetworkState.of(model)), []
    for _ in range(repeats + 1):  # the first one learns how kernels are computed
        moved = copy.deepcopy(model)
        with counting(moved) as counted:
            began = time.process_time()
            reading = instrument.measure(moved, rule, step=1, references=references)
            with torch.no_grad():
                for p in moved.parameters():
                    p -= 1e-3 * p
            instrument.complete(moved, reading, rule, TrainedOn(batches[:1]))
            counted["seconds"] = time.process_time() - began
        found.append(counted)
    best = min(found[1:], key=lambda one: one["seconds"])
    return Cost(int(best["forward"]), int(best["backward"]), best["seconds"])


@contextmanager
def counting(model: nn.Module) -> Iterator[dict[str, float]]:
    """Calls of the model's last layer, and of ``torch.autograd.grad``."""
    counted = {"forward": 0.0, "backward": 0.0, "seconds": 0.0}
    plain, last = torch.autograd.grad, list(model.modules())[-1]

    def called(*_: object) -> None:
        counted["forward"] += 1

    def grad(*args: object, **options: object) -> object:
        counted["backward"] += 1
        return plain(*args, **options)  # type: ignore[arg-type]

    hook = last.register_forward_hook(called)
    torch.autograd.grad = grad  # type: ignore[assignment]
    try:
        yield counted
    finally:
        torch.autograd.grad = plain
        hook.remove()


def page(costs: dict[str, Cost], repeats: int) -> str:
    """The whole page."""
    base = costs["the default set"]
    rows = [
        f"| {name} | {c.forward} ({c.forward - base.forward:+d}) | {c.backward} ({c.backward - base.backward:+d}) | "
        f"{1000 * c.seconds:.0f} |"
        for name, c in costs.items()
    ]
    return "\n".join(
        (
            "# What each analysis adds",
            "",
            "One snapshot and its update: an MLP 64-64-64-10, 60 points, a full kernel, cross-entropy, gradient descent. Each",
            "row is the default set with one choice beside it. What is not chosen is not measured: a choice that follows from",
            "what is there adds no pass. Passes are counted (a vectorised call once); milliseconds are processor time of one",
            f"thread, the least of {repeats} rounds over all rows, in float32, on a machine that did other work too: rows that",
            "take the same passes and differ by less than a tenth are equal.",
            "",
            "Counts do not depend on how often a row is repeated. A test counts the default set and the batches again. A training",
            "batch takes 3 calls and 5 backward passes: one each for its gradient, and two pieces for H g, whose second pass",
            "keeps the graph of the first. The check of second derivatives, once for all batches, takes 6 and 8. What the Hessian",
            "takes beside that check are Lanczos' products, and their number is the network's.",
            "",
            "What belongs to triples (`edge_swing`) is of their third state only, and in no row here.",
            "",
            "| chosen | calls of the network | backward passes | ms |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "Made by `python tests/bench/analyses.py`.",
            "",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    # Round by round: what else the machine does then falls on every row alike.
    rounds = [{name: measured(names) for name, names in CHOICES.items()} for _ in range(given.repeats)]
    costs = {name: min((one[name] for one in rounds), key=lambda cost: cost.seconds) for name in CHOICES}
    given.output.write_text(page(costs, given.repeats), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
