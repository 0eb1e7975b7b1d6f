"""What *Fast Finite Width Neural Tangent Kernel* claims of costs, each claim beside the counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from claims import Claim
from fast_networks import Point

EXPONENT = "two new algorithms change the exponents of the cost"
EFFICIENT = "they improve efficiency dramatically"
BLACK_BOX = "they apply to any differentiable function"

#: The paper's three algorithms and what they are called here.
PAPER = {"jacobian": "Jacobian contraction", "products": "NTK–vector products", "structured": "structured derivatives"}
#: key of the claim that the page explains where it does not hold
GAIN = "structured derivatives against Jacobian contraction"
AXES = {"samples": "N", "outputs": "O", "width": "W", "depth": "L"}


@dataclass(frozen=True)
class Costs:
    """Everything the page is written from.

    Attributes:
        bases: where the axes of each architecture cross.
        lines: (architecture, axis, method) → values of the axis, each with what :func:`fast_costs.flops` gave.
        corners: point → method → the same.
        places: point → method → the same.
        agreement: architecture → largest relative difference between the methods' kernels, float64.
        rows: N·O of the line "FCN, many rows".
        seconds: point → method → what :func:`fast_costs.times` gave.
        peers: rows of the benchmark.
    """

    bases: tuple[Point, ...]
    lines: dict[tuple[str, str, str], list[tuple[int, dict[str, float]]]]
    corners: dict[Point, dict[str, dict[str, float]]]
    places: dict[Point, dict[str, dict[str, float]]]
    agreement: dict[str, float]
    rows: int
    seconds: dict[Point, dict[str, dict[str, Any]]] = field(default_factory=dict)
    peers: list[dict[str, Any]] = field(default_factory=list)

    def exponent(self, architecture: str, axis: str, method: str) -> float:
        """log of the ratio of the last two costs over that of the last two values: the local exponent at the large end."""
        (x0, a), (x1, b) = self.lines[architecture, axis, method][-2:]
        return float(np.log(b["flops"] / a["flops"]) / np.log(x1 / x0))

    def at_base(self, base: Point, method: str) -> dict[str, float]:
        """The cost where the axes cross."""
        return dict(self.lines[base.architecture, "width", method])[base.width]

    def least_gain(self) -> tuple[float, str]:
        """The smallest ratio of Jacobian contraction over structured derivatives on any axis, and where it is."""
        return min(
            (
                dense["flops"] / dict(self.lines[name, axis, "structured"])[value]["flops"],
                f"{name} at {AXES[axis]} = {value}",
            )
            for (name, axis, method), row in self.lines.items()
            if method == "jacobian"
            for value, dense in row
        )


def claims(costs: Costs) -> Iterator[Claim]:
    """Every row of the table."""
    for method, expected in (
        ("jacobian", {"samples": 2, "outputs": 2, "width": 2, "depth": 1}),
        ("products", {"samples": 2, "outputs": 1, "width": 2, "depth": 1}),
    ):
        found = {axis: costs.exponent("FCN", axis, method) for axis in expected}
        yield Claim(
            f"FCN, {PAPER[method]}: exponents",
            EXPONENT if method == "products" else "",
            ", ".join(f"{AXES[axis]} {e}" for axis, e in expected.items()) + " (leading order)",
            "derived",
            ", ".join(f"{AXES[axis]} {e:.2f}" for axis, e in found.items()),
            all(abs(found[axis] - e) < 0.2 for axis, e in expected.items()),
        )
    dense, structured = (costs.exponent("FCN, many rows", "width", m) for m in ("jacobian", "structured"))
    yield Claim(
        "FCN, structured derivatives: exponent of the width",
        EXPONENT,
        "below that of Jacobian contraction: N²O²LW + NOLW² against N²O²LW²",
        "derived",
        f"{structured:.2f} against {dense:.2f} at N·O = {costs.rows:,}",
        structured < dense - 0.3,
    )
    gains = {
        b.architecture: costs.at_base(b, "jacobian")["flops"] / costs.at_base(b, "structured")["flops"]
        for b in costs.bases
    }
    least, where = costs.least_gain()
    yield Claim(
        GAIN,
        EFFICIENT,
        "fewer FLOPs everywhere, most for the FCN",
        "derived",
        ", ".join(f"{name} ×{gain:.3g}" for name, gain in gains.items())
        + "; at "
        + "; ".join(b.key for b in costs.bases)
        + f"; the least along any axis: ×{least:.3g}, {where}",
        least > 1 and max(gains, key=lambda name: gains[name]) == "FCN",
    )
    yield from _corner_claim(costs)
    yield Claim(
        "every method, every architecture",
        BLACK_BOX,
        "equal kernels to rounding in float64",
        "derived",
        ", ".join(f"{name} {error:.0e}" for name, error in costs.agreement.items()),
        max(costs.agreement.values()) < 1e-12,
    )
    yield from _formula_claims(costs)
    ratios = {m: _over_plan(costs, m) for m in PAPER}
    yield Claim(
        "the plan (`ntk_plan`) against the count",
        "",
        "within a factor of 2",
        "derived",
        ", ".join(f"{m}: counted/planned {min(r):.2f} to {max(r):.2f}" for m, r in ratios.items()),
        all(0.5 <= v <= 2 for r in ratios.values() for v in r),
    )
    if costs.seconds:
        yield _time_claim(costs)


def _corner_claim(costs: Costs) -> Iterator[Claim]:
    told, won, right = [], [], []
    for point, by_method in costs.corners.items():
        few, built = by_method["products"]["flops"], by_method["structured"]["flops"]
        rule = point.outputs > point.width * (1 - 1 / point.samples)
        told.append(f"{point.key}: {few / built:.2f}")
        won.append(few < built)
        right.append(rule or few > built)
    yield Claim(
        "where products win",
        "",
        "somewhere, but only where O > W (1 − 1/N)",
        "derived",
        "products over structured: " + "; ".join(told),
        any(won) and all(right),
    )


def _formula_claims(costs: Costs) -> Iterator[Claim]:
    formulas = {
        "jacobian": ("2 (NO)² P + 2 (NO · 2 FP + N · FP)", lambda p, c: _dense(p, c)),
        "products": ("NO · (3 FP + N · 3 FP)", lambda p, c: p.samples * p.outputs * 3 * c["forward"] * (1 + p.samples)),
    }
    for method, (text, formula) in formulas.items():
        found = {
            b.architecture: costs.at_base(b, method)["flops"] / formula(b, costs.at_base(b, method))
            for b in costs.bases
        }
        yield Claim(
            f"{PAPER[method]}: the cost itself",
            "",
            text,
            "derived",
            "counted over formula: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items()),
            all(0.7 < ratio < 1.4 for ratio in found.values()),
        )
    one = {b.architecture: costs.at_base(b, "product") for b in costs.bases}
    each = {
        b.architecture: one[b.architecture]["flops"] / (b.samples * one[b.architecture]["forward"]) for b in costs.bases
    }
    yield Claim(
        "a product Θv without the kernel or factors",
        "",
        "5 FP a sample (forward 1, backward 2, tangents 2), 6 if each pass has its own forward",
        "derived",
        ", ".join(f"{name} {ratio:.2f} FP" for name, ratio in each.items()),
        all(4.5 < ratio < 6.5 for ratio in each.values()),
    )


def _dense(point: Point, cost: dict[str, float]) -> float:
    rows = point.samples * point.outputs
    return 2 * rows**2 * cost["parameters"] + 2 * (2 * rows + point.samples) * cost["forward"]


def _over_plan(costs: Costs, method: str) -> list[float]:
    return [cost["flops"] / cost["planned"] for (_, _, m), row in costs.lines.items() if m == method for _, cost in row]


def _time_claim(costs: Costs) -> Claim:
    others: dict[str, list[str]] = {}
    for point, by_method in costs.seconds.items():
        built = [m for m in PAPER if m in by_method]
        by_time = min(built, key=lambda m: by_method[m]["median"])
        by_count = min(built, key=lambda m: costs.places[point][m]["flops"])
        if by_time != by_count:
            others.setdefault(f"{by_count} has the fewest and {by_time} is fastest", []).append(point.key)
    same = len(costs.seconds) - sum(map(len, others.values()))
    return Claim(
        "time follows FLOPs",
        "",
        "broadly, except at small sizes",
        "recalled",
        f"the fewest FLOPs are the fastest at {same} of {len(costs.seconds)} places"
        + "".join(f"; {how} at {', '.join(where)}" for how, where in others.items()),
        None,
    )
