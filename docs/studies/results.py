"""What a study measured, as one file beside its page: ``results.json``, at most 1 MB. The page is made from it alone.

A run is a dictionary of numbers, kept in a file of its own as soon as it is finished, so an interrupted study goes on.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import ran_on

LARGEST = 1_000_000
Run = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """What was run, on what, and what came out.

    Attributes:
        study: its name.
        size: "smoke", "desk" or "full".
        settings: the configuration of that size.
        commit: of the code that ran; with "-dirty" where files were changed.
        ran_on: versions and processor.
        seconds: of all runs together.
        runs: the numbers of each; one that is not known is None.
    """

    study: str
    size: str
    settings: dict[str, Any]
    commit: str
    ran_on: str
    seconds: float
    runs: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Results:
        """From a file that :meth:`write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """One run a line. Not-a-number is no JSON: it raises."""
        facts = dataclasses.asdict(self)
        runs = ",\n".join(json.dumps(run, ensure_ascii=False, allow_nan=False) for run in facts.pop("runs"))
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=1)
        text = f'{text.removesuffix("}").rstrip()},\n "runs": [\n{runs}\n]}}\n'
        if len(text.encode()) > LARGEST:
            raise ValueError(
                f"the results of {self.study} are {len(text.encode()):,} bytes; at most {LARGEST:,} are committed"
            )
        path.write_text(text, encoding="utf-8")


def collect(
    study: str, size: str, settings: Any, runs: Mapping[str, Callable[[], Mapping[str, Any]]], folder: Path
) -> Results:
    """The results of all runs; those that are finished in the folder, for the same settings, are not run again.

    Args:
        study: its name.
        size: the name of the size.
        settings: a dataclass: the configuration of that size.
        runs: the name of each run, and what makes its numbers.
        folder: where the finished ones lie.
    """
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    # Of the code that is loaded, whatever is committed while it runs.
    present = {"commit": commit(), "ran_on": ran_on()}
    done = [_finished(folder / f"{name}.json", plain, run, present) for name, run in runs.items()]
    commits, machines = (", ".join(sorted({one[fact] for one in done})) for fact in ("commit", "ran_on"))
    seconds = round(sum(one["seconds"] for one in done), 1)
    return Results(study, size, plain, commits, machines, seconds, [one["numbers"] for one in done])


def publish(
    results: Results, home: Path, page: Callable[[Results], str], **pictures: Callable[[Results, Path], object]
) -> None:
    """Write results.json into a folder, and the page and each NAME.png, which are made of it alone."""
    results.write(home / "results.json")
    found = Results.read(home / "results.json")
    (home / "README.md").write_text(page(found), encoding="utf-8")
    for name, draw in pictures.items():
        draw(found, home / f"{name}.png")
    print(f"wrote {home / 'README.md'}")


def _finished(
    path: Path, settings: dict[str, Any], run: Callable[[], Mapping[str, Any]], present: Mapping[str, str]
) -> dict[str, Any]:
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] == settings:
            return found
    began = time.perf_counter()
    numbers = dict(run())
    found = {"settings": settings, **present, "seconds": time.perf_counter() - began, "numbers": numbers}
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
    beside.replace(path)  # whole or not at all
    return found


def share_of(runs: Mapping[str, Run], share: Sequence[int]) -> dict[str, Run]:
    """Every n-th run from the i-th, for share (i, n): n processes that are given i = 0 … n − 1 make all of them.

    Raises:
        ValueError: i that is not from 0 to n − 1.
    """
    first, every = share
    if not 0 <= first < every:
        raise ValueError(f"a share I/N has I from 0 to N - 1, not {first}/{every}")
    return dict(list(runs.items())[first::every])


def commit() -> str:
    """The short name of the commit that runs, with "-dirty" where tracked code was changed; "unknown" outside git.

    Pages and results are no code: what one study writes makes the next one's commit no other.
    """
    named = _git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = _git("diff", "--quiet", "HEAD", "--", ":/*.py").returncode
    return f"{named}{'-dirty' if changed else ''}" if named else "unknown"


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
