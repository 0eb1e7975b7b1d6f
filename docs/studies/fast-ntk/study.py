"""What a finite-width kernel costs: FLOPs counted and time measured, method by method, architecture by architecture.

    python docs/studies/fast-ntk/study.py --size smoke|desk|full [--out DIR]

measures what is not there yet, and writes the table of claims, the figure and README.md. BENCH_NEURAL_TANGENTS=/path/to/python
adds the comparison with neural-tangents.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from claims import command_line  # noqa: E402  # the folder is no package
from fast_claims import Costs  # noqa: E402
from fast_costs import METHODS, Ledger, flops, kernels_agree, peers, times  # noqa: E402
from fast_networks import Point  # noqa: E402
from fast_page import figure, page  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        bases: where the four axes of each architecture cross.
        axes: of each architecture, the values along N, O, W and L.
        rows: an FCN of so many rows that only the contraction counts, along W.
        corners: kernels of few samples and many outputs, where products may need the fewest FLOPs.
        places: kernels that are counted and timed by every method.
        repeats: of each timing; 0 for none.
        workloads: of the benchmark, run beside neural-tangents.
        seconds: for each of those.
        most_products: the largest N·O for which the kernel by products is counted along an axis, and twice that at a place.
    """

    bases: tuple[Point, ...]
    axes: dict[str, dict[str, tuple[int, ...]]]
    rows: tuple[Point, ...]
    corners: tuple[Point, ...]
    places: tuple[Point, ...] = ()
    repeats: int = 0
    workloads: tuple[str, ...] = ()
    seconds: float = 2.0
    most_products: int = 128

    def methods(self, place: Point) -> tuple[str, ...]:
        """What is counted and timed at a place: products only where they come to an end soon."""
        few = place.samples * place.outputs <= 2 * self.most_products
        return tuple(m for m in (*METHODS, "product") if few or m != "products")

    def along(self, base: Point) -> Iterator[tuple[str, Point]]:
        """(axis, point) of every point that differs from ``base`` in one number."""
        for axis, values in self.axes[base.architecture].items():
            for value in values:
                yield axis, dataclasses.replace(base, **{axis: value})


def _fcn_rows(samples: int, widths: tuple[int, ...]) -> tuple[Point, ...]:
    return tuple(Point("FCN", samples, 8, width, 4) for width in widths)


CORNERS = (Point("FCN", 1, 64, 8, 4), Point("FCN", 1, 64, 16, 4), Point("FCN", 1, 8, 16, 4), Point("FCN", 4, 16, 16, 4))
DESK_AXES = {
    "FCN": {
        "samples": (8, 16, 32, 64),
        "outputs": (1, 2, 4, 8, 16),
        "width": (16, 32, 64, 128, 256),
        "depth": (4, 8, 16, 32),
    },
    "CNN": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (8, 16, 32, 64), "depth": (2, 4, 8)},
    "ResNet": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (8, 16, 32), "depth": (1, 2, 4)},
    "transformer": {"samples": (4, 8, 16), "outputs": (1, 2, 4, 8), "width": (16, 32, 64), "depth": (1, 2, 4)},
}
DESK_BASES = (
    Point("FCN", 32, 4, 64, 4),
    Point("CNN", 8, 4, 16, 4),
    Point("ResNet", 8, 4, 16, 2),
    Point("transformer", 8, 4, 32, 2),
)
DESK_PLACES = tuple(
    Point(name, samples, outputs, width, depth)
    for name, width, depth in (("FCN", 256, 4), ("CNN", 32, 4), ("ResNet", 32, 2), ("transformer", 64, 2))
    for samples, outputs in ((16, 10), (64, 1), (1, 64), (64, 10))
)
SIZES = {
    "smoke": Size(
        bases=(Point("FCN", 4, 4, 64, 2), Point("transformer", 2, 2, 16, 1)),
        axes={
            "FCN": {"samples": (2, 4), "outputs": (2, 4), "width": (64, 128), "depth": (2, 4)},
            "transformer": {"samples": (1, 2), "outputs": (1, 2), "width": (16,), "depth": (1,)},
        },
        rows=_fcn_rows(64, (16, 32, 64)),
        corners=CORNERS[::2],  # one where products win, and one where they do not
        most_products=32,
    ),
    "desk": Size(
        bases=DESK_BASES,
        axes=DESK_AXES,
        rows=_fcn_rows(128, (16, 32, 64, 128)),
        corners=CORNERS,
        places=DESK_PLACES,
        repeats=5,
        workloads=("M1", "C1", "T1"),
    ),
    "full": Size(
        bases=DESK_BASES,
        axes=DESK_AXES,
        rows=_fcn_rows(512, (16, 32, 64, 128, 256)),
        corners=CORNERS,
        places=tuple(dataclasses.replace(p, samples=4 * p.samples, width=2 * p.width) for p in DESK_PLACES),
        repeats=15,
        workloads=("M1", "M2", "C1", "C2", "C1t", "T1"),
        seconds=15.0,
    ),
}


def count(folder: Path, size: Size) -> Costs:
    """Every count of FLOPs; no time."""
    ledger = Ledger(folder / "flops.json")

    def cost(point: Point, method: str, symmetric: bool = False) -> dict[str, float]:
        kind = f"{'symmetric ' if symmetric else ''}{method}: {point.key}"
        return ledger.get(kind, lambda: flops(point, method, symmetric=symmetric))

    lines: dict[tuple[str, str, str], list[tuple[int, dict[str, float]]]] = {}
    for base in size.bases:
        for axis, point in size.along(base):
            for method in (*METHODS, "product"):
                if method != "products" or point.samples * point.outputs <= size.most_products:
                    row = lines.setdefault((base.architecture, axis, method), [])
                    row.append((getattr(point, axis), cost(point, method)))
    for method in ("structured", "jacobian"):
        lines["FCN, many rows", "width", method] = [(p.width, cost(p, method)) for p in size.rows]
    return Costs(
        bases=size.bases,
        lines=lines,
        corners={p: {m: cost(p, m) for m in METHODS} for p in size.corners},
        places={p: {m: cost(p, m, symmetric=True) for m in size.methods(p)} for p in size.places},
        agreement={b.architecture: ledger.get(f"agree: {b.key}", lambda b=b: kernels_agree(b)) for b in size.bases},
        rows=size.rows[0].samples * size.rows[0].outputs,
    )


def clock(folder: Path, size: Size, costs: Costs) -> Costs:
    """Times of every place and method, and those beside neural-tangents."""
    ledger = Ledger(folder / "times.json")
    seconds = {
        p: {m: ledger.get(f"{m}: {p.key}", lambda p=p, m=m: times(p, m, repeats=size.repeats)) for m in size.methods(p)}
        for p in size.places
    }
    rows = ledger.get("peers", lambda: peers(size.workloads, folder, size.seconds)) if size.workloads else []
    return dataclasses.replace(costs, seconds=seconds, peers=rows)


def main() -> None:
    (name, size, out), _ = command_line(argparse.ArgumentParser(description=__doc__.splitlines()[0]), SIZES, "fast-ntk")
    costs = clock(out, size, count(out, size))
    home = HERE if name == "desk" else out
    figure(costs, home / "flops.png")
    (home / "README.md").write_text(page(name, costs), encoding="utf-8")
    print(f"wrote {home / 'README.md'}")


if __name__ == "__main__":
    main()
