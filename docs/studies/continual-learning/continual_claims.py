"""What wide networks should forget, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from claims import Claim, spread
from continual_runs import forgetting
from course import Number, Run, Sweep, Trend

FORGET_LESS = "wide networks forget less (the paper's title)"
LIMITS = "the limit does not describe large networks in practice"
#: keys of the claims that the page explains where they do not hold
SHORT, ORDER = "trained shortly, the wider forget less", "control: the order of the rotations does not make it"
MOVES = "a switch sets the kernel in motion again"
LONG, ERROR, SAME = (
    "long training takes the gain away",
    "the kernel at the switch foretells what changes",
    "control: other images",
)
FALLS, LEARNED = "λ_1 of the first task falls where the next begins", "less is forgotten, not less learned"


class Runs(Sweep):
    """Every run."""

    @property
    def settings(self) -> list[str]:
        return self.distinct("setting")

    @property
    def controlled(self) -> list[str]:
        """The settings with the control of one rotation."""
        return self.distinct("setting", order="same")


def forgotten(run: Run) -> float:
    """F in percentage points."""
    return 100 * forgetting(np.array(run["accuracies"]))


def learned(run: Run) -> float:
    """(1/T) Σ a_jj in percent: what is right at the end of its own task."""
    return 100 * float(np.mean(np.diagonal(run["accuracies"])))


def jump(run: Run) -> float:
    """How much faster the kernel turns in a task's first epoch than in the last one before it: the median over switches."""
    return float(np.median(np.array(run["turns_after"]) / np.array(run["turns_before"])))


def drop(run: Run) -> float:
    """λ_1 after the second task over λ_1 after the first, on the first one's points."""
    return float(run["largest"][1] / run["largest"][0])


def first_error(run: Run) -> float:
    """‖predicted − real‖²/‖real‖² of the first task's outputs over the second task."""
    return float(run["errors"][0])


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _short(runs)
    yield _learned(runs)
    yield _long(runs)
    yield _reactivated(runs)
    yield _falls(runs)
    yield _foretold(runs)
    yield _same(runs)
    yield _shuffled(runs)


def _each(runs: Runs, tell: Callable[[str], object]) -> str:
    return "; ".join(f"{setting}: {tell(setting)}" for setting in runs.settings)


def _ends(table: np.ndarray) -> str:
    return f"{np.median(table[:, 0]):.3g} → {np.median(table[:, -1]):.3g}"


def _runs(values: list[float]) -> str:
    """Over widths as well as seeds."""
    return spread(values).replace("seeds", "runs")


def _short(runs: Runs) -> Claim:
    trends = {s: runs.trend(forgotten, setting=s, budget="short", order="turning") for s in runs.settings}
    return Claim(
        SHORT,
        FORGET_LESS,
        "the 95 % interval of F's slope over log width is below 0 in each parametrisation",
        "read",
        _each(
            runs,
            lambda s: (
                f"F {_ends(runs.table(forgotten, setting=s, budget='short', order='turning'))} points, {trends[s]}"
            ),
        ),
        all(trend.interval[1] < 0 for trend in trends.values()),
    )


def _learned(runs: Runs) -> Claim:
    tables = {s: runs.table(learned, setting=s, budget="short", order="turning") for s in runs.settings}
    return Claim(
        LEARNED,
        "",
        "who learns less has less to forget: right at the end of its own task is no less at the largest width than at the smallest",
        "derived",
        _each(runs, lambda s: f"{_ends(tables[s])} %"),
        all(bool((table[:, -1] >= table[:, 0]).all()) for table in tables.values()),
    )


def _long(runs: Runs) -> Claim:
    def both(setting: str) -> Trend:
        tables = [runs.table(forgotten, setting=setting, budget=b, order="turning") for b in ("short", "long")]
        return Trend.of(tables, runs.widths)

    trends = {s: both(s) for s in runs.settings}
    return Claim(
        LONG,
        LIMITS,
        "the slope of F, long less short, is above 0 with its 95 % interval, the same seeds in both",
        "read",
        _each(
            runs,
            lambda s: (
                f"F {_ends(runs.table(forgotten, setting=s, budget='long', order='turning'))} points, "
                f"difference {trends[s]}"
            ),
        ),
        all(trend.interval[0] > 0 for trend in trends.values()),
    )


