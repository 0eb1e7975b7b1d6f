"""What a network with biased gates should do, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from claims import Claim, spread
from course import Number, Run, Sweep

SPARSE = "sparse activation throughout the training"
FAST = "as fast convergence as the dense network"
LIMITING = "a different limiting kernel, the bias-generalised NTK"
#: keys of the claims that the page explains where they do not hold
SPARSELY, CONVERGES = "gates stay closed", "the sparse network learns as fast"
START, LIMIT = "at the start a share Φ(−B) is open", "wide networks have the closed form's kernel"
EIGENVALUE = "λ_min falls more slowly than the share of open gates"
FORETOLD, CONTROL = "the kernel at the start foretells the late rate", "control: the dense kernel foretells another"
#: of the open gates at the start: more would not be sparse
TIMES = 2.0
#: more updates than the dense network by this factor would be slower
SLOWER = 1.2
#: of the fall of ln loss
NEAR = 0.2
#: standard errors
ERRORS = 4.0


class Runs(Sweep):
    """Every run."""

    @property
    def biases(self) -> list[float]:
        return sorted(self.distinct("bias"))

    @property
    def biased(self) -> list[float]:
        """Those above 0."""
        return [bias for bias in self.biases if bias > 0]

    def widest(self, bias: float) -> list[Run]:
        return self.some(bias=bias, width=self.widths[-1])

    def values(self, number: Number, **wanted: object) -> list[float]:
        return [number(run) for run in self.some(**wanted)]


def departure(run: Run) -> float:
    """‖Θ_0 − H‖_F/‖H‖_F."""
    return float(run["departure"])


def most_open(run: Run) -> float:
    """The largest share of open gates at any snapshot, over Φ(−B)."""
    return float(max(run["open"]) / run["chance"])


def off_chance(run: Run) -> float:
    """The share at the start less Φ(−B), in standard errors of m independent gates."""
    chance = run["chance"]
    return float((run["open"][0] - chance) / np.sqrt(chance * (1 - chance) / run["width"]))


def slowness(runs: Runs, run: Run) -> float:
    """Updates over those of the network with B = 0, of the same width and seed."""
    (dense,) = runs.some(bias=0.0, width=run["width"], seed=run["seed"])
    return float(run["updates"] / dense["updates"])


def late(run: Run, kernel: int = 0) -> float:
    """By what ln loss fell over the second half of the updates, over what a kernel foretells: Θ_0 (0), H (1), H of B = 0 (2).

    NaN where Θ_0 foretells that the level is never reached.
    """
    return float("nan") if run["foretold"] is None else float(run["fall"] / run["falls"][kernel])


def condition(run: Run) -> float:
    """λ_1/λ_min of Θ_0; NaN where λ_min is 0 but for rounding."""
    ratio = run["least"][0] / run["largest"][0]
    return float(1 / ratio) if ratio > 1e-12 else float("nan")


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _sparse(runs)
    yield _start(runs)
    yield _fast(runs)
    yield _limit(runs)
    yield _eigenvalue(runs)
    yield _foretold(runs)
    yield _control(runs)


def _each(biases: list[float], tell: Callable[[float], object]) -> str:
    return "; ".join(f"B = {bias:g}: {tell(bias)}" for bias in biases)


def _sparse(runs: Runs) -> Claim:
    return Claim(
        SPARSELY,
        SPARSE,
        f"at every snapshot of every run with B > 0 at most {TIMES:g}Φ(−B) of the gates are open",
        "read",
        "largest share over Φ(−B), " + _each(runs.biased, lambda b: spread(runs.values(most_open, bias=b), of="runs")),
        max(most_open(run) for b in runs.biased for run in runs.some(bias=b)) <= TIMES,
    )


def _start(runs: Runs) -> Claim:
    found = [off_chance(run) for run in runs.all]
    return Claim(
        START,
        "",
        f"within {ERRORS:g} standard errors of m independent gates, in every run",
        "derived",
        f"off by {min(found):.2f} to {max(found):.2f} standard errors over {len(found)} runs".replace("-", "−"),
        max(abs(value) for value in found) <= ERRORS,
    )


def _fast(runs: Runs) -> Claim:
    found = {bias: [slowness(runs, run) for run in runs.widest(bias)] for bias in runs.biased}
    return Claim(
        CONVERGES,
        FAST,
        f"each at η = N/λ₁ of its own kernel, width {runs.widths[-1]:,}: at most {SLOWER:g} times as many updates to the same "
        "share of the first loss, in every seed",
        "read",
        "updates over those of B = 0, " + _each(runs.biased, lambda bias: spread(found[bias])),
        all(run["reached"] for b in runs.biases for run in runs.widest(b)) and max(map(max, found.values())) <= SLOWER,
    )


def _limit(runs: Runs) -> Claim:
    courses = {bias: runs.course(departure, bias=bias) for bias in runs.biases}
    return Claim(
        LIMIT,
        LIMITING,
        "‖Θ_0 − H‖/‖H‖ falls as m^−½: the slope's 95 % interval, widened by 0.1, holds −½ for each B",
        "derived",
        _each(runs.biases, lambda bias: courses[bias]),
        all(course.agrees(-0.5) for course in courses.values()),
    )


def _kept(runs: Runs, bias: float, kernel: int) -> float:
    """λ_min over that of B = 0, at the largest width: of Θ_0 (0, the median over seeds) or of H (1)."""
    least = [np.median([run["least"][kernel] for run in runs.widest(b)]) for b in (bias, 0.0)]
    return float(least[0] / least[1])


def _eigenvalue(runs: Runs) -> Claim:
    shares = {bias: runs.some(bias=bias)[0]["chance"] / 0.5 for bias in runs.biased}
    return Claim(
        EIGENVALUE,
        "a sharper bound of the least eigenvalue in a region of data",
        "the closed form's λ_min(B)/λ_min(0) is above Φ(−B)/Φ(0): points that share fewer open gates are more alike to nothing",
        "derived",
        _each(
            runs.biased,
            lambda b: (
                f"{_kept(runs, b, 1):.3g} against {shares[b]:.3g} (Θ_0 at {runs.widths[-1]:,}: {_kept(runs, b, 0):.3g})"
            ),
        ),
        all(_kept(runs, bias, 1) > share for bias, share in shares.items()),
    )


def _foretold(runs: Runs) -> Claim:
    found = {bias: [late(run) for run in runs.widest(bias)] for bias in runs.biases}
    return Claim(
        FORETOLD,
        "",
        f"width {runs.widths[-1]:,}: over the second half of the updates ln loss falls by what the fixed kernel Θ_0 says, within "
        f"{NEAR:.0%}, in every seed",
        "derived",
        "measured over foretold, " + _each(runs.biases, lambda bias: spread(found[bias])),
        all(abs(value - 1) <= NEAR for values in found.values() for value in values),
    )


def _control(runs: Runs) -> Claim:
    bias = runs.biases[-1]
    found = [late(run, 2) for run in runs.widest(bias)]
    return Claim(
        CONTROL,
        "",
        f"the closed form of B = 0 is off by more than {NEAR:.0%} on the networks of B = {bias:g}, in every seed",
        "derived",
        f"measured over foretold {spread(found)}",
        all(abs(value - 1) > NEAR for value in found),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    told: dict[str, tuple[str, Number]] = {
        SPARSELY: ("largest share of open gates over Φ(−B)", most_open),
        START: ("|share at the start less Φ(−B)|, in standard errors", lambda run: abs(off_chance(run))),
        CONVERGES: ("λ₁/λ_min of Θ_0, which sets how many updates η = N/λ₁ needs", condition),
        LIMIT: ("‖Θ_0 − H‖/‖H‖", departure),
        EIGENVALUE: ("λ_min(Θ_0)", lambda run: float(run["least"][0])),
        FORETOLD: ("fall of ln loss over the second half, measured over foretold", late),
    }
    for key in (key for key in told if key in refuted):
        name, number = told[key]
        over = _each(runs.biases, lambda bias, of=number: _over_widths(runs, of, bias))  # type: ignore[misc]
        flips = _each(runs.biases, lambda bias: _over_widths(runs, lambda run: float(run["flipped"][-1]), bias))
        more = f" Gates that flipped by the end: {flips}." if key in (SPARSELY, FORETOLD, LIMIT) else ""
        yield f"{key}. Medians at widths {', '.join(f'{w:,}' for w in runs.widths)} of {name}: {over}.{more}"


def _over_widths(runs: Runs, number: Number, bias: float) -> str:
    return " → ".join(middle(runs.values(number, bias=bias, width=width)) for width in runs.widths)


def middle(values: list[float]) -> str:
    """The median of what is known."""
    known = [value for value in values if np.isfinite(value)]
    return f"{np.median(known):.3g}" if known else "–"
