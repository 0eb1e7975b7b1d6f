"""What a panel says under the pointer beyond its named lines: values that are stacked, spread, dotted, or in cells.

A drawing holds shapes; what was measured is not always where a shape ends. A panel that draws anything but lines tells here what it
drew, so that the page can name each value, and draw the figure anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from ...trajectory import Floats, Ints


@dataclass(frozen=True, eq=False)
class Marks:
    """Values over x that are no mere line.

    Attributes:
        kind: "area", a layer of a stack: its value is ``high`` − ``low``; "band", a line with what it is uncertain by; "dots".
        label: what it is.
        colour: a colour of the style.
        x: (S,).
        values: (S,), as told.
        low: (S,) lower edge of an area, of a band, or of a dot's bar; None where a dot has none.
        high: (S,) the same, upper.
        sizes: (S,) radii of dots, in points; None: all alike.
        artists: what was drawn of it.
    """

    kind: Literal["area", "band", "dots"]
    label: str
    colour: str
    x: Ints | Floats
    values: Floats
    low: Floats | None = None
    high: Floats | None = None
    sizes: Floats | None = None
    artists: tuple[Artist, ...] = ()

    @property
    def heights(self) -> Floats:
        """(S,) where the pointer finds them: an area's middle, else the value."""
        if self.kind != "area" or self.low is None or self.high is None:
            return self.values
        return np.asarray((self.low + self.high) / 2)


@dataclass(frozen=True)
class Spot:
    """A rectangle that stands for something: a bar, a stage.

    Attributes:
        x: left and right, in the axes' numbers.
        y: lower and upper.
        head: its name.
        rows: label, value (a number, or words) and colour of each line below it.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    head: str
    rows: tuple[tuple[str, float | str, str], ...]


@dataclass(frozen=True, eq=False)
class Cells:
    """A map's cells.

    Attributes:
        values: (rows, columns).
        rows: their names.
        columns: their names.
        across: (columns, 2) left and right of each column, in the axes' numbers.
        up: (rows, 2) the same of each row.
    """

    values: Floats
    rows: Sequence[str]
    columns: Sequence[str]
    across: Floats
    up: Floats

    @classmethod
    def square(cls, values: Floats, rows: Sequence[str], columns: Sequence[str]) -> Cells:
        """Of a matrix that ``imshow`` draws: each cell is one wide, about its index."""
        across, up = (np.arange(n)[:, None] + np.array([-0.5, 0.5]) for n in (values.shape[1], values.shape[0]))
        return cls(values, rows, columns, across, up)


@dataclass(eq=False)
class Told:
    """All that one panel says."""

    marks: list[Marks] = field(default_factory=list)
    spots: list[Spot] = field(default_factory=list)
    cells: Cells | None = None

    def knows(self, artist: Artist) -> bool:
        """Whether an artist is one of the marks."""
        return any(artist is one for mark in self.marks for one in mark.artists)


_TOLD: WeakKeyDictionary[Axes, Told] = WeakKeyDictionary()


def told(ax: Axes) -> Told:
    """What the panel on ``ax`` says; a panel adds to it as it draws."""
    return _TOLD.setdefault(ax, Told())
