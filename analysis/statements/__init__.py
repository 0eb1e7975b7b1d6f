"""What is said of a run, as values: a finding, a verdict, and the summary of both. Nothing is computed here."""

from __future__ import annotations

from .finding import Finding, percent
from .summary import Summary, summarised_by, summarising
from .verdict import UNDECIDED, Verdict

__all__ = ["UNDECIDED", "Finding", "Summary", "Verdict", "percent", "summarised_by", "summarising"]
