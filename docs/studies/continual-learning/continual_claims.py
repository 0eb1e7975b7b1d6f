"""What wide networks should forget, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from claims import Claim, spread
from continual_runs import forgetting
from course import Run, Sweep, Trend

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
    """A reason for each claim that does not hold, and whether these runs bear it out."""
    told: dict[str, Callable[[Runs], str]] = {
        SHORT: _hardly_learned,
        ORDER: _hardly_learned,
        LONG: _left_early,
        MOVES: _new_images,
        SAME: _new_images,
        FALLS: _as_without_a_switch,
    }
    for reason in dict.fromkeys(told[key] for key in told if key in refuted):
        yield reason(runs)


def share_forgotten(run: Run) -> float:
    """F in percent of what was right at the end of its own task."""
    return 100 * forgotten(run) / learned(run)


def _hardly_learned(runs: Runs) -> str:
    trends = {
        (s, order): runs.trend(share_forgotten, setting=s, budget="short", order=order)
        for s in runs.settings
        for order in ("turning", "shuffled")
    }
    falls = [trend.interval[1] < 0 for trend in trends.values()]
    over = "; ".join(f"{', '.join(kind)}: {trend}" for kind, trend in trends.items())
    return (
        f"{SHORT}, and the order: what was hardly learned has little to forget. If that is why, F in percent of what was right at "
        f"the end of its own task falls with width. It does, with its 95 % interval, in {sum(falls)} of {len(falls)} cases: {over}."
    )


def _left_early(runs: Runs) -> str:
    limit = max(_longest(run) for run in runs.all)

    def trend(setting: str) -> tuple[list[int], Trend] | None:
        longest = runs.table(_longest, setting=setting, budget="long", order="turning").max(axis=0)
        learned_all = np.flatnonzero(longest < limit)
        if len(learned_all) < 2:
            return None
        widths = [runs.widths[place] for place in learned_all]
        tables = [runs.table(forgotten, setting=setting, budget=b, order="turning") for b in ("short", "long")]
        return widths, Trend.of([table[:, learned_all] for table in tables], widths)

    found = {s: known for s in runs.settings if (known := trend(s)) is not None}
    bear = sum(slope.interval[0] > 0 for _, slope in found.values())
    over = "; ".join(f"{s}, {', '.join(f'{w:,}' for w in widths)}: {slope}" for s, (widths, slope) in found.items())
    return (
        f"{LONG}: a width that is left at the largest number of epochs allowed, {limit:.0f}, has not learned its tasks. If that is "
        f"why, the difference is above 0 over the widths that learned all of them in every seed. It is, with its 95 % interval, in "
        f"{bear} of {len(found)} parametrisations with two such widths{f': {over}' if over else ''}."
    )


def _longest(run: Run) -> float:
    return float(max(run["epochs"]))


def after(run: Run) -> float:
    """Milliradians of the first epoch after a switch, the median over switches."""
    return float(np.median(run["turns_after"]))


def _new_images(runs: Runs) -> str:
    def tell(setting: str) -> str:
        turns = [runs.table(after, setting=setting, budget="long", order=order) for order in ("same", "turning")]
        right = runs.table(learned, setting=setting, budget="long", order="same")
        shares = " → ".join(f"{value:.2f}" for value in np.median(turns[0] / turns[1], axis=0))
        return (
            f"{setting}: switched to images of the same rotation it turns {shares} of what it turns at a real switch (medians at "
            f"widths {', '.join(f'{w:,}' for w in runs.widths)}); of unseen images "
            f"{' → '.join(f'{value:.0f}' for value in np.median(right, axis=0))} % are right then"
        )

    return (
        "a switch, and the control of other images: most of what happens at a switch is new images and not a new task. Images of "
        f"the same rotation are not fitted either. Long training, {'; '.join(tell(s) for s in runs.controlled)}."
    )


def _as_without_a_switch(runs: Runs) -> str:
    def tell(setting: str, order: str) -> str:
        table = runs.table(lambda run: 100 * abs(float(np.log(drop(run)))), setting=setting, budget="long", order=order)
        return " → ".join(f"{value:.2g}" for value in np.median(table, axis=0))

    both = "; ".join(
        f"{s}: {tell(s, 'turning')} % at a switch, {tell(s, 'same')} % without a new rotation" for s in runs.controlled
    )
    return (
        f"{FALLS}: it moves as little, and in no direction, where no rotation is new. Medians of |ln| of λ_1 after the second task "
        f"over that after the first, at widths {', '.join(f'{w:,}' for w in runs.widths)}, {both}."
    )


def epochs(run: Run) -> float:
    """A task."""
    return float(np.mean(run["epochs"]))
