"""Amounts for people: bytes in binary units, FLOPs in decimal ones."""

from __future__ import annotations


def format_bytes(size: float) -> str:
    """``size`` in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_flops(count: float) -> str:
    """``count`` in decimal units."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} P"
