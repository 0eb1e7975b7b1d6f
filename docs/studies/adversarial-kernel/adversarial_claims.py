"""What a kernel should tell of adversarial examples, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from claims import Claim, spread
from course import Number, Run, Sweep
from scipy.stats import spearmanr

FREE = "NTKs generate adversarial examples in a training-free fashion, which transfer to finite-width networks in the lazy regime"
ROBUST = "robust features tend to correspond to the largest eigenvalues"
EARLIER = "adversarial training falls much earlier into the lazy regime"
TOP = "and has a much stronger bias to the top eigenspaces"
#: keys of the claims that the page explains where they do not hold
FOOLS, WIDER = "examples of the kernel fool the network", "the wider, the more they are the network's own"
LARGEST, USEFUL = "robust features are those of the largest eigenvalues", "useful features that are not robust"
LAZIER, HEAVIER = "adversarial training moves the kernel less", "adversarial training has the larger top share"
CONTROL, NOTHING = "control: the kernel on permuted labels", "control: random signs"
#: random signs fool so much at most
NONE = 0.05
#: Spearman's of the place among the modes and robustness
RANKS = -0.5


class Runs(Sweep):
    """Every run."""

    @property
    def with_features(self) -> list[Run]:
        return [run for run in self.all if run["features"]]

    def told(self, number: Number) -> str:
        """Spreads over seeds, width by width."""
        return "; ".join(f"{width}: {spread([number(run) for run in self.some(width=width)])}" for width in self.widths)


def fooled(kind: str, training: str = "standard") -> Number:
    """Of held-out points that are right, the share in percent that a shift makes wrong."""
    return lambda run: 100 * float(run[training]["fooled"][kind])


def alike(run: Run) -> float:
    """100 times the cosine of the gradients by x of kernel and network."""
    return 100 * float(run["standard"]["alike"])


def late(training: str) -> Number:
    """The median angle of the kernel in an epoch, over the last half of them, in mrad."""
    return lambda run: float(np.median(run[training]["turns"][len(run[training]["turns"]) // 2 :]))


def later(run: Run) -> float:
    """The kernel's motion late in adversarial training over that in standard training."""
    return late("adversarial")(run) / late("standard")(run)


def heavier(run: Run) -> float:
    """The share of Σλ² in ten modes at the end: adversarial less standard training, in percentage points."""
    return 100 * float(run["adversarial"]["top10"][-1] - run["standard"]["top10"][-1])


def ranks(run: Run) -> float:
    """Spearman's correlation of i and the robustness of feature i."""
    return float(spearmanr(np.arange(len(run["features"])), [robust for _, robust in run["features"]]).statistic)


def brittle(run: Run) -> list[int]:
    """The features, from 1, that are right on more than 60 % of points and, misled, on fewer than 50 %."""
    return [i + 1 for i, (useful, robust) in enumerate(run["features"]) if useful > 0.6 and robust < 0.5]


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _fools(runs)
    yield _wider(runs)
    yield _largest(runs)
    yield _useful(runs)
    yield _lazier(runs)
    yield _heavier(runs)
    yield _control(runs)
    yield _nothing(runs)


def _fools(runs: Runs) -> Claim:
    kernel, own = runs.table(fooled("kernel")), runs.table(fooled("own"))
    return Claim(
        FOOLS,
        FREE,
        "at every width and seed they fool at least half as many points as the network's own",
        "read",
        f"{runs.told(fooled('kernel'))} %; the network's own {runs.told(fooled('own'))} %",
        bool((kernel >= own / 2).all()),
    )


def _wider(runs: Runs) -> Claim:
    trend = runs.trend(alike)
    return Claim(
        WIDER,
        FREE,
        "the cosine of the gradients by x, of kernel and trained network, rises with width: the slope's 95 % interval is above 0",
        "derived",
        f"100 cos: {runs.told(alike)}; {trend}; share that is fooled: {runs.trend(fooled('kernel'))}",
        trend.interval[0] > 0,
    )


