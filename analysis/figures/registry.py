"""Figures by name: each composes panels from a run (and its control) and says what it shows.

To add one: write a function (Scene) → Figure that asks the run for numbers and hands them to panels, and decorate it
with :func:`figure`. Then ``plot --list``, ``plot --figure`` and the report know it. See docs/how-to/add-a-figure.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kerneltrack.errors import AnalysisError

from ..derived import Change, Trend, learning_rate_changes
from ..trajectory import Floats, Run, Trajectory
from .style import PAPER, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .film import Film
    from .panels import Scale, Series


@dataclass(frozen=True, eq=False)
class Scene:
    """What a figure is drawn of: a run, perhaps its control, and a style.

    Attributes:
        run: the run.
        control: the run that did not change the learning rate, or None.
        style: the look.
        x: the time axis; None chooses "log" where snapshots are spread evenly in log t and no rate changes.
        used: which of "control" and "x" the figure asked for.

    Raises:
        AnalysisError: a control that is of another kernel, gauge, loss or probe.
    """

    run: Run
    control: Run | None = None
    style: Style = PAPER
    x: Scale | None = None
    used: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if (control := vars(self)["control"]) is not None:
            Trajectory((self.run, control)).comparable()

    def __getattribute__(self, name: str) -> Any:
        """Who draws asks; so it is known afterwards which of the two that may be given had an effect."""
        if name in ("control", "x"):
            self.used.add(name)
        return super().__getattribute__(name)

    def beside(self, name: str) -> Run | None:
        """The control, where it holds a quantity that is drawn beside the run's."""
        control: Run | None = vars(self)["control"]
        return self.control if control is not None and control.has(name) else None

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Step changes of the learning rate."""
        return self._changes_and_trends[0]

    @cached_property
    def trends(self) -> tuple[Trend, ...]:
        """Stretches of continuously changing learning rates."""
        return self._changes_and_trends[1]

    @cached_property
    def _changes_and_trends(self) -> tuple[tuple[Change, ...], tuple[Trend, ...]]:
        return learning_rate_changes(self.run) if "learning_rate" in self.run.dataset else ((), ())

    @property
    def time(self) -> Scale:
        """The scale of the time axis."""
        if self.x is not None:
            return self.x
        steps = self.run.steps[self.run.measured]
        logarithmic = len(steps) > 4 and float(steps[len(steps) // 2]) < 0.1 * float(steps[-1])
        return "log" if logarithmic and not self.changes else "linear"

    @property
    def marks(self) -> list[tuple[int, str]]:
        """Step and label of every learning-rate change; a label that goes on from the one before is short."""
        held = [None, *(change.new[0] for change in self.changes)]
        return [
            (
                change.step,
                f"→ {change.new[0]:g}" if change.old[0] == before else f"η {change.old[0]:g} → {change.new[0]:g}",
            )
            for change, before in zip(self.changes, held, strict=False)
        ]

    def masked(self, name: str, *, why: str) -> Floats:
        """A stored array along snapshots, NaN where the probe was not measured; a number's mean over both states of a pair."""
        import numpy as np

        values = self.run.values(name, why=why).copy()
        values[~self.run.taken] = np.nan
        return self.run.groups.both_phases(values) if values.ndim == 1 else values

    def lines_of(self, names: Mapping[str, str], *, figure: str, remedy: str) -> list[Series]:
        """One line for each of the quantities that the archive holds, each in its own colour.

        Args:
            names: quantity → label.
            figure: the name of the figure that draws them.
            remedy: how to have them measured.

        Raises:
            AnalysisError: the archive holds none of them, or none that is not withheld.
        """
        from .panels import Series

        lines = [
            Series(label, self.masked(name, why="the figure"), colour)
            for (name, label), colour in zip(names.items(), self.style.category, strict=False)
            if self.run.has(name)
        ]
        if lines:
            return lines
        *others, last = map(repr, names)
        reason = next(filter(None, (self.run.withheld(name).reason for name in names)), "")
        raise AnalysisError(
            f"the figure {figure!r} needs {', '.join(others)} or {last}, and the archive holds none of them"
            + (f" that is not withheld: {reason}" if reason else ""),
            remedy=remedy,
        )


@dataclass(frozen=True)
class FigureSpec:
    """One entry of the registry.

    Attributes:
        name: what ``plot --figure`` calls it.
        title: a clause.
        caption: what is drawn and how to read it; also the alternative text.
        section: the part of the report it stands in.
        needs: what the archive must hold.
        draw: composes it.
        film: composes the same in motion, for a GIF; None where it does not move.
    """

    name: str
    title: str
    caption: str
    section: str
    needs: tuple[str, ...]
    draw: Callable[[Scene], Figure]
    film: Callable[[Scene], Film] | None = None

    def __call__(self, scene: Scene) -> Figure:
        """Draw it in the scene's style.

        Raises:
            AnalysisError: the archive does not hold what it needs, nothing was measured, or it cannot be drawn.
        """
        self._require(scene)
        with scene.style.drawing(f"the figure {self.name!r}"):
            return self.draw(scene)

    def moving(self, scene: Scene) -> Film:
        """The same in motion.

        Raises:
            AnalysisError: the figure does not move, or as for the figure itself.
        """
        if self.film is None:
            moving = ", ".join(name for name, spec in _REGISTERED.items() if spec.film is not None)
            raise AnalysisError(
                f"the figure {self.name!r} does not move",
                expected=f"for a GIF one of {moving}",
                remedy="Save it as .svg, .png or .pdf.",
            )
        self._require(scene)
        with scene.style.drawing(f"the figure {self.name!r}"):
            return self.film(scene)

    def _require(self, scene: Scene) -> None:
        from .canvas import planar_inputs

        if not scene.run.measured.any():
            raise AnalysisError("no snapshot of this probe holds a measurement", where=scene.run.path or None)
        if "inputs" in self.needs:
            planar_inputs(scene.run)  # first: to keep inputs of another shape would not help
        scene.run.require(*self.needs, why=f"the figure {self.name!r}")


_REGISTERED: dict[str, FigureSpec] = {}


def figure(
    name: str, title: str, caption: str, *needs: str, section: str, film: Callable[[Scene], Film] | None = None
) -> Callable[[Callable[[Scene], Figure]], Callable[[Scene], Figure]]:
    """Register the decorated function as a figure; ``film`` draws the same in motion."""

    def register(draw: Callable[[Scene], Figure]) -> Callable[[Scene], Figure]:
        if name in _REGISTERED:
            raise AnalysisError(f"the figure {name!r} is registered already", remedy="Choose another name.")
        _REGISTERED[name] = FigureSpec(name, title, caption, section, needs, draw, film)
        return draw

    return register
