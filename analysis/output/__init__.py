"""What leaves a command: files that are written whole or not at all, and streams of any encoding."""

from __future__ import annotations

from .files import FIGURE, HTML, NETCDF, TABLE, distinct, may_write, new_archive, whole
from .streams import patient

__all__ = ["FIGURE", "HTML", "NETCDF", "TABLE", "distinct", "may_write", "new_archive", "patient", "whole"]
