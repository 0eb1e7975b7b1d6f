"""What real networks should do beside their linearisations, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from claims import Claim, spread
from course import Number, Run, Sweep

FINITE = "networks of usual width are well above their linearisations (2006.13645)"
WIDTH = "linearisations gain much from width, networks little (2006.13645)"
HARDER = "the harder the task, the larger the gap (2006.13645)"
LIMITS = "the limit does not describe large networks in practice (2310.00137)"
#: keys of the claims that the page explains where they do not hold
ABOVE, SHRINKS, ORDER = (
    "the network is above its linearisation",
    "the gap shrinks with width",
    "harder tasks, larger gaps",
)
UNSTABLE, DRIFT, ANCHORED = (
    "the Jacobian is not stable",
    "the wider, the less the kernel moves",
    "the wider, the more linear",
)
CHANCE = "control: labels without a rule"
#: width multiplier of the network as it is used
USUAL = 1.0
#: tasks of growing difficulty
TASKS = ("pair", "ten", "permuted")
#: of a kind of run that decides; with fewer, numbers stand in the table and decide nothing
SEEDS = 3
#: standard errors beyond which chance is refuted
FAR = 4.0


class Runs(Sweep):
    """Every run."""

    along = "multiplier"

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Network and task, but for the control and the tasks that are there for their difficulty."""
        found = dict.fromkeys((run["network"], run["task"]) for run in self.all)
        return [(network, task) for network, task in found if task in ("ten", "patches")]

    @property
    def repeated(self) -> list[tuple[str, str]]:
        """Those of at least :data:`SEEDS` seeds, which decide; all, where none has so many."""
        return [kind for kind in self.kinds if len(self.seeds(*kind)) >= SEEDS] or self.kinds

    def seeds(self, network: str, task: str) -> list[int]:
        return self.distinct("seed", network=network, task=task)

    def usual(self, **wanted: object) -> list[Run]:
        """At c = 1; at the largest c where there is no 1."""
        widths = self.widths_of(**wanted)
        return self.some(multiplier=USUAL if USUAL in widths else widths[-1], **wanted)


def gap(run: Run) -> float:
    """A_net − A_lin on unseen images, in percentage points."""
    return 100 * float(run["net"]["unseen"] - run["lin"]["unseen"])


def right(who: str, run: Run) -> float:
    """In percent of the unseen images."""
    return 100 * float(run[who]["unseen"])


def seen(who: str, run: Run) -> float:
    """In percent of the training images."""
    return 100 * float(run[who]["seen"])


def change(run: Run) -> float:
    """‖ΔΘ‖/‖Θ‖."""
    return float(run["change"])


def stability(run: Run) -> float:
    """C'."""
    return float(run["stability"])


def anchored(run: Run) -> float:
    """‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖²."""
    return float(run["anchored"])


def claims(runs: Runs, test: int) -> Iterator[Claim]:
    """The rows of the page; ``test`` unseen images."""
    yield _above(runs)
    yield _shrinks(runs)
    yield _order(runs)
    yield _unstable(runs)
    yield _falls(runs, DRIFT, "‖ΔΘ‖/‖Θ‖", change)
    yield _falls(runs, ANCHORED, "the error of f_lin at the network's own θ_T", anchored)
    yield _features(runs)
    yield _chance(runs, test)


def _each(runs: Runs, tell: Callable[[str, str], object]) -> str:
    return "; ".join(f"{network}, {task}: {tell(network, task)}" for network, task in runs.kinds)


