"""`make other-readers`: the snippets of docs/format.md as they are written, in Octave and in R, and its command lines.

Each program reads the archive that this script writes, and what it read is compared with what went in. A program that
is missing is skipped, and said; exit code 1 if one read something else.

    python tests/archive/other_readers.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run by path

import numpy as np  # noqa: E402

from kerneltrack.archive import ArchiveWriter  # noqa: E402
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot  # noqa: E402

PAGE = ROOT / "docs" / "format.md"
STEPS = (0, 3, 10)
SETTINGS = {"output": "trace", "note": "λ ≥ 0, naïve", "energy_k": [1, 2]}
#: Each language of the page: the program, what goes before its snippet and what prints what it read, as JSON a line.
READERS = {
    "matlab": (  # jsonencode keeps 15 digits
        ("octave-cli", "--norc", "--quiet", "SCRIPT.m"),
        "pkg load netcdf\n",
        "printf('%s\\n', jsonencode(double(step(:)')));\n"
        "printf('['); printf('%.17g,', eigenvalues(1:end-1)); printf('%.17g]\\n', eigenvalues(end));\n"
        "printf('%s\\n', jsonencode(settings));\n"
        "printf('['); printf('%.17g,', largest(1:end-1)); printf('%.17g]\\n', largest(end));\n",
    ),
    "r": (
        ("Rscript", "--vanilla", "SCRIPT.r"),
        "",
        "said <- function(x) cat(jsonlite::toJSON(as.vector(x), digits = NA), '\\n')\n"
        "exact <- function(x) cat('[', paste(sprintf('%.17g', as.vector(x)), collapse = ','), ']\\n')\n"
        "said(step); exact(eigenvalues)\ncat(jsonlite::toJSON(settings, auto_unbox = TRUE), '\\n'); exact(largest)\n",
    ),
}
#: How R and Octave say that a package is missing.
_MISSING = re.compile(r"there is no package called .(?P<r>\w+)|package (?P<octave>\w+) is not installed")
COMMANDS = (("ncdump", "-h", "run.h5"), ("h5dump", "-H", "run.h5"))


def snippet(language: str, page: str) -> str:
    """The code of a language on the page."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0]


def eigenvalues() -> np.ndarray:
    """(T, mode): what is stored."""
    return -np.sort(-np.random.default_rng(0).normal(size=(len(STEPS), 4)))


def write(path: Path) -> None:
    record = ProbeRecord(name="train", fingerprint="sha256:00", count=4, settings=SETTINGS)
    with ArchiveWriter(path, probes=[record], provenance=Provenance(run={"run_id": "r"})) as writer:
        for step, values in zip(STEPS, eigenvalues(), strict=True):
            writer.append(Snapshot(step=step, trigger="every 1 — λ", probes={"train": {"eigenvalues": values}}))


def difference(lines: Sequence[str]) -> str:
    """How what a program printed differs from what was stored; "" for not at all."""
    try:
        step, read, settings, largest = map(json.loads, lines)
    except ValueError as error:
        return f"not four lines of JSON: {error}: {lines!r}"[:400]
    stored = eigenvalues()
    if list(map(int, step)) != list(STEPS):
        return f"steps {step}"
    if read != stored.ravel().tolist():  # the reverse order of dimensions, column by column, is the order of the file
        return f"eigenvalues {read}"
    if largest != stored[:, 0].tolist():
        return f"the largest {largest}"
    return "" if settings == SETTINGS else f"settings {settings}"


def read_with(language: str, folder: Path) -> str:
    """What came of one language: "ok", "skipped: …" or "FAILED: …"."""
    command, before, after = READERS[language]
    if shutil.which(command[0]) is None:
        return f"skipped: no {command[0]}"
    script = folder / f"script.{command[-1].rpartition('.')[2]}"
    script.write_text(before + snippet(language, PAGE.read_text(encoding="utf-8")) + after, encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    words = [*command[:-1], str(script)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if missing := _MISSING.search(done.stderr):
        return f"skipped: {command[0]} has no package {missing['r'] or missing['octave']}"
    found = difference([line for line in done.stdout.splitlines() if line.strip()])
    return f"FAILED: {found}\n{done.stderr[-1000:]}" if found else "ok"


def dumped_with(command: Sequence[str], folder: Path) -> str:
    """What came of one command line of the page."""
    if shutil.which(command[0]) is None:
        return f"skipped: no {command[0]}"
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return "ok" if done.returncode == 0 and "eigenvalues" in done.stdout else f"FAILED: {done.stderr[-1000:]}"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "run.h5")
        outcomes = {language: read_with(language, folder) for language in READERS}
        outcomes |= {command[0]: dumped_with(command, folder) for command in COMMANDS}
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    return int(any(outcome.startswith("FAILED") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
