"""What tuning should do in the kernel regime, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from claims import Claim, spread
from course import Sweep

Part = dict[str, Any]

#: keys of the claims that the page explains where they do not hold
HEAD, RANKS = (
    "the head alone is its own linearisation",
    "adapters see the kernel of the matrices, the better the higher their rank",
)
#: an error below this share is rounding of float32: (a few 1e-7)², times what cancels in f_T − f_0
ROUNDING = 1e-6


class Runs(Sweep):
    """Every run: a network of a seed, tuned in all ways at one rate."""

    @property
    def kinds(self) -> list[str]:
        return self.distinct("kind")

    @property
    def shares(self) -> list[float]:
        return sorted(self.distinct("share"))

    def parts(self, start: str, way: str, **wanted: object) -> list[Part]:
        """Of all runs that are wanted, seed by seed; at the largest rate, at which most reach the loss, where none is named."""
        wanted = {"share": self.shares[-1]} | wanted
        some = sorted(self.some(**wanted), key=lambda run: (run["kind"], run["seed"]))
        return [part for run in some for part in run["parts"] if (part["start"], part["way"]) == (start, way)]

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Start and way, in the order of the runs."""
        return list(dict.fromkeys((part["start"], part["way"]) for run in self.all for part in run["parts"]))

    @property
    def ranks(self) -> list[int]:
        return [int(rank) for rank in self.all[0]["cosines"]]


def anchored(part: Part) -> float:
    return float(part["anchored"])


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _head(runs)
    yield _ranks(runs)
    yield _order(
        runs,
        "tuning is nearer to its kernel than training from scratch",
        "error of f_lin at θ_T, at the larger rate: tuned in full below from scratch (2210.05643)",
        (("tuned", "full"), ("scratch", "full")),
    )
    if runs.parts("other words", "full"):
        yield _order(
            runs,
            "a read-out that fits keeps it near",
            "the same error: with the verdicts that the model knows below with two words that mean nothing of it (2210.05643)",
            (("tuned", "full"), ("other words", "full")),
        )
    yield _order(
        runs,
        "adapters leave it sooner than full tuning",
        f"the same error: full below rank {runs.ranks[0]}",
        (("tuned", "full"), ("tuned", f"rank {runs.ranks[0]}")),
    )
    if len(runs.shares) > 1:
        yield _rate(runs)


def _each(runs: Runs, tell: Callable[[str], str]) -> str:
    return "; ".join(f"{kind}: {tell(kind)}" for kind in runs.kinds)


def _head(runs: Runs) -> Claim:
    def found(kind: str) -> list[float]:
        return [anchored(part) for share in runs.shares for part in runs.parts("tuned", "head", kind=kind, share=share)]

    return Claim(
        HEAD,
        "",
        f"f is linear in the head: ‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖² is rounding, below {ROUNDING:g}, in every run",
        "derived",
        _each(runs, lambda kind: spread(found(kind), of="runs")),
        all(max(found(kind)) < ROUNDING for kind in runs.kinds),
    )


def _ranks(runs: Runs) -> Claim:
    ends = (runs.ranks[0], runs.ranks[-1])

    def found(kind: str, rank: int) -> list[float]:
        some = runs.some(kind=kind, share=runs.shares[0])
        return [run["cosines"][str(rank)] for run in some]

    return Claim(
        RANKS,
        "",
        "with B = 0 and A ~ N(0, 1/r) the adapters' kernel has the mean of the matrices' own and a variance that falls with r: its "
        "cosine with that is larger at the largest rank than at the smallest, in every seed",
        "derived",
        _each(runs, lambda kind: " → ".join(f"{spread(found(kind, rank))} at {rank}" for rank in runs.ranks)),
        all(high > low for kind in runs.kinds for low, high in zip(*(found(kind, rank) for rank in ends), strict=True)),
    )


def _order(runs: Runs, key: str, expected: str, ways: tuple[tuple[str, str], tuple[str, str]]) -> Claim:
    """Recalled or guessed, so that nothing is decided."""

    def tell(kind: str) -> str:
        near, far = ([anchored(part) for part in runs.parts(*way, kind=kind)] for way in ways)
        if not (near and far):
            return "–"
        below = sum(a < b for a, b in zip(near, far, strict=True))
        losses = (np.median([part["loss"] for part in runs.parts(*way, kind=kind)]) for way in ways)
        at = " and ".join(f"{loss:.2g}" for loss in losses)
        return f"{spread(near)} against {spread(far)}, below in {below} of {len(near)}, at losses of {at}"

    return Claim(key, "", expected, "recalled", _each(runs, tell), None)


def _rate(runs: Runs) -> Claim:
    def tell(kind: str) -> str:
        found = [[anchored(p) for p in runs.parts("tuned", "full", kind=kind, share=share)] for share in runs.shares]
        return " → ".join(f"{spread(values)} at {share:g}" for values, share in zip(found, runs.shares, strict=True))

    return Claim(
        "a larger rate leaves it sooner",
        "",
        "the same error of full tuning over η as a share of 2N/λ₁",
        "recalled",
        _each(runs, tell),
        None,
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    if HEAD in refuted:
        told = "; ".join(
            f"{kind}: {spread(np.abs([p['change'] for p in runs.parts('tuned', 'head', kind=kind)]))}"
            for kind in runs.kinds
        )
        yield f"{HEAD}. The kernel's own change, which should be 0: {told}."
    if RANKS in refuted:
        told = "; ".join(
            f"{run['kind']}, seed {run['seed']}: {' → '.join(f'{v:.3f}' for v in run['cosines'].values())}"
            for run in runs.all
            if run["share"] == runs.shares[0]
        )
        yield f"{RANKS}. One draw of A is far from its mean at rank 1: {told}."
