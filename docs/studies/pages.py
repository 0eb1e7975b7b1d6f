"""What pages are made of beside the claims: tables of numbers, and the reasons where a claim did not come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grid(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar in a cell stays one."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def explained(reasons: Iterable[str]) -> str:
    """The section of reasons; nothing without any."""
    listed = "\n".join(f"- {why}" for why in reasons)
    return f"\n### Where it did not come out\n\n{listed}\n" if listed else ""