def _reactivated(runs: Runs) -> Claim:
    largest = {
        s: [jump(run) for run in runs.some(setting=s, budget="long", order="turning", width=runs.widths[-1])]
        for s in runs.settings
    }
    return Claim(
        MOVES,
        "a task switch reactivates the kernel",
        "fitted, it stands: at the largest width it turns at least 5 times as fast in the first epoch after a switch as in the "
        "last one before, in every seed",
        "read",
        _each(runs, lambda s: f"{spread(largest[s])} times at width {runs.widths[-1]}"),
        all(min(found) >= 5 for found in largest.values()),
    )


def _falls(runs: Runs) -> Claim:
    shares = {s: [drop(run) for run in runs.some(setting=s, budget="long", order="turning")] for s in runs.settings}
    return Claim(
        FALLS,
        "a task switch reactivates the kernel",
        "after the second task it is below what it was after the first, in every run",
        "read",
        _each(runs, lambda s: f"× {_runs(shares[s])}, {sum(v < 1 for v in shares[s])} of {len(shares[s])} fall"),
        all(max(found) < 1 for found in shares.values()),
    )


def _foretold(runs: Runs) -> Claim:
    course = runs.course(first_error, setting="ntk", budget="short", order="turning")
    return Claim(
        ERROR,
        "",
        "NTK parametrisation, short: its relative squared error on the first task's outputs falls with width, slope below 0 (95 %)",
        "derived",
        f"{course}; long: {_ends(runs.table(first_error, setting='ntk', budget='long', order='turning'))}",
        course.interval[1] < 0,
    )


def _same(runs: Runs) -> Claim:
    found = {
        (s, b, o): [jump(run) for run in runs.some(setting=s, budget=b, order=o)]
        for s in runs.controlled
        for b in ("short", "long")
        for o in ("same", "turning")
    }
    kept = [
        max(found[s, b, "same"]) < 2 and np.median(found[s, b, "turning"]) > 2 * np.median(found[s, b, "same"])
        for s in runs.controlled
        for b in ("short", "long")
    ]
    return Claim(
        SAME,
        "",
        "a 'switch' to other images of the same rotation is none: the turning changes by less than × 2, "
        "and at a real switch by more than twice that",
        "derived",
        "; ".join(f"{s}, {b}, {o}: {_runs(values)}" for (s, b, o), values in found.items()),
        all(kept),
    )


def _shuffled(runs: Runs) -> Claim:
    trends = {s: runs.trend(forgotten, setting=s, budget="short", order="shuffled") for s in runs.settings}
    return Claim(
        ORDER,
        "",
        "in another order the short budget's slope has the same sign",
        "derived",
        _each(runs, lambda s: trends[s]),
        all(
            np.sign(trends[s].slope) == np.sign(runs.trend(forgotten, setting=s, budget="short", order="turning").slope)
            for s in runs.settings
        ),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    told: dict[str, tuple[str, Number]] = {
        SHORT: ("right at the end of its own task, in percent: what was hardly learned is hardly forgotten", learned),
        ORDER: (
            "F over learning, the share of what was learned that is forgotten",
            lambda run: forgotten(run) / learned(run),
        ),
        LEARNED: ("right at the end of its own task, in percent", learned),
        LONG: ("epochs a task: at the largest number allowed a task is left before it is learned", epochs),
        MOVES: (
            "the angle of the first epoch after a switch, in mrad",
            lambda run: float(np.median(run["turns_after"])),
        ),
        FALLS: ("λ_1 after the second task over that after the first", drop),
        ERROR: ("the prediction's error", first_error),
        SAME: (
            "the angle of the last epoch before a switch, in mrad",
            lambda run: float(np.median(run["turns_before"])),
        ),
    }
    for key in (key for key in told if key in refuted):
        name, number = told[key]
        kinds = dict.fromkeys(
            (run["setting"], run["budget"], run["order"]) for run in runs.all if run["order"] != "shuffled"
        )
        over = "; ".join(f"{', '.join(kind)}: {_over_widths(runs, number, kind)}" for kind in kinds)
        yield f"{key}. Medians at widths {', '.join(str(w) for w in runs.widths)} of {name}: {over}."


def epochs(run: Run) -> float:
    """A task."""
    return float(np.mean(run["epochs"]))


def _over_widths(runs: Runs, number: Number, kind: tuple[str, str, str]) -> str:
    setting, budget, order = kind
    table = runs.table(number, setting=setting, budget=budget, order=order)
    return " → ".join(f"{value:.3g}" for value in np.median(table, axis=0))
