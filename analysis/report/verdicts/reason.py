"""reason(): why there is no answer, as a sentence of its own."""

from __future__ import annotations

from kerneltrack.errors import AnalysisError


def reason(error: AnalysisError) -> str:
    """The error without the file, which stands in the first line of a summary, and with what to do about it."""
    got = "" if error.got is None else f": {error.got}"
    return f"{error.problem[:1].upper()}{error.problem[1:]}{got}. {error.remedy or ''}".rstrip()
