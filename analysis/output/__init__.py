"""What leaves a command: files that are written whole or not at all, and what is printed on streams of any encoding."""

from __future__ import annotations

from .files import FIGURE, HTML, NETCDF, TABLE, distinct, may_write, new_archive, whole
from .streams import patient
from .terminal import complain, print_json, print_line, print_tables

__all__ = [
    "FIGURE",
    "HTML",
    "NETCDF",
    "TABLE",
    "complain",
    "distinct",
    "may_write",
    "new_archive",
    "patient",
    "print_json",
    "print_line",
    "print_tables",
    "whole",
]
