"""Text views: numbers as words, and tables that print the same content in a terminal, in a pipe and on a page.

Whatever comes out of an archive may be hostile: :func:`plain` escapes control characters before anything is printed,
and tables are printed without interpreting markup.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kerneltrack.archive import printable

if TYPE_CHECKING:
    from rich.console import Console

#: What stands for a number that was not measured.
NOT_MEASURED = "–"


@dataclass(frozen=True)
class Table:
    """A table of texts: numbers are formatted already, nothing is markup.

    Attributes:
        title: above it; may be empty.
        columns: the heads; the first column is left-aligned, the others right-aligned.
        rows: cells.
        notes: sentences below it.
        quiet: indices of rows that comment on the row above (a control, a difference).
        text: indices of columns, besides the first, that hold words.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    quiet: frozenset[int] = field(default_factory=frozenset)
    text: frozenset[int] = field(default_factory=frozenset)

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which are left-aligned."""
        return column == 0 or column in self.text


def number(value: float, digits: int = 3) -> str:
    """A number for reading: ``digits`` significant digits, thousands separated, "–" for NaN.

    >>> number(9867.8), number(0.00412), number(0.98, 2), number(float("nan")), number(1e-9)
    ('9,870', '0.00412', '0.98', '–', '1e-09')
    >>> number(1.7976931348623157e308)
    '1.8e+308'
    """
    if math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if math.isinf(rounded):  # rounded up beyond the greatest float
        return f"{value:.{digits}g}".replace("-", "−")
    magnitude = math.floor(math.log10(abs(rounded)))
    if not -4 <= magnitude < 7:
        return f"{rounded:.{digits - 1}e}".replace("-", "−", 1) if rounded < 0 else f"{rounded:.{digits}g}"
    text = f"{rounded:,.{max(digits - 1 - magnitude, 0)}f}"
    return text.replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A difference for reading, with its sign."""
    text = number(value, digits)
    return text if text in (NOT_MEASURED, "0") or value < 0 else f"+{text}"


def count(value: int) -> str:
    """An integer with its thousands separated."""
    return f"{value:,}"


def subscript(value: int) -> str:
    """An integer as subscript digits, for λ₁₀ and v₂."""
    return str(value).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def duration(seconds: float) -> str:
    """Seconds for reading: "3.2 s", "4 min 05 s", "2 h 10 min"."""
    if not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def finite_or_none(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity: None stands for them."""
    return float(value) if math.isfinite(value) else None


def plain(value: object, limit: int = 400) -> str:
    """Any value as one line of printable text: what could move the cursor is shown as an escape."""
    return printable(value, limit=limit)


#: What Markdown, HTML or TeX in a page acts on; "www." becomes a link by itself.
_ACTING = re.compile(r"([\\`*_\[\]()<>&!|~$#@{}^]|:(?=//)|(?<=www)\.)")


def markdown(value: object, limit: int = 400) -> str:
    r"""Any value as text inside a line of Markdown: nothing in it acts.

    >>> print(markdown("![a](http://x) <b> a_b"))
    \!\[a\]\(http\://x\) \<b\> a\_b
    """
    return _ACTING.sub(r"\\\1", plain(value, limit))


def quoted(value: object, limit: int = 400) -> str:
    """Any value as a double-quoted scalar of YAML, in one line; JSON's is one where every character is printable."""
    return json.dumps(plain(value, limit), ensure_ascii=False)


def print_table(console: Console, table: Table) -> None:
    """A rich table in a terminal; aligned plain columns elsewhere, for grep and awk."""
    if console.is_terminal:
        _rich(console, table)
    else:
        console.print("\n".join(plain_lines(table)), markup=False, highlight=False, soft_wrap=True)


def plain_lines(table: Table) -> list[str]:
    """The table as aligned columns of plain text, without a trailing blank; without rows its title and notes alone."""
    if not table.rows:
        return [*([plain(table.title)] if table.title else []), *(plain(note, 2000) for note in table.notes)]
    cells = [list(map(plain, table.columns)), *[list(map(plain, row)) for row in table.rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [plain(table.title)] if table.title else []
    lines += [
        "  ".join(
            c.ljust(w) if table.is_text(i) else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return lines + [plain(note, 2000) for note in table.notes]


def _rich(console: Console, table: Table) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=Text(plain(table.title), style="bold") if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, column in enumerate(table.columns):
        drawn.add_column(Text(plain(column)), justify="left" if table.is_text(i) else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        drawn.add_row(*[Text(plain(cell)) for cell in row], style="dim" if i in table.quiet else None)
    console.print(drawn)
    for note in table.notes:
        console.print(Text(plain(note, 2000)))


#: From so many runs on a spread is worth drawing; below, single lines say more than a band over them.
BAND_RUNS = 6