def _largest(runs: Runs) -> Claim:
    found = [ranks(run) for run in runs.with_features]
    return Claim(
        LARGEST,
        ROBUST,
        f"Spearman's correlation of i, from 1 to {len(runs.with_features[0]['features'])}, and the share of points on which "
        f"feature i is right though misled is below {RANKS:g}, in every seed".replace("-", "−"),
        "read",
        spread(found).replace("-", "−"),
        max(found) < RANKS,
    )


def _useful(runs: Runs) -> Claim:
    found = [brittle(run) for run in runs.with_features]
    return Claim(
        USEFUL,
        "the framework identifies non-robust yet useful features",
        "there is a feature that is right on more than 60 % of points and, misled, on fewer than 50 %, in every seed",
        "read",
        "; ".join(f"i = {', '.join(map(str, some)) or 'none'}" for some in found),
        all(found),
    )


def _lazier(runs: Runs) -> Claim:
    return Claim(
        LAZIER,
        EARLIER,
        "median angle of the kernel in an epoch, over the last half of them: smaller in adversarial training, at "
        "every width and seed",
        "read",
        f"adversarial over standard {runs.told(later)}",
        bool((runs.table(later) < 1).all()),
    )


def _heavier(runs: Runs) -> Claim:
    return Claim(
        HEAVIER,
        TOP,
        "the share of Σλ² in ten modes at the end is larger, at every width and seed",
        "read",
        f"difference in points {runs.told(heavier)}".replace("-", "−"),
        bool((runs.table(heavier) > 0).all()),
    )


def _control(runs: Runs) -> Claim:
    return Claim(
        CONTROL,
        "",
        "the same attack by a kernel that learned permuted labels fools less than half as many, at every width and seed",
        "derived",
        f"{runs.told(fooled('foreign'))} %",
        bool((runs.table(fooled("foreign")) < runs.table(fooled("kernel")) / 2).all()),
    )


def _nothing(runs: Runs) -> Claim:
    found = runs.table(fooled("random"))
    return Claim(
        NOTHING,
        "",
        f"shifts of the same size in random directions fool at most {NONE:.0%}",
        "derived",
        f"at most {found.max():.2g} % over {found.size} runs",
        bool((found <= 100 * NONE).all()),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    told: dict[str, list[tuple[str, Number]]] = {
        FOOLS: [("share fooled by the kernel's, in %", fooled("kernel")), ("by the network's own", fooled("own"))],
        WIDER: [
            ("100 cos of the gradients", alike),
            ("100 (1 − cos) of the kernel, start and end", lambda run: 100 * (1 - run["standard"]["cosines"][-1])),
        ],
        LAZIER: [
            ("the angle in the first epoch, standard", lambda run: float(run["standard"]["turns"][0])),
            ("adversarial", lambda run: float(run["adversarial"]["turns"][0])),
            ("in the last half, standard", late("standard")),
            ("adversarial", late("adversarial")),
        ],
        HEAVIER: [
            ("share in ten modes at the start, in %", lambda run: 100 * float(run["standard"]["top10"][0])),
            ("at the end, standard", lambda run: 100 * float(run["standard"]["top10"][-1])),
            ("adversarial", lambda run: 100 * float(run["adversarial"]["top10"][-1])),
        ],
        CONTROL: [("share fooled by the foreign kernel's, in %", fooled("foreign"))],
        NOTHING: [("share fooled by random signs, in %", fooled("random"))],
    }
    for key in (key for key in told if key in refuted):
        over = "; ".join(f"{name} {_medians(runs, number)}" for name, number in told[key])
        yield f"{key}. Medians at widths {', '.join(map(str, runs.widths))}: {over}."
    if refuted & {LARGEST, USEFUL}:
        shares = np.median([run["features"][:10] for run in runs.with_features], axis=0)
        first = "; ".join(f"{useful:.2f}, {robust:.2f}" for useful, robust in shares)
        yield f"{', '.join(sorted(refuted & {LARGEST, USEFUL}))}: right as they are and misled, the first features: {first}."


def _medians(runs: Runs, number: Number) -> str:
    return " → ".join(f"{value:.3g}" for value in np.median(runs.table(number), axis=0))
