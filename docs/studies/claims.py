"""What every study shares: a paper's claims as a table, the command line, and what a page says about its runs.

A study is a folder beside this file with one script, ``study.py``; README.md says how to add one. No number of a page is
typed by hand: a study measures, puts what it found into :class:`Claim`, and these functions write it down.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from kerneltrack import open_archive
from kerneltrack.analysis import load

Size = TypeVar("Size")
Tag = Literal["read", "recalled", "derived"]
ANSWERS = {True: "yes", False: "**no**"}


@dataclass(frozen=True)
class Claim:
    """One row of a study's table.

    Attributes:
        key: the fact sheet's name of the check, and what it is about in a few words.
        abstract: what the paper's abstract claims; empty where it says nothing of it.
        expected: what is expected, in numbers or as an ordering.
        tag: where the expectation comes from: "read" in a source, "recalled" from memory, "derived" by algebra.
        measured: what these runs show, with seeds and spread.
        holds: against the abstract and what was derived only, never against what was recalled; None: not decidable at
            this size, or neither of the two says anything.
    """

    key: str
    abstract: str
    expected: str
    tag: Tag
    measured: str
    holds: bool | None


def table(claims: Iterable[Claim]) -> str:
    """The claims as a Markdown table."""
    lines = ["| claim | abstract says | expected (tag) | measured | holds? |", "| --- | --- | --- | --- | --- |"]
    for c in claims:
        cells = (c.key, c.abstract or "–", f"{c.expected} ({c.tag})", c.measured, _answer(c))
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def verdict(claims: Iterable[Claim]) -> str:
    """How many of the claims that can be decided hold, and the keys of those that do not, in a sentence."""
    decided = [c for c in claims if c.holds is not None]
    failed = [c.key for c in decided if not c.holds]
    return f"{len(decided) - len(failed)} of {len(decided)} claims that can be decided hold" + (
        f"; not: {', '.join(failed)}." if failed else "."
    )


def spread(values: Iterable[float], digits: int = 3, of: str = "seeds") -> str:
    """Median and range, with how many of what: ``0.81 (0.78 to 0.84, 3 seeds)``; a single value stands alone."""
    v = np.asarray(list(values), dtype=np.float64)
    median, low, high = (f"{number:.{digits}g}" for number in (np.median(v), v.min(), v.max()))
    if v.size == 1:
        return median
    return f"{median} ({low} to {high}, {v.size} {of})" if low != high else f"{median} ({v.size} {of})"


def command_line(
    parser: argparse.ArgumentParser, sizes: Mapping[str, Size], name: str
) -> tuple[tuple[str, Size, Path], argparse.Namespace]:
    """``--size`` and ``--out`` of a study's script.

    Args:
        parser: with the options of this study alone.
        sizes: "smoke", "desk" and "full" with the configuration of each.
        name: of the study; archives go to ``out/<name>/<size>`` by default.

    Returns:
        The name of the size, its configuration, and the folder of the archives, which exists; and all words.
    """
    parser.add_argument("--size", choices=tuple(sizes), default="desk")
    parser.add_argument("--out", type=Path, help="folder of the archives; finished ones there are used again")
    words = parser.parse_args()
    out: Path = words.out or Path("out") / name / words.size
    out.mkdir(parents=True, exist_ok=True)
    return (words.size, sizes[words.size], out), words


def ran_on() -> str:
    """Versions, processor and threads, in a sentence."""
    threads = torch.get_num_threads()
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {_processor()}, "
        f"{threads} thread{'s' if threads > 1 else ''} a process, {os.cpu_count()} cores"
    )


def finished(path: Path, steps: int) -> bool:
    """Whether an archive is there whose last state is that after ``steps`` updates: a run that was cut off leaves one as well."""
    if not path.exists():
        return False
    with open_archive(path) as archive:
        return len(archive) > 0 and int(archive.steps[-1]) == steps


def archives(paths: Iterable[Path]) -> str:
    """What the archives hold, as a Markdown table: snapshots, last step, probe, modes, time spent measuring, bytes."""
    lines = ["| archive | snapshots | last step | N × O | kernel | measuring / s | MB |", "| --- " * 7 + "|"]
    for path in paths:
        run = load(path).only
        spent = float(np.nansum(run.values("snapshot_seconds")))
        lines.append(
            f"| {path.stem} | {len(run)} | {int(run.steps[-1]):,} | {run.count:,} × {run.outputs} | "
            f"{run.settings['output']} | {spent:.1f} | {path.stat().st_size / 1e6:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _answer(claim: Claim) -> str:
    if claim.holds is not None:
        return ANSWERS[claim.holds]
    return "not decided" if claim.abstract or claim.tag == "derived" else f"only {claim.tag}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
