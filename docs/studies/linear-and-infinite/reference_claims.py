"""What linearised and infinitely wide networks should tell of real ones, each claim beside what the runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from claims import Claim, spread
from course import Course
from results import Results
from scipy.stats import spearmanr

Run = dict[str, Any]
Target = dict[str, Any]

RANKED = "linear approximations can rank the learning complexity of certain tasks"
NOT_ALWAYS = "neural networks do not always perform better than their kernel approximations"
EVOLVED = "networks overfit to these tasks mostly due to the evolution of their kernel"
CENTERED = "centered and ensembled finite networks have reduced posterior variance and behave more like infinite ones"
BROKEN = "weight decay breaks the correspondence"
BEATEN = "kernel methods outperform fully connected finite networks"
DIAGONAL = "diagonal regularization of kernels acts similarly to early stopping"
#: keys of the claims that the page explains where they do not hold
ORDER, ADVANTAGE = "the linear model ranks the targets", "the network is not always better"
OVERFIT, PEAK = "where the network is worse, its kernel has become worse", "the kernel grows most along its target"
AFTER, GROWS = "the trained kernel foretells more", "the kernel aligns to its target"
NEARER, CENTRED = "centred ensembles come to the limit with width", "centring takes variance away"
DECAYED, FLOOR = (
    "weight decay keeps networks away from the limit",
    "plain ensembles miss the limit by their number alone",
)
KERNELS, EARLY = "the infinite network is the better one", "a ridge does what early stopping does"
CONTROL = "control: the limit of another depth"
#: of the targets and seeds; of the rank correlation
MOST, RANKS = 0.8, 0.9
#: the widest hard target of which a peak is asked for
HARDEST = 100


@dataclass(frozen=True)
class Runs:
    """Every run, by kind.

    Attributes:
        networks: one for each seed, with all targets.
        ensembles: of all widths.
        limit: infinite width.
        members: of an ensemble.
    """

    networks: list[Run]
    ensembles: list[Run]
    limit: Run
    members: int

    @classmethod
    def of(cls, results: Results) -> Runs:
        kinds: dict[str, list[Run]] = {"targets": [], "ensemble": [], "limit": []}
        for run in results.runs:
            kinds[run["kind"]].append(run)
        return cls(kinds["targets"], kinds["ensemble"], kinds["limit"][0], results.settings["members"])

    @property
    def modes(self) -> list[int]:
        return [target["mode"] for target in self.networks[0]["targets"]]

    @property
    def widths(self) -> list[int]:
        return sorted({run["width"] for run in self.ensembles})

    @property
    def targets(self) -> list[Target]:
        """Of all seeds."""
        return [target for run in self.networks for target in run["targets"]]

    def of_mode(self, mode: int) -> list[Target]:
        return [target for target in self.targets if target["mode"] == mode]

    def at(self, width: int) -> list[Run]:
        return [run for run in self.ensembles if run["width"] == width]

    def course(self, number: Callable[[Run], float]) -> Course:
        widths = [float(run["width"]) for run in self.ensembles]
        return Course(np.array(widths), np.array([number(run) for run in self.ensembles]))


def held_out(target: Target, learner: str) -> float:
    """Accuracy in percent."""
    return 100 * float(target[learner][1])


def ranks(run: Run) -> float:
    """Spearman's, over targets, of the network's accuracy and that of its linearisation."""
    pairs = [(held_out(target, "network"), held_out(target, "start")) for target in run["targets"]]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def peak(target: Target) -> int:
    """The i of the largest v_iᵀΘ_Tv_i/λ_i, from 1."""
    return 1 + int(np.argmax(target["along"]))


def place(target: Target) -> int:
    """How many of the modes from k/2 to 2k have a larger v_iᵀΘ_Tv_i/λ_i than k, plus 1."""
    mode, along = target["mode"], np.array(target["along"])
    return 1 + int(np.sum(along[mode // 2 - 1 : 2 * mode] > along[mode - 1]))


def departure(variant: str) -> Callable[[Run], float]:
    return lambda run: float(run[variant]["departure"])


def floor(runs: Runs, run: Run) -> float:
    """The squared departure of a plain ensemble over what its number leaves: the limit's variance over that number."""
    expected = runs.limit["variance"] / runs.members / runs.limit["size"] ** 2
    return float(run["plain"]["departure"] ** 2 / expected)


def linear_claims(runs: Runs) -> Iterator[Claim]:
    """The rows on harder targets."""
    yield _order(runs)
    yield _advantage(runs)
    yield _overfit(runs)
    yield _grows(runs)
    yield _peak(runs)
    yield _after(runs)


def infinite_claims(runs: Runs) -> Iterator[Claim]:
    """The rows on infinite width."""
    yield _nearer(runs)
    yield _centred(runs)
    yield _decayed(runs)
    yield _floor(runs)
    yield _kernels(runs)
    yield _early(runs)
    yield _control(runs)


