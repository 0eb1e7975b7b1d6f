"""Which studies are due, and why; runs those that are missing or stale, one after another, and writes summary.md at the end.

    python docs/studies/due.py [--list] [STUDY ...]

The studies are those of README.md's table. One is

- **missing** where its page is not there, or the results.json that it keeps;
- **stale** where results.json is of another size than desk, or where the code that makes its numbers (lineage.py), its settings
  with it, is not that of the commit that results.json names;
- **cannot be told** where it keeps no results.json, or this clone has not the commit it ran from.

What cannot be told runs when it is named only; a study that is named runs whatever it is. Runs that are finished are kept in
``out/STUDY/desk-CODE``, CODE of that code: an interrupted study goes on there, and changed code begins anew. A study
without results.json goes on from its archives, as its own command does. Where a study has shares, two processes do half each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import summary
from lineage import Read, fingerprint, lineage

HERE = Path(__file__).parent
SIZE = "desk"
PROCESSES = 2


@dataclass(frozen=True)
class Standing:
    """Of one study: what it is, and why."""

    study: str
    state: Literal["up to date", "missing", "stale", "cannot be told"]
    why: str

    @property
    def due(self) -> bool:
        return self.state in ("missing", "stale")


def standing(home: Path) -> Standing:
    """Of the study in a folder."""
    if not (home / "README.md").exists():
        return Standing(home.name, "missing", "it has no page")
    if not keeps_results(home):
        written = _git(home, "log", "-1", "--format=%h", "--", "README.md") or "no commit"
        return Standing(home.name, "cannot be told", f"it keeps no results.json; {written} wrote its page last")
    if not (home / "results.json").exists():
        return Standing(home.name, "missing", "it has no results.json")
    found = json.loads((home / "results.json").read_text(encoding="utf-8"))
    if found["size"] != SIZE:
        return Standing(home.name, "stale", f"its results are of size {found['size']}")
    return _against(home, found["commit"].split(", "))


def _against(home: Path, commits: Sequence[str]) -> Standing:
    """By the code of the commits that its runs are of."""
    for commit in commits:
        if commit.endswith("-dirty"):
            return Standing(home.name, "cannot be told", f"it ran from files that no commit holds, {commit}")
        if not _git(home, "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}"):
            return Standing(home.name, "cannot be told", f"it ran from {commit}, which is not in this clone")
        if changed := sorted({name for name, _ in lineage(home) ^ lineage(home, _then(commit))}):
            return Standing(home.name, "stale", f"changed since {commit}: {', '.join(changed)}")
    return Standing(home.name, "up to date", f"the code is that of {', '.join(commits)}")


def keeps_results(home: Path) -> bool:
    """Whether a study writes results.json beside its page."""
    return re.search(r"^from results import", _script(home), re.MULTILINE) is not None


def shared(home: Path) -> bool:
    """Whether its command knows shares."""
    return "--share" in _script(home)


def _script(home: Path) -> str:
    return (home / "study.py").read_text(encoding="utf-8")


def command(home: Path, out: Path) -> list[str]:
    """What runs a study: its runs lie in a folder of the code that makes them."""
    words = [sys.executable, str(home / "study.py"), "--size", SIZE]
    if not keeps_results(home):
        return words
    return [*words, "--out", str(out / home.name / f"{SIZE}-{fingerprint(home)}")]


def run(home: Path, out: Path) -> bool:
    """Whether a study ran to its end."""
    words = command(home, out)
    if shared(home):
        one_thread = {"OMP_NUM_THREADS": "1"} | os.environ
        shares = [subprocess.Popen([*words, "--share", f"{i}/{PROCESSES}"], env=one_thread) for i in range(PROCESSES)]
        ended = [share.wait() for share in shares]
        if any(ended):
            return False
    return subprocess.run(words, check=False).returncode == 0


def main(given: Sequence[str] | None = None, root: Path = HERE) -> int:
    """0 where everything that was due ran."""
    names = [study.name for study in summary.studies((root / "README.md").read_text(encoding="utf-8"))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="run these, and no other; by default what is due")
    parser.add_argument("--list", action="store_true", help="only say what is due, and why")
    words = parser.parse_args(given)
    if strange := sorted(set(words.studies) - set(names)):
        parser.error(f"no study {', '.join(strange)}; there are {', '.join(names)}")
    found = [standing(root / name) for name in words.studies or names]
    print("\n".join(f"{one.study:<20} {one.state:<15} {one.why}" for one in found), flush=True)
    if words.list:
        return 0
    failed = [one.study for one in found if (words.studies or one.due) and not run(root / one.study, Path("out"))]
    if failed:
        print(f"did not end well, and is due still: {', '.join(failed)}", file=sys.stderr)
    if all((root / name / "README.md").exists() for name in names):
        subprocess.run([sys.executable, str(root / "summary.py")], check=True)
    return 1 if failed else 0


def _then(commit: str) -> Read:
    """As a commit has a file."""
    return lambda path: _git(path.parent, "show", f"{commit}:./{path.name}") or None


def _git(folder: Path, *words: str) -> str:
    """What git says; nothing where it fails."""
    said = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
