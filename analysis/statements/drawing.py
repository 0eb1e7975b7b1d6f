"""Drawing: the figures of a run by their names, ``run.plot("stability")`` or ``run.plot.stability()``, which a notebook completes.

Who draws stands above the run, and is named by :func:`drawn_by`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Drawing:
    """Every figure of ``kerneltrack plot --list``, of one run."""

    run: Any

    def __call__(self, name: str, **options: Any) -> Figure:
        """Draw a figure, which a notebook shows as the last line of a cell.

        Args:
            name: of the figure.
            options: ``control``: the run that did not change the learning rate; ``x``: "linear" or "log"; ``style``: "paper",
                "slide" or "dark".

        Raises:
            AnalysisError: no such figure, or the archive does not hold what it needs.
        """
        return _draw[0](self.run, name, **options)

    def __getattr__(self, attribute: str) -> Callable[..., Figure]:
        """``run.plot.eigenfunction_lines`` is the figure "eigenfunction-lines"."""
        if attribute.startswith("_") or attribute.replace("_", "-") not in _names[0]():
            raise AttributeError(f"there is no figure {attribute!r}; dir(run.plot) names all")
        return lambda **options: self(attribute.replace("_", "-"), **options)

    def __dir__(self) -> list[str]:
        return sorted(name.replace("-", "_") for name in _names[0]())

    def __repr__(self) -> str:
        return f"<figures of {self.run.name}: {', '.join(_names[0]())}>"


_names: list[Callable[[], Iterable[str]]] = []
_draw: list[Callable[..., Figure]] = []


def drawn_by(names: Callable[[], Iterable[str]], draw: Callable[..., Figure]) -> None:
    """Say which figures there are, and what draws the one of (run, name, options)."""
    _names[:], _draw[:] = [names], [draw]
