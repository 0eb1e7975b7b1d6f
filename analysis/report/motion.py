"""What consecutive states say of a run, in words: how fast the kernel turns, and what goes to and fro."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError

from ..derived import LEADING, oscillation, pair_numbers, title_of
from ..statements import Finding, Held, percent
from ..text import Table, count, number
from ..trajectory import Floats, Run
from .course import course
from .limits import AT_THE_EDGE

#: Triples of which a median is told: what comes into balance only then is out of it in a first one.
_FEW = 3
#: How many updates are the beginning of a run.
EARLY = 100


def turning(run: Run) -> Finding | None:
    """How fast the kernel turns, at one lag, against the beginning of the run."""
    if not run.has("kernel_angular_velocity"):
        return None
    omega = run.values("kernel_angular_velocity")
    rows = np.flatnonzero(run.taken & np.isfinite(omega))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    lags = np.unique(run.gaps[rows][np.isfinite(run.gaps[rows])])
    if len(lags) != 1:
        return None  # over several gaps it is no course
    late_rows = rows[-max(len(rows) // 3, 1) :]
    late = float(np.median(omega[late_rows]))
    early = rows[run.steps[rows] <= EARLY]
    when = f"over the last {count(max(len(rows) // 3, 1))} of {count(len(rows))} snapshots"
    against = ""
    if early.size and early[-1] != rows[-1] and late > 0 and (first := float(np.median(omega[early]))) > 0:
        times, word = (first / late, "slower") if first >= late else (late / first, "faster")
        against = f", ×{number(times, 2)} {word} than in the first {count(EARLY)} updates"
    return Finding(
        "Kernel turning",
        f"{number(1000 * late, 2)} mrad an update",
        f"The kernel turned by {number(1000 * late, 2)} mrad per update (median {when}, at a lag of "
        f"{count(int(lags[0]))}){against}.{_to_and_fro(run, late_rows)}",
        "0 for a kernel that stands still, or only changes its scale.",
        "angular-velocity",
        None,
        course(run, omega),
    )


def _to_and_fro(run: Run, rows: NDArray[np.intp]) -> str:
    """What must be said where the edge is reached while the kernel turns: there it returns with every second update."""
    if not run.has("stability_ratio"):
        return ""
    ratio = run.groups.both_phases(run.values("stability_ratio"))[run.steps >= run.steps[rows].min()]
    if not (ratio >= AT_THE_EDGE).any():
        return ""
    return " At the edge of stability much of that is to and fro: two states do not tell turning from oscillation."


def period(run: Run) -> Finding | None:
    """What alternates from one update to the next."""
    swings = {}
    for name, (mean, half) in pair_numbers(run).items():
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.abs(half / mean)
        if name in ("probe_loss", "trace", "kernel_target_alignment", "stability_ratio") and np.isfinite(share).any():
            swings[name] = share[np.isfinite(share)]
    if not swings:
        return None
    largest = max(swings, key=lambda name: float(np.median(swings[name])))
    swing = number(100 * float(np.median(swings[largest])), 2)
    groups, what, drift = "triples", f"went to and fro by {swing} % of its mean", ""
    if (run.groups.third < 0).any():
        groups, what = "pairs", f"differed by {swing} % of its mean to either side"
        drift = " A pair's half-difference holds half of an update's drift as well; triples (window=3) tell them apart."
    return Finding(
        "Period 2",
        f"{title_of(largest)} ± {swing} %",
        f"Over {_groups(len(swings[largest]), groups)} of consecutive states {title_of(largest)} {what} (median half-difference)."
        f"{drift}",
        "0 for what does not oscillate.",
        "",
    )


def _groups(number_of: int, name: str) -> str:
    return f"1 {name.removesuffix('s')}" if number_of == 1 else f"{count(number_of)} {name}"


def oscillating(run: Run) -> Finding | None:
    """What part of the loss is oscillation, and in which modes."""
    try:
        found = oscillation(run)
    except AnalysisError:
        return None  # no triples, or nothing that their outputs could be told in
    known = np.isfinite(found.share + found.leading)
    if not known.any():
        return None
    share, leading = float(np.median(found.share[known])), float(np.median(found.leading[known]))
    return Finding(
        "Oscillation",
        f"{number(100 * share, 2)} % of the loss",
        f"Over {_groups(int(known.sum()), 'triples')} of consecutive states {number(100 * share, 2)} % of the probe's loss is "
        f"oscillation of period 2 (median), and {percent(leading)} of that oscillation lies in the first {LEADING} modes."
        f"{_against_seen(run, found.excess, found.seen)}{_in_balance(run)}",
        f"{number(LEADING / run.dimension, 2)} of it would lie there in a random direction.",
        "oscillation",
        Held("chance", leading, LEADING / run.dimension),
        course(run, found.share, found.steps),
    )


def _against_seen(run: Run, predicted: Floats, seen: Floats) -> str:
    """What the losses at the three states show of that; nothing of squares, where both are one number by algebra."""
    if run.settings.get("loss") != "cross_entropy":
        return ""
    known = np.isfinite(predicted + seen) & (predicted > 0)
    if not known.any():
        return ""
    ratio = number(float(np.median(seen[known] / predicted[known])), 2)
    return f" The losses themselves show ×{ratio} of what ½ tr(SΣ) predicts."


def _in_balance(run: Run) -> str:
    """How the swing of the one mode at the edge stands to what would hold the sharpness still; "" where neither is known."""
    if not run.has("edge_swing", "edge_swing_predicted"):
        return ""
    seen, predicted = run.values("edge_swing"), run.values("edge_swing_predicted")
    known = np.isfinite(seen) & np.isfinite(predicted) & (predicted > 0) & run.taken
    if known.sum() < _FEW:
        return ""
    ratio = number(float(np.median(seen[known] / predicted[known])), 2)
    return (
        f" Along the one mode at the edge the square of the parameters' swing is ×{ratio} of that at which the sharpness would "
        f"stand still (median over {_groups(int(known.sum()), 'triples')})."
    )


def pairs_table(run: Run) -> Table | None:
    """Mean and half-difference of every scalar over the last pair, and its median swing; None without pairs."""
    numbers = pair_numbers(run)
    if not numbers:
        return None
    rows = []
    for name, (mean, half) in numbers.items():
        known = np.flatnonzero(np.isfinite(mean))
        with np.errstate(divide="ignore", invalid="ignore"):
            swing = np.abs(half / mean)[known]
        step, last = count(run.steps[run.groups.first[known[-1]]]), known[-1]
        middle = number(float(np.median(swing)), 2) if np.isfinite(swing).all() else "–"
        rows.append(
            [title_of(name), count(len(known)), step, number(float(mean[last])), number(float(half[last])), middle]
        )
    heads = [
        "number",
        "pairs",
        "last at step",
        "mean over both phases",
        "half-difference",
        "median |half-difference / mean|",
    ]
    note = (
        "What has period 2 is in the half-difference, second state less first; of a pair it holds half of an update's drift too, "
        "of a triple none."
    )
    return Table("Pairs of consecutive states", heads, rows, (note,))
