"""What a command prints: tables, lines and JSON on standard output, complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..text import Table, plain, print_table

if TYPE_CHECKING:
    from rich.console import Console

#: Characters of one printed line.
_LIMIT = 4000


def print_tables(tables: Sequence[Table]) -> None:
    """Tables, an empty line between them."""
    console = _console()
    for i, table in enumerate(tables):
        if i:
            console.print()
        print_table(console, table)


def print_line(text: str, end: str = "") -> None:
    """One line; with ``end`` an empty one after it."""
    _console().print(plain(text, _LIMIT), soft_wrap=not sys.stdout.isatty())
    if end:
        _console().print()


def print_json(value: Any) -> None:
    """Indented JSON; its ASCII escapes keep control sequences of an archive from the terminal."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


def complain(text: str) -> None:
    """Why a command ends, on standard error."""
    _console(error=True).print(f"kerneltrack: {plain(text, _LIMIT)}", soft_wrap=True)


def _console(*, error: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=error, highlight=False, markup=False, emoji=False)
