"""What a notebook shows of an archive: a small table of HTML. All text is a stranger's, and is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from kerneltrack.archive.printable import printable


def html_table(title: object, heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table with a caption; without heads its first column is one."""
    head = f"<thead><tr>{_cells('th', heads)}</tr></thead>" if heads else ""
    kinds = ("td", "td") if heads else ("th", "td")
    body = "".join(f"<tr>{_cells(kinds[0], row[:1])}{_cells(kinds[1], row[1:])}</tr>" for row in rows)
    caption = f'<caption style="text-align:left;font-weight:bold">{_text(title)}</caption>'
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


def _cells(kind: str, values: Iterable[object]) -> str:
    return "".join(f'<{kind} style="text-align:left">{_text(value)}</{kind}>' for value in values)


def _text(value: object) -> str:
    return escape(printable(value, limit=120))
