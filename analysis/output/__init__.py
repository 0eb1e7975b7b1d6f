"""What leaves a command: files that are written whole or not at all, and what goes to streams, of any encoding."""

from __future__ import annotations

from .files import distinct, free_for_archive, is_stdout, is_stream, may_write, new_archive, new_beside, whole, write
from .kinds import CARD, CITATION, FIGURE, FILM, HTML, NETCDF, SUMS, TABLE, Kind
from .streams import patient
from .terminal import complain, print_json, print_line, print_tables

__all__ = [
    "CARD",
    "CITATION",
    "FIGURE",
    "FILM",
    "HTML",
    "NETCDF",
    "SUMS",
    "TABLE",
    "Kind",
    "complain",
    "distinct",
    "free_for_archive",
    "is_stdout",
    "is_stream",
    "may_write",
    "new_archive",
    "new_beside",
    "patient",
    "print_json",
    "print_line",
    "print_tables",
    "whole",
    "write",
]
