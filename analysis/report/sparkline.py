"""Sparkline: the course of one number, as small as a word. One point a snapshot in the order of steps, not evenly in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..text import count, number

WIDTH, HEIGHT = 120, 26
#: Room for the line's own width and the dot at its end.
_EDGE = 3
#: Above it a linear scale would show one end of the course alone.
_DECADES = 100.0


@dataclass(frozen=True)
class Sparkline:
    """A line in a box of :data:`WIDTH` by :data:`HEIGHT`.

    Attributes:
        path: of the line, as SVG has it.
        end: (x, y) of the last value.
        words: what is read aloud in its stead.
        box: width and height, as SVG has them.
    """

    path: str
    end: tuple[float, float]
    words: str
    box: str = f"{WIDTH} {HEIGHT}"


def sparkline(title: str, course: Sequence[tuple[int, float]]) -> Sparkline | None:
    """The line of (step, value) pairs; None where there are fewer than two.

    Values stand on a linear scale from the least to the greatest, or on a logarithmic one where all are above zero and span two
    decades.
    """
    if len(course) < 2:
        return None
    values = [value for _, value in course]
    if min(values) > 0 and max(values) >= _DECADES * min(values):
        values = [math.log(value) for value in values]
    low, reach = min(values), max(values) - min(values)
    across = [_EDGE + (WIDTH - 2 * _EDGE) * i / (len(values) - 1) for i in range(len(values))]
    up = [HEIGHT - _EDGE - (HEIGHT - 2 * _EDGE) * ((v - low) / reach if reach > 0 else 0.5) for v in values]
    (first, start), (last, stop) = course[0], course[-1]
    words = f"{title}: from {number(start)} at step {count(first)} to {number(stop)} at step {count(last)}"
    points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, up, strict=True))
    return Sparkline(f"M{points}", (across[-1], up[-1]), words)
