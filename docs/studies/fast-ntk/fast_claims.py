"""What *Fast Finite Width Neural Tangent Kernel* claims of costs, each claim beside the counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from claims import Claim, spread
from fast_networks import Point
from fast_sizes import Size
from results import Results

EXPONENT = "two new algorithms change the exponents of the cost"
EFFICIENT = "they improve efficiency dramatically"
BLACK_BOX = "they apply to any differentiable function"

#: The paper's three algorithms and what they are called here.
PAPER = {"jacobian": "Jacobian contraction", "products": "NTK–vector products", "structured": "structured derivatives"}
#: keys of the claims that the page explains where they do not hold
GAIN, PLAN = "structured derivatives against Jacobian contraction", "the plan (`ntk_plan`) against the count"
AXES = {"samples": "N", "outputs": "O", "width": "W", "depth": "L"}


Cost = dict[str, Any]


@dataclass(frozen=True)
class Costs:
    """Everything the page is written from.

    Attributes:
        size: how large the study is.
        found: (point, method, whether symmetric) → what :func:`fast_costs.cost` gave.
        agreement: architecture → largest relative difference between the methods' kernels, float64.
        seconds: point → method → processor seconds of each turn.
    """

    size: Size
    found: dict[tuple[Point, str, bool], Cost]
    agreement: dict[str, float]
    seconds: dict[Point, dict[str, list[float]]]

    @classmethod
    def of(cls, results: Results) -> Costs:
        def some(kind: str) -> list[dict[str, Any]]:
            return [run for run in results.runs if run["kind"] == kind]

        return cls(
            Size.of(results.settings),
            {(Point(**run["point"]), run["method"], run["symmetric"]): run for run in some("cost")},
            {run["architecture"]: run["error"] for run in some("agreement")},
            {Point(**run["point"]): run["seconds"] for run in some("times")},
        )

    @property
    def bases(self) -> tuple[Point, ...]:
        return self.size.bases

    @property
    def rows(self) -> int:
        """N·O of the line "FCN, many rows"."""
        return self.size.rows[0].samples * self.size.rows[0].outputs

    def line(self, base: Point, axis: str, method: str) -> list[tuple[int, Cost]]:
        """Values of the axis through a base, each with the cost, where it was counted."""
        points = [point for along, point in self.size.along(base) if along == axis]
        return [(getattr(p, axis), self.found[p, method, False]) for p in points if (p, method, False) in self.found]

    def exponent(self, base: Point, axis: str, method: str, of: str = "flops") -> float:
        """log of the ratio of the last two costs over that of the last two values: the local exponent at the large end."""
        return _exponent(self.line(base, axis, method), of)

    def many_rows(self, method: str, of: str = "flops") -> float:
        """The exponent of the width of an FCN with so many rows that the contraction counts."""
        return _exponent([(p.width, self.found[p, method, False]) for p in self.size.rows], of)

    def at_base(self, base: Point, method: str) -> Cost:
        """The cost where the axes cross."""
        return self.found[base, method, False]

    def gain(self, point: Point, of: str = "flops") -> float:
        """Of Jacobian contraction over structured derivatives."""
        dense, structured = (self.found[point, method, False][of] for method in ("jacobian", "structured"))
        return float(dense / structured)

    def least_gain(self) -> tuple[float, str]:
        """The smallest of these ratios on any axis, and where it is."""
        return min(
            (self.gain(point), f"{base.architecture} at {AXES[axis]} = {getattr(point, axis)}")
            for base in self.bases
            for axis, point in self.size.along(base)
        )

    def fewest(self, point: Point) -> str:
        """The method that builds the kernel of a timed place in the fewest FLOPs."""
        symmetric = point in self.size.places
        return min(self.built(point), key=lambda method: self.found[point, method, symmetric]["flops"])

    def built(self, point: Point) -> list[str]:
        """Methods that were timed and build a kernel."""
        return [method for method in PAPER if method in self.seconds[point]]

    def fastest(self, point: Point) -> str:
        return min(self.built(point), key=lambda method: float(np.median(self.seconds[point][method])))


def _exponent(row: list[tuple[int, Cost]], of: str) -> float:
    (x0, a), (x1, b) = row[-2:]
    return float(np.log(b[of] / a[of]) / np.log(x1 / x0))


def claims(costs: Costs) -> Iterator[Claim]:
    """Every row of the table."""
    for method, expected in (
        ("jacobian", {"samples": 2, "outputs": 2, "width": 2, "depth": 1}),
        ("products", {"samples": 2, "outputs": 1, "width": 2, "depth": 1}),
    ):
        found = {
            axis: costs.exponent(costs.bases[0], axis, method) for axis in expected if axis in costs.size.axes["FCN"]
        }
        yield Claim(
            f"FCN, {PAPER[method]}: exponents",
            EXPONENT if method == "products" else "",
            ", ".join(f"{AXES[axis]} {e}" for axis, e in expected.items()) + " (leading order)",
            "derived",
            ", ".join(f"{AXES[axis]} {e:.2f}" for axis, e in found.items()),
            all(abs(value - expected[axis]) < 0.2 for axis, value in found.items()),
        )
    dense, structured = (costs.many_rows(m) for m in ("jacobian", "structured"))
    yield Claim(
        "FCN, structured derivatives: exponent of the width",
        EXPONENT,
        "below that of Jacobian contraction: N²O²LW + NOLW² against N²O²LW²",
        "derived",
        f"{structured:.2f} against {dense:.2f} at N·O = {costs.rows:,}",
        structured < dense - 0.3,
    )
    yield _memory_claim(costs)
    gains = {b.architecture: costs.gain(b) for b in costs.bases}
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
    if costs.size.many:
        yield _many_claim(costs, gains)
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
        PLAN,
        "",
        "within a factor of 2",
        "derived",
        ", ".join(f"{m}: counted/planned {min(r):.2f} to {max(r):.2f}" for m, r in ratios.items()),
        all(0.5 <= v <= 2 for r in ratios.values() for v in r),
    )
    if costs.seconds:
        yield _time_claim(costs)


def _memory_claim(costs: Costs) -> Claim:
    dense, structured = (costs.many_rows(m, "bytes") for m in ("jacobian", "structured"))
    return Claim(
        "FCN, memory: exponent of the width",
        EXPONENT,
        "below that of Jacobian contraction, which holds rows of J: NOLW against NOLW², both beside the kernel's N²O²",
        "derived",
        f"{structured:.2f} against {dense:.2f} at N·O = {costs.rows:,}",
        structured < dense - 0.3,
    )


def _many_claim(costs: Costs, gains: dict[str, float]) -> Claim:
    found = {p.architecture: (costs.gain(p), costs.gain(p, "bytes")) for p in costs.size.many}
    return Claim(
        f"{costs.size.many[0].outputs:,} outputs: the gain is largest there",
        EFFICIENT,
        "structured over Jacobian grows with O: N²O²P against N²O²LW, where P/LW is what is saved",
        "derived",
        "; ".join(
            f"{name} ×{flops:.3g} in FLOPs (×{gains[name]:.3g} at few outputs), ×{held:.2g} in memory"
            for name, (flops, held) in found.items()
        ),
        all(flops > gains[name] for name, (flops, _) in found.items()),
    )


def _corner_claim(costs: Costs) -> Iterator[Claim]:
    told, won, right = [], [], []
    for point in costs.size.corners:
        few, built = (costs.found[point, method, False]["flops"] for method in ("products", "structured"))
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
    return [
        cost["flops"] / cost["planned"]
        for (_, m, symmetric), cost in costs.found.items()
        if m == method and not symmetric
    ]


def off_plan(costs: Costs) -> str:
    """At which places a count is more than twice the plan's, and what it has beyond it there."""
    far = {
        (point, method): (cost["flops"] - cost["planned"]) / (point.samples * cost["forward"])
        for (point, method, symmetric), cost in costs.found.items()
        if method in PAPER and not symmetric and cost["flops"] > 2 * cost["planned"]
    }
    places = "; ".join(sorted(f"{p.architecture} O = {p.outputs} ({method})" for p, method in far))
    return (
        f"more than twice the plan's at {places}. Beyond the plan, the calls take there what "
        f"{spread(far.values(), of='places')} forward passes of all samples take, which is most of a kernel of so few outputs."
    )


def followed(costs: Costs) -> str:
    """At how many places the fewest FLOPs are the fastest."""
    same = sum(costs.fewest(point) == costs.fastest(point) for point in costs.seconds)
    return f"{same} of {len(costs.seconds)} places"


def _time_claim(costs: Costs) -> Claim:
    others: dict[str, list[str]] = {}
    for point in costs.seconds:
        fewest, fastest = costs.fewest(point), costs.fastest(point)
        if fewest != fastest:
            ratios = np.array(costs.seconds[point][fewest]) / np.array(costs.seconds[point][fastest])
            where = f"{point.key} (×{np.median(ratios):.2f}, {ratios.min():.2f} to {ratios.max():.2f} in {len(ratios)} turns)"
            how = f"{fewest} has the fewest and {fastest} is fastest, seconds of the one over those of the other"
            others.setdefault(how, []).append(where)
    return Claim(
        "time follows FLOPs",
        "",
        "broadly, except at small sizes",
        "recalled",
        f"the fewest FLOPs are the fastest at {followed(costs)}"
        + "".join(f"; {how} at {', '.join(where)}" for how, where in others.items()),
        None,
    )