def _by_mode(runs: Runs, tell: Callable[[list[Target]], object]) -> str:
    return "; ".join(f"k = {mode}: {tell(runs.of_mode(mode))}" for mode in runs.modes)


def _medians(targets: list[Target], *learners: str) -> str:
    return ", ".join(f"{np.median([held_out(target, learner) for target in targets]):.1f}" for learner in learners)


def _order(runs: Runs) -> Claim:
    found = [ranks(run) for run in runs.networks]
    return Claim(
        ORDER,
        RANKED,
        f"Spearman's correlation over targets of the network's accuracy and of its linearisation's is {RANKS} or more, in "
        "every seed",
        "read",
        f"{spread(found)}; accuracies of network, linearisation: {_by_mode(runs, lambda t: _medians(t, 'network', 'start'))} %",
        min(found) >= RANKS,
    )


def _advantage(runs: Runs) -> Claim:
    behind = [m for m in runs.modes if np.median([t["network"][1] - t["start"][1] for t in runs.of_mode(m)]) < 0]
    return Claim(
        ADVANTAGE,
        NOT_ALWAYS,
        "on some target the median accuracy of the network is below that of its linearisation at θ_0",
        "read",
        f"below for k = {', '.join(map(str, behind)) or 'none'} of {', '.join(map(str, runs.modes))}",
        bool(behind),
    )


def _overfit(runs: Runs) -> Claim:
    worse = [t for t in runs.targets if t["network"][1] < t["start"][1]]
    too = [t for t in worse if t["trained"][1] < t["start"][1]]
    return Claim(
        OVERFIT,
        EVOLVED,
        f"of the targets and seeds in which the network is behind its linearisation at θ_0, that at θ_T is behind too in "
        f"{MOST:.0%}",
        "read",
        f"in {len(too)} of {len(worse)}",
        len(too) >= MOST * len(worse) if worse else None,
    )


def _grows(runs: Runs) -> Claim:
    found = [t["cosines"][1][0] / t["cosines"][0][0] for t in runs.targets]
    beyond = [t["cosines"][1][1] / t["cosines"][0][1] for t in runs.targets]
    return Claim(
        GROWS,
        "",
        "yᵀΘy/(‖y‖²‖Θ‖) on training points is larger after training, for every target and seed",
        "read",
        f"× {spread(found, of='targets and seeds')}; on held-out points × {spread(beyond, of='targets and seeds')}",
        None,
    )


def _peak(runs: Runs) -> Claim:
    asked = [target for target in runs.targets if target["mode"] <= HARDEST]
    hit = [target for target in asked if peak(target) == target["mode"]]
    return Claim(
        PEAK,
        "",
        f"v_iᵀΘ_Tv_i/λ_i is largest at i = k, for k ≤ {HARDEST}, in every seed",
        "read",
        f"in {len(hit)} of {len(asked)}; of the modes from k/2 to 2k, k comes in place "
        + _by_mode(runs, lambda t: f"{np.median([place(one) for one in t]):.0f}"),
        None,
    )


def _after(runs: Runs) -> Claim:
    asked = [target for target in runs.targets if target["mode"] >= 10]
    better = [target for target in asked if target["trained"][1] > target["start"][1]]
    return Claim(
        AFTER,
        "",
        "the linearisation at θ_T is more accurate than that at θ_0, for k ≥ 10 and in every seed",
        "read",
        f"in {len(better)} of {len(asked)}; accuracies at θ_T, after training on another target: "
        f"{_by_mode(runs, lambda t: _medians(t, 'trained', 'foreign'))} %",
        None,
    )


def _nearer(runs: Runs) -> Claim:
    course = runs.course(departure("centred"))
    return Claim(
        NEARER,
        CENTERED,
        f"‖mean of {runs.members} − limit‖/‖limit‖ falls with width: the slope's 95 % interval is below −0.3",
        "derived",
        str(course).replace("seeds", "ensembles"),
        course.interval[1] < -0.3,
    )


def _centred(runs: Runs) -> Claim:
    found = {w: [run["centred"]["variance"] / run["plain"]["variance"] for run in runs.at(w)] for w in runs.widths}
    return Claim(
        CENTRED,
        CENTERED,
        "variance over seeds of centred networks is below that of plain ones, in every ensemble",
        "read",
        "; ".join(f"{width}: × {spread(values, of='ensembles')}" for width, values in found.items()),
        max(map(max, found.values())) < 1,
    )


def _decayed(runs: Runs) -> Claim:
    course, widest = runs.course(departure("decayed")), runs.at(runs.widths[-1])
    beside = [run["decayed"]["departure"] / run["centred"]["departure"] for run in widest]
    return Claim(
        DECAYED,
        BROKEN,
        "with it the departure falls by less than half over all widths, and at the largest it is at least twice that of centred "
        "ensembles",
        "read",
        f"{course}; × {spread(beside, of='ensembles')} at {runs.widths[-1]:,}".replace("seeds", "ensembles"),
        bool(course.medians[-1] > course.medians[0] / 2) and min(beside) >= 2,
    )


