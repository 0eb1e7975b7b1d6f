"""What every page is made with: an engine that escapes every value, the package's own files, and the colours of both themes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..figures import DARK, PAPER
from ..text import plain

if TYPE_CHECKING:
    from jinja2 import Environment

#: The page's own colours in the dark; light ones stand in page.css.
_DARK_PAGE = (
    "--paper:#14171c;--raised:#1b1f26;--ink:#ebe9e4;--soft:#c3c4c6;--muted:#9a9da4;--grid:#2a2f37;--line:#2e343d;"
    "--accent:#7cc4f2;color-scheme:dark"
)


def colours() -> str:
    """CSS variables of the figures, and the dark page: by the reader's system or the button, never in print."""
    light, dark = (
        ";".join(
            [f"--category-{i}:{c}" for i, c in enumerate(style.category, 1)]
            + [f"--order-{i}:{c}" for i, c in enumerate(style.order, 1)]
        )
        for style in (PAPER, DARK)
    )
    dark = f"{_DARK_PAGE};{dark}"
    return (
        f":root{{{light}}}@media screen{{:root[data-theme=dark]{{{dark}}}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
    )


def environment() -> Environment:
    """The template engine: whatever it prints is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("kerneltrack.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
    )
    made.filters["unbroken"] = unbroken
    return made


def _legible(value: Any) -> Any:
    """Every text that a template prints: what turns the direction of reading is shown and does not act."""
    return plain(value, len(value)) if type(value) is str else value  # what is markup already is a subclass


#: A blank between a number and its unit, its sign or the word that it belongs to.
_BOUND = re.compile(
    r"(?<=\d) (?=%|mrad|nats|(?:ms|s|min|h)\b)|(?<=\bstep) (?=\d)|(?<=[₀-₉\w)]) (?=×\d)|(?<=[=≥≤≈±→]) (?=[−\d])"
    r"|(?<=\w) (?=[=≥≤≈±→] )|(?<=ᵀ) (?=\S)|(?<=\w) (?=/ )|(?<= /) (?=\w)|(?<=\bJ) (?=P\b)|(?<=\bP) (?=J)"
)


def unbroken(text: str) -> str:
    r"""No line ends between a number and what belongs to it.

    >>> unbroken("at step 2,000 ρ ≈ 1.0, 52 % of it").split(" ")
    ['at', 'step\xa02,000', 'ρ\xa0≈\xa01.0,', '52\xa0%', 'of', 'it']
    """
    return _BOUND.sub("\u00a0", text)


def resource(*names: str) -> str:
    """The package's own files of these names, one after the other."""
    from importlib.resources import files

    folder = files("kerneltrack.analysis.report")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def value_text(value: object) -> str:
    """A setting or an entry of the metadata in one line."""
    import json

    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain(text, 2000) or "–"
