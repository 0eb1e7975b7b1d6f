"""Verdict: one question that people ask of a run, answered in a word, with what the word stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .finding import Finding

#: The answer where the numbers do not decide, or are not there.
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """One answer.

    Attributes:
        question: what people ask.
        answer: a word or two; :data:`UNDECIDED` where the numbers do not decide.
        because: the numbers that decided, beside their thresholds; or why nothing is decided.
        threshold: which number makes which word.
        source: where the threshold comes from.
        null: what chance or the start would give; "" where the findings say it.
        numbers: the same numbers by the names of the archive; NaN where one was not measured.
        findings: the statements of the report that the answer is about.
    """

    question: str
    answer: str
    because: str
    threshold: str
    source: str
    null: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become None."""
        return {
            "question": self.question,
            "answer": self.answer,
            "because": self.because,
            "null": self.null or None,
            "threshold": self.threshold,
            "source": self.source,
            "numbers": {name: value if math.isfinite(value) else None for name, value in self.numbers.items()},
            "findings": [finding.to_dict() for finding in self.findings],
        }