def beyond_twice_its_error(values: np.ndarray) -> bool:
    """Whether the mean is above two standard errors of itself."""
    return bool(values.mean() > 2 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else False


def _above(runs: Runs) -> Claim:
    found = {kind: np.array([gap(run) for run in runs.usual(network=kind[0], task=kind[1])]) for kind in runs.kinds}
    return Claim(
        ABOVE,
        FINITE,
        "A_net − A_lin on unseen images at c = 1 is above 0 by more than two standard errors, for each network of three seeds",
        "read",
        _each(runs, lambda network, task: f"{spread(found[network, task])} points"),
        all(beyond_twice_its_error(found[kind]) for kind in runs.repeated),
    )


def _shrinks(runs: Runs) -> Claim:
    trends = {kind: runs.trend(gap, network=kind[0], task=kind[1]) for kind in runs.repeated}

    def tell(network: str, task: str) -> str:
        over = _medians(runs, gap, network, task)
        return (
            f"{over}, {trends[network, task]}"
            if (network, task) in trends
            else f"{over} points ({_few(runs, network, task)})"
        )

    return Claim(
        SHRINKS,
        WIDTH,
        "the 95 % interval of the gap's slope over log c is below 0, for each network of three seeds",
        "read",
        _each(runs, tell),
        all(trend.interval[1] < 0 for trend in trends.values()),
    )


def _order(runs: Runs) -> Claim:
    there = [task for task in TASKS if runs.some(network="LeNet-5", task=task)]
    found = {task: [gap(run) for run in runs.usual(network="LeNet-5", task=task)] for task in there}
    means = [np.mean(values) for values in found.values()]
    return Claim(
        ORDER,
        HARDER,
        "mean gaps of LeNet-5 at c = 1: two digits below ten below ten with permuted pixels (the last is a guess)",
        "read",
        "; ".join(f"{task}: {spread(values)} points" for task, values in found.items()),
        bool(np.all(np.diff(means) > 0)) if len(there) == len(TASKS) else None,
    )


def _unstable(runs: Runs) -> Claim:
    found = {kind: [stability(run) for run in runs.usual(network=kind[0], task=kind[1])] for kind in runs.kinds}

    def tell(network: str, task: str) -> str:
        course = runs.course(stability, network=network, task=task)
        stable = f"; by the fitted line ½ at c = {course.reaches(0.5):,.0f}" if course.interval[1] < 0 else ""
        return f"{spread(found[network, task])}, {_course(runs, stability, network, task)}{stable}"

    return Claim(
        UNSTABLE,
        LIMITS,
        "C' ≥ ½ for every network at c = 1, in every seed: convergence by the theory's reason is refuted",
        "read",
        _each(runs, tell),
        all(min(values) >= 0.5 for values in found.values()),
    )


def _falls(runs: Runs, key: str, what: str, number: Number) -> Claim:
    courses = {kind: runs.course(number, network=kind[0], task=kind[1]) for kind in runs.kinds}
    return Claim(
        key,
        "",
        f"{what} falls with width: its slope over log c is below 0 (95 %), for each network of three seeds",
        "derived",
        _each(runs, lambda network, task: _course(runs, number, network, task)),
        all(courses[kind].interval[1] < 0 for kind in runs.repeated),
    )


def _features(runs: Runs) -> Claim:
    found = {
        kind: [100 * (run["regressed"][1] - run["regressed"][0]) for run in runs.usual(network=kind[0], task=kind[1])]
        for kind in runs.kinds
    }
    return Claim(
        "the kernel of the trained network is the better one",
        "",
        "kernel regression on unseen images, with Θ_T less with Θ_0, at c = 1 (2106.06770, of kernels after training)",
        "read",
        _each(runs, lambda network, task: f"{spread(found[network, task])} points"),
        None,
    )


def _chance(runs: Runs, test: int) -> Claim:
    found = [right(who, run) for run in runs.some(task="random") for who in ("net", "lin")]
    error = 100 * (0.1 * 0.9 / test) ** 0.5
    return Claim(
        CHANCE,
        "",
        f"labels drawn at random: both have a tenth of unseen images right, within {FAR:g} standard errors of counting",
        "derived",
        f"{spread(found, of='functions')} %, one standard error {error:.2g}",
        all(abs(value - 10) <= FAR * error for value in found),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    told: list[tuple[tuple[str, ...], str, Number]] = [
        ((ABOVE, SHRINKS, ORDER), "training images the network has right, in percent", partial(seen, "net")),
        ((ABOVE, SHRINKS, ORDER), "training images its linearisation has right, in percent", partial(seen, "lin")),
        ((UNSTABLE,), "C'", stability),
        ((DRIFT, ANCHORED), "‖ΔΘ‖/‖Θ‖", change),
        ((ANCHORED,), "f_lin's error at θ_T", anchored),
    ]
    kinds = dict.fromkeys((run["network"], run["task"]) for run in runs.all if run["task"] != "random")
    for keys, name, number in told:
        if not refuted.isdisjoint(keys):
            over = "; ".join(f"{network}, {task}: {_medians(runs, number, network, task)}" for network, task in kinds)
            yield f"{', '.join(key for key in keys if key in refuted)}. Medians over growing c of {name}: {over}."
    yield from (_undecided(runs, key, slope) for key, slope in _slopes(runs).items() if key in refuted)


def _slopes(runs: Runs) -> dict[str, Callable[[str, str], tuple[float, float]]]:
    """The 95 % interval of a network's slope, by the claim that it decides."""
    return {
        SHRINKS: lambda network, task: runs.trend(gap, network=network, task=task).interval,
        DRIFT: lambda network, task: runs.course(change, network=network, task=task).interval,
        ANCHORED: lambda network, task: runs.course(anchored, network=network, task=task).interval,
    }


def _undecided(runs: Runs, key: str, interval: Callable[[str, str], tuple[float, float]]) -> str:
    """Which networks refute the claim, and of which the runs are too few to tell."""
    found = {", ".join(kind): interval(*kind) for kind in runs.repeated}
    rising = "; ".join(name for name, (low, _) in found.items() if low > 0)
    unclear = "; ".join(name for name, (low, high) in found.items() if low <= 0 <= high)
    told = [f"{rising}: it rises."] if rising else []
    told += [f"{unclear}: the interval holds 0, so these runs tell neither a fall nor none."] if unclear else []
    return f"{key}. {' '.join(told)}"


def _course(runs: Runs, number: Number, network: str, task: str) -> str:
    """With its slope; medians alone where too few seeds say nothing of that."""
    if (network, task) in runs.repeated:
        return str(runs.course(number, network=network, task=task))
    return f"{_medians(runs, number, network, task)} ({_few(runs, network, task)})"


def _few(runs: Runs, network: str, task: str) -> str:
    count = len(runs.seeds(network, task))
    return f"{count} seed{'s' if count > 1 else ''}"


def _medians(runs: Runs, number: Number, network: str, task: str) -> str:
    return " → ".join(f"{v:.3g}" for v in np.median(runs.table(number, network=network, task=task), axis=0))
