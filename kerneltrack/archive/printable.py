"""Text from an archive, made fit for a terminal: whatever could move the cursor or hide itself is escaped."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # control, format (bidi), surrogate, private, line ends


def printable(text: object, *, limit: int = 500) -> str:
    r"""One line of text that shows what it holds.

    Args:
        text: anything; its ``str`` is taken.
        limit: longer text is cut and ends in "…".

    >>> print(printable("red\x1b[31m and\nnew line"))
    red\x1b[31m and\nnew line
    """
    shown = str(text)
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    if shown.isprintable():  # a stricter test, which also refuses other spaces, and settles nearly every text at once
        return shown
    return "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
