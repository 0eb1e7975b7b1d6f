"""Summary: what one run says, the answers first, as text and as plain values.

A run gives its own summary, and what makes one stands above runs: so it is put here when the analysis is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .finding import Finding
from .verdict import Verdict

#: Characters of one line; the longest sentence has some 700.
_LIMIT = 4000


@dataclass(frozen=True)
class Summary:
    """The answers, then every other finding of the report.

    Attributes:
        run: the run's name.
        probe: the probe's name.
        headline: what was tracked, in one sentence.
        verdicts: the answers to what people ask.
        findings: the report's other statements, in its order.
        notes: what a reader must know of the numbers.
    """

    run: str
    probe: str
    headline: str
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, question: str) -> Verdict:
        """The first answer to ``question``.

        Raises:
            KeyError: that is not asked.
        """
        found = next((verdict for verdict in self.verdicts if verdict.question == question), None)
        if found is None:
            raise KeyError(f"{question!r}; asked: {', '.join(verdict.question for verdict in self.verdicts)}")
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The text, line by line. What comes out of the archive is escaped."""
        from kerneltrack.archive import printable

        lines = [f"{self.run}: {self.headline}", "", *_at_a_glance(self.verdicts), ""]
        for i, verdict in enumerate(self.verdicts):
            lines += [f"{verdict.question} {verdict.answer}", *_told(verdict)]
            if verdict.question not in {later.question for later in self.verdicts[i + 1 :]}:
                lines += [f"  Threshold: {verdict.threshold}.", f"  Source: {verdict.source}.", ""]
        for finding in self.findings:
            lines += [f"{finding.title}: {finding.value}", *_sentences(finding), ""]
        lines += [f"Note: {note}" for note in self.notes]
        return [printable(line, limit=_LIMIT) for line in (lines if self.notes else lines[:-1])]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "run": self.run,
            "probe": self.probe,
            "headline": self.headline,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }


def _at_a_glance(verdicts: Sequence[Verdict]) -> list[str]:
    """Every question with its answer, in two columns; of a question that is asked twice also what of."""
    width = max(len(verdict.question) for verdict in verdicts)
    asked = [verdict.question for verdict in verdicts]
    lines = []
    for verdict in verdicts:
        of = f" ({verdict.findings[0].value})" if asked.count(verdict.question) > 1 and verdict.findings else ""
        lines.append(f"{verdict.question.ljust(width)}  {verdict.answer.upper()}{of}")
    return lines


def _told(verdict: Verdict) -> list[str]:
    """What stands below an answer."""
    lines = [f"  {verdict.because}"]
    lines += [line for finding in verdict.findings for line in _sentences(finding)]
    return [*lines, f"  Null: {verdict.null}"] if verdict.null else lines


def _sentences(finding: Finding) -> list[str]:
    return [f"  {text}" for text in (finding.sentence, finding.null) if text]


_maker: list[Callable[..., Summary]] = []


def summarised_by(maker: Callable[..., Summary]) -> None:
    """Say what makes a summary of (run, control)."""
    _maker[:] = [maker]


def summarising(run: object, control: object = None) -> Summary:
    """The summary of a run, by what :func:`summarised_by` named."""
    return _maker[0](run, control)
