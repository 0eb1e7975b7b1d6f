"""What the last layer's kernel should do in the place of the tangent kernel, each claim beside what the runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from claims import Claim, spread
from course import Sweep

Moment = dict[str, Any]

SURROGATE = "the conjugate kernel is only marginally worse than the tangent kernel, sometimes better"
REGULARITY = "the kernels' regularity decides"
EDGE = "the tangent kernel has an edge at initialisation in under-parametrised networks, none after training (another abstract)"
#: keys of the claims that the page explains where they do not hold
MARGINAL = "after training the last layer's kernel does as well"
NARROW = "narrow networks: the tangent kernel's edge goes with training"
SMOOTHER = "the last layer's kernel is the smoother one"
GAIN = "the smoother the target, the more the smoother kernel gains"
PART, CONTROL = "K + 11ᵀ is a part of Θ", "control: only the readout trains"
#: worse by more is not "marginally"
FACTOR = 2.0
#: of the seeds
MOST = 0.8
#: of the largest eigenvalue: rounding
ROUNDING = 1e-12


class Runs(Sweep):
    """Every run."""

    @property
    def tasks(self) -> list[str]:
        return self.distinct("task")

    def values(self, number: Callable[[Moment], float], task: str, width: int, moment: int = -1) -> np.ndarray:
        """(seeds,) of one of the moments; the last, if none is named."""
        return np.array([number(run["moments"][moment]) for run in self.some(task=task, width=width)])

    @property
    def moments(self) -> list[Moment]:
        """Of all runs."""
        return [moment for run in self.all for moment in run["moments"]]


def ratio(moment: Moment) -> float:
    """The loss on held-out points of K + 11ᵀ over that of Θ."""
    return float(moment["K + 1"]["loss"] / moment["Θ"]["loss"])


def steeper(moment: Moment) -> float | None:
    """The decay of K's eigenvalues less that of Θ's; None where one of them is not known."""
    a, b = moment["K"]["exponent"], moment["Θ"]["exponent"]
    return None if a is None or b is None else float(a - b)


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _marginal(runs)
    yield _narrow(runs)
    yield _smoother(runs)
    yield _gain(runs)
    yield _part(runs)
    yield _control(runs)


def _each(runs: Runs, tell: Callable[[str], object]) -> str:
    return "; ".join(f"{task}: {tell(task)}" for task in runs.tasks)


def _marginal(runs: Runs) -> Claim:
    width = runs.widths[-1]
    found = {task: runs.values(ratio, task, width) for task in runs.tasks}
    medians = [float(np.median(values)) for values in found.values()]
    return Claim(
        MARGINAL,
        SURROGATE,
        f"loss on held-out points of K + 11ᵀ over that of Θ, width {width}: the median over seeds is at most {FACTOR:g} on every "
        "task, and below 1 on some",
        "read",
        _each(runs, lambda task: spread(found[task])),
        max(medians) <= FACTOR and min(medians) < 1,
    )


def _fell(runs: Runs, task: str) -> np.ndarray:
    """(seeds,) Whether the ratio is smaller at the end, in the narrowest networks."""
    start, end = (runs.values(ratio, task, runs.widths[0], moment) for moment in (0, -1))
    return np.asarray(start > end)


def _narrow(runs: Runs) -> Claim:
    width = runs.widths[0]

    def tell(task: str) -> str:
        start, end = (np.median(runs.values(ratio, task, width, moment)) for moment in (0, -1))
        fell = _fell(runs, task)
        return f"{start:.3g} → {end:.3g}, smaller in {fell.sum()} of {fell.size}"

    return Claim(
        NARROW,
        EDGE,
        f"the same ratio at width {width} is smaller at the end than at the start, in {MOST:.0%} of seeds on every task",
        "read",
        _each(runs, tell),
        all(_fell(runs, task).mean() >= MOST for task in runs.tasks),
    )


def _smoother(runs: Runs) -> Claim:
    width = runs.widths[-1]
    found = [steeper(m) for run in runs.all if run["width"] == width for m in run["moments"]]
    known = [value for value in found if value is not None]
    return Claim(
        SMOOTHER,
        REGULARITY,
        f"with λ_i ∝ i^−a, a is larger for K than for Θ in every run and moment at width {width} in which both can be read",
        "derived",
        f"larger by {spread(known, of='moments')}; not to be read in {len(found) - len(known)}"
        if known
        else "not to be read",
        min(known) > 0 if known else None,
    )


def _powers(runs: Runs) -> list[str]:
    return [task for task in runs.tasks if task.startswith("|x|")]


def _gain(runs: Runs) -> Claim:
    width, powers = runs.widths[-1], _powers(runs)
    found = {task: runs.values(ratio, task, width, 0) for task in powers}
    rough, smooth = found[powers[0]], found[powers[-1]]
    fell = np.asarray(smooth < rough)
    return Claim(
        GAIN,
        REGULARITY,
        f"at the start, width {width}, where neither kernel knows the target: the ratio is smaller for {powers[-1]} than for "
        f"{powers[0]} with the same points and network, in {MOST:.0%} of seeds (interpolation by a kernel of smoothness τ gains "
        "from a target's smoothness up to 2τ)",
        "derived",
        "; ".join(f"{task}: {spread(values)}" for task, values in found.items())
        + f"; smaller in {fell.sum()} of {fell.size}, by {spread(1 - smooth / rough)} of itself",
        bool(fell.mean() >= MOST) if len(powers) > 1 else None,
    )


def _part(runs: Runs) -> Claim:
    least = min(moment["least"] for moment in runs.moments)
    return Claim(
        PART,
        "",
        f"no eigenvalue of Θ − K − 11ᵀ is below −{ROUNDING:g} of its largest",
        "derived",
        f"the least is {least:.1e} of the largest, over {len(runs.moments)} moments",
        least >= -ROUNDING,
    )


def _control(runs: Runs) -> Claim:
    found = [run["readout"] / run["moments"][-1]["K + 1"]["loss"] for run in runs.all]
    return Claim(
        CONTROL,
        "",
        "the tangent kernel of the readout's parameters alone has the loss of K + 11ᵀ, to 1 %",
        "derived",
        f"ratio {spread(found, 6, of='runs')}",
        all(abs(value - 1) <= 0.01 for value in found),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    if MARGINAL in refuted:
        told = _each(
            runs, lambda task: _course(runs, lambda m: float(m["network"] / m["Θ"]["loss"]), task, runs.widths[-1])
        )
        yield (
            f"{MARGINAL}: the ratio at the moments, {_each(runs, lambda t: _course(runs, ratio, t, runs.widths[-1]))}. "
            f"The network's own loss over that of Θ: {told}."
        )
    if NARROW in refuted:
        narrow = _each(runs, lambda task: _course(runs, ratio, task, runs.widths[0]))
        ranks = _each(runs, lambda task: _course(runs, lambda m: float(m["K + 1"]["rank"]), task, runs.widths[0]))
        yield f"{NARROW}: the ratio at the moments, {narrow}; modes of K + 11ᵀ above rounding, {ranks}."
    if SMOOTHER in refuted:
        width = runs.widths[-1]
        told = _each(
            runs,
            lambda t: [
                v and round(v, 2) for v in (steeper(run["moments"][0]) for run in runs.some(task=t, width=width))
            ],
        )
        yield f"{SMOOTHER}: the difference at the start, {told}."
    if GAIN in refuted:
        width = runs.widths[-1]
        losses = {
            kind: "; ".join(
                f"{task} {np.median(runs.values(lambda m, k=kind: float(m[k]['loss']), task, width, 0)):.2g}"  # type: ignore[misc]
                for task in _powers(runs)
            )
            for kind in ("K + 1", "Θ")
        }
        yield (
            f"{GAIN}: losses at the start, K + 11ᵀ {losses['K + 1']}; Θ {losses['Θ']}. sin 2πx, which is in all three, is smooth: "
            "where its part of the error decides, the kink at 0 does not."
        )


def _course(runs: Runs, number: Callable[[Moment], float], task: str, width: int) -> str:
    """Medians over seeds, from moment to moment."""
    count = len(runs.all[0]["moments"])
    return " → ".join(f"{np.median(runs.values(number, task, width, moment)):.3g}" for moment in range(count))