def _floor(runs: Runs) -> Claim:
    found = {width: [floor(runs, run) for run in runs.at(width)] for width in runs.widths}
    return Claim(
        FLOOR,
        "",
        f"width {runs.widths[-1]:,}: the squared departure of a plain ensemble is the limit's variance over {runs.members}, "
        "within a factor of 2",
        "derived",
        "; ".join(f"{width}: × {spread(values, of='ensembles')}" for width, values in found.items()),
        all(0.5 <= value <= 2 for value in found[runs.widths[-1]]),
    )


def _kernels(runs: Runs) -> Claim:
    own = runs.limit["accuracies"]
    found = {
        variant: {
            w: 100 * float(np.median([a for run in runs.at(w) for a in run[variant]["accuracies"]]))
            for w in runs.widths
        }
        for variant in ("plain", "centred")
    }
    told = {v: ", ".join(f"{value:.1f} at {w}" for w, value in values.items()) for v, values in found.items()}
    return Claim(
        KERNELS,
        BEATEN,
        "accuracy of Θ_∞ after as many updates is above the median of plain networks at every width",
        "read",
        f"{', '.join(f'{name}: {100 * value:.1f}' for name, value in own.items())} %; plain networks {told['plain']}; centred "
        f"{told['centred']} %",
        100 * own["Θ_∞, as long"] > max(found["plain"].values()),
    )


def _early(runs: Runs) -> Claim:
    limit = runs.limit
    told = [(k, a, b) for k, a, b in zip(limit["moments"], limit["ridge"], limit["end"], strict=True)]
    until = [(a, b) for k, a, b in told if k <= limit["updates"]]
    return Claim(
        EARLY,
        DIAGONAL,
        "ridge regression with γ = N/(ηk) is nearer to k updates than training to the end is, for k up to the networks' own",
        "read",
        "; ".join(f"k = {k}: {a:.2g} against {b:.2g}" for k, a, b in told),
        all(a < b for a, b in until),
    )


def _control(runs: Runs) -> Claim:
    found = [run["centred"]["foreign"] / run["centred"]["departure"] for run in runs.at(runs.widths[-1])]
    return Claim(
        CONTROL,
        "",
        f"one layer fewer, trained as long: at width {runs.widths[-1]:,} centred ensembles are farther from it by 1.5 times, each",
        "derived",
        f"× {spread(found, of='ensembles')}",
        min(found) >= 1.5,
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why; of those only read as well."""
    if refuted & {ORDER, OVERFIT}:
        told = _by_mode(runs, lambda t: _medians(t, "network", "start", "trained", "foreign"))
        yield f"{', '.join(sorted(refuted & {ORDER, OVERFIT}))}: accuracies of network, θ_0, θ_T, θ_T of another target: {told} %."
    if any(peak(t) != t["mode"] for t in runs.targets if t["mode"] <= HARDEST):
        yield (
            f"{PEAK}: weak modes grow more, whatever was trained: a turn that takes little from λ_1 is much for them. Growth at k, "
            f"and the largest: {_by_mode(runs, _growth)}."
        )
    if any(t["trained"][1] <= t["start"][1] for t in runs.targets if t["mode"] >= 10):
        yield (
            f"{AFTER}: the kernel turned to the labels that it saw. Its alignment, times that of the start, on training points "
            f"and on held-out ones: {_by_mode(runs, _aligned)}."
        )
    numbers: dict[str, tuple[str, Callable[[Run], float]]] = {
        NEARER: ("the departure of centred ensembles", departure("centred")),
        CENTRED: ("the variance of centred networks", lambda run: float(run["centred"]["variance"])),
        DECAYED: ("the departure of decayed ensembles", departure("decayed")),
        FLOOR: (
            "variance over seeds of plain networks over the limit's",
            lambda run: run["plain"]["variance"] / runs.limit["variance"],
        ),
        KERNELS: ("accuracy of plain ensembles", lambda run: float(run["plain"]["accuracy"])),
        CONTROL: ("the departure from the other limit", lambda run: float(run["centred"]["foreign"])),
    }
    for key, (name, number) in numbers.items():
        if key in refuted:
            over = " → ".join(f"{np.median([number(run) for run in runs.at(w)]):.3g}" for w in runs.widths)
            yield f"{key}. Medians at widths {', '.join(map(str, runs.widths))} of {name}: {over}."
    if EARLY in refuted:
        yield f"{EARLY}: a ridge leaves λ/(λ + γ) of a mode, time 1 − (1 − ηλ/N)^k: more of strong modes, less of weak ones."


def _growth(targets: list[Target]) -> str:
    own, largest = [t["along"][t["mode"] - 1] for t in targets], [max(t["along"]) for t in targets]
    return f"{np.median(own):.2f} of {np.median(largest):.2f} at {np.median([peak(t) for t in targets]):.0f}"


def _aligned(targets: list[Target]) -> str:
    ratios = np.array([np.divide(*t["cosines"][::-1]) for t in targets])
    return ", ".join(f"{value:.2f}" for value in np.median(ratios, axis=0))
