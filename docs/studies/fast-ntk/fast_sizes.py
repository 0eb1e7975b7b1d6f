"""How large the cost study is: the kernels that are counted and timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fast_costs import METHODS
from fast_networks import Point


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        bases: where the four axes of each architecture cross.
        axes: of each architecture, the values along N, O, W and L.
        rows: an FCN of so many rows that only the contraction counts, along W.
        corners: kernels of few samples and many outputs, where products may need the fewest FLOPs.
        places: kernels that are counted and timed by every method.
        many: kernels of very many outputs.
        turns: of each timing; 0 for none.
        most_products: the largest N·O for which the kernel by products is counted along an axis, and twice that at a place.
    """

    bases: tuple[Point, ...]
    axes: dict[str, dict[str, tuple[int, ...]]]
    rows: tuple[Point, ...]
    corners: tuple[Point, ...]
    places: tuple[Point, ...] = ()
    many: tuple[Point, ...] = ()
    turns: int = 0
    most_products: int = 128

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Size:
        """From what results.json holds of it."""
        points = {
            name: tuple(Point(**p) for p in settings[name]) for name in ("bases", "rows", "corners", "places", "many")
        }
        return cls(**{**settings, **points})

    def methods(self, place: Point) -> tuple[str, ...]:
        """What is counted and timed at a place: products only where they come to an end soon."""
        few = place.samples * place.outputs <= 2 * self.most_products
        return tuple(m for m in (*METHODS, "product") if few or m != "products")

    def along(self, base: Point) -> Iterator[tuple[str, Point]]:
        """(axis, point) of every point that differs from ``base`` in one number."""
        for axis, values in self.axes[base.architecture].items():
            for value in values:
                yield axis, dataclasses.replace(base, **{axis: value})
