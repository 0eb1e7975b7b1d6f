"""All figures by name: those that come with the package, and those that users register."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kerneltrack.errors import AnalysisError

from . import registry
from .registry import FigureSpec


def registered() -> Mapping[str, FigureSpec]:
    """All figures by name, in the order of the report."""
    from . import gallery  # noqa: F401 — the built-in figures register themselves when they are first asked for

    return MappingProxyType(registry._REGISTERED)


def choose(name: str) -> FigureSpec:
    """The figure of that name.

    Raises:
        AnalysisError: there is none; the nearest names are given.
    """
    import difflib

    known = registered()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or list(known)[:3]
        raise AnalysisError(
            f"figure {name!r}",
            expected=f"a name of the list, for instance {', '.join(near)}",
            got="no such figure",
            remedy="`kerneltrack plot --list` names them all.",
        )
    return known[name]
