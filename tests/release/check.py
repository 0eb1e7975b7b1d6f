"""`make release-check`: everything that a release promises to a stranger, from a clean clone of HEAD.

    python tests/release/check.py [STEP…]

Builds, checks what was built, installs it into empty environments, trains the demo at smoke size from the wheel, reads
its archives where torch is missing and with other programs, runs the lowest bounds, and makes the site. Needs package
registries. A step whose program is missing is skipped, and says so; exit code 1 if any step failed. RELEASE_PYTHONS
names interpreters that are not on the path.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run by path

from tests.release import built  # noqa: E402

MINORS = (11, 12, 13)
TOOLS = ("build", "twine", "cffconvert", "trove-classifiers")
#: The demo at smoke size, which takes seconds: every part of it, and none of the paper's orderings.
SMOKE = """
import sys
from pathlib import Path
from kerneltrack.analysis.commands import run_demo
from kerneltrack.analysis.commands.demo_checks import Experiment
sys.exit(run_demo(Path(sys.argv[1]), experiment=Experiment(samples=48, width=32, steps=200, halve_at=150)))
"""
#: What is timed: a fresh interpreter each time, the fastest of five.
IMPORTS = (
    "import kerneltrack",
    "from kerneltrack import open_archive; open_archive(ARCHIVE)[0]",
    "from kerneltrack.analysis import load; load(ARCHIVE).dataset",
    "from kerneltrack.analysis.cli import main; main(['--help'])",
    "import matplotlib.pyplot",
    "from kerneltrack.callbacks import NTKTracker",
)


class Skipped(Exception):
    """A step whose program is missing; says which."""


class Failed(Exception):
    """A step that found something; says what."""


@dataclass
class Release:
    """A clean clone of HEAD, and what was made of it."""

    folder: Path
    measured: list[str] = field(default_factory=list)

    @cached_property
    def checkout(self) -> Path:
        run("git", "clone", "--quiet", ROOT, self.folder / "checkout")
        return self.folder / "checkout"

    @cached_property
    def tools(self) -> Path:
        return environment(self.folder / "tools", sys.executable, *TOOLS)

    @cached_property
    def dist(self) -> Path:
        run(self.tools / "python", "-m", "build", "--outdir", self.folder / "dist", self.checkout)
        return self.folder / "dist"

    @property
    def wheel(self) -> Path:
        return next(self.dist.glob("*.whl"))

    @property
    def sdist(self) -> Path:
        return next(self.dist.glob("*.tar.gz"))

    @cached_property
    def tracked(self) -> list[str]:
        return run("git", "-C", self.checkout, "ls-files").splitlines()

    @cached_property
    def demo(self) -> Path:
        """demo.h5 and control.h5, made by the wheel in an environment that had nothing."""
        python = environment(self.folder / "full", sys.executable, self.wheel) / "python"
        self.measured.append(f"everything: {megabytes(self.folder / 'full'):,.0f} MB")
        run(python, "-I", "-c", SMOKE, self.folder / "demo", cwd=self.folder)
        return self.folder / "demo"


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command.

    Raises:
        Failed: it ended with another exit code than 0.
    """
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    if done.returncode:
        tail = (done.stdout + done.stderr)[-3000:]
        raise Failed(f"exit code {done.returncode} from {' '.join(words)[:200]}\n{tail}")
    return done.stdout


def environment(place: Path, python: str, *packages: object) -> Path:
    """The folder of programs of a new virtual environment with these packages."""
    run(python, "-m", "venv", place)
    run(place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return place / "bin"


def reading_environment(release: Release, place: Path, python: str) -> Path:
    """What docs/format.md tells the lab next door to install."""
    programs = environment(place, python, "-r", release.checkout / "requirements-reading.txt")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", release.wheel)
    return programs


def megabytes(folder: Path) -> float:
    """What is installed, bytecode included, in MB of 10⁶ bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def pythons() -> Iterator[tuple[int, str]]:
    """The interpreters that are here, one for each minor version that is promised."""
    given = os.environ.get("RELEASE_PYTHONS", "").split()
    usual = [name for minor in MINORS if (name := shutil.which(f"python3.{minor}"))]
    pyenv = sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    found: dict[int, str] = {}
    for python in (sys.executable, *given, *usual, *pyenv):
        asked = "import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)"
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0 and int(done.stdout) in MINORS:
            found.setdefault(int(done.stdout), python)
    yield from sorted(found.items())


def raise_any(faults: Iterator[str]) -> None:
    found = list(faults)
    if found:
        raise Failed("\n".join(found))


# -- steps ------------------------------------------------------------------------------------------------------------


def build(release: Release) -> str:
    """The sdist, and the wheel from it; both complete."""
    raise_any(
        itertools.chain(
            built.sdist_faults(release.sdist, release.tracked), built.wheel_faults(release.wheel, release.tracked)
        )
    )
    return f"{release.sdist.name}, {release.wheel.name}: every tracked file"


def described(release: Release) -> str:
    """twine, the licence, the links and the classifiers."""
    run(release.tools / "twine", "check", "--strict", release.sdist, release.wheel)
    code = (
        f"from tests.release import built; print(*built.metadata_faults(built.Path({str(release.wheel)!r})), sep='\\n')"
    )
    raise_any(filter(None, run(release.tools / "python", "-c", code, cwd=release.checkout).splitlines()))
    address = built.placeholder(release.wheel)
    return f"metadata {built.metadata(release.wheel)['Metadata-Version']}" + (
        f"; before an upload give the project an address in setup.cfg ({address})" if address else ""
    )


def citation(release: Release) -> str:
    """CITATION.cff against its schema."""
    return run(release.tools / "cffconvert", "--validate", "-i", release.checkout / "CITATION.cff").strip()


def demo(release: Release) -> str:
    """The wheel in an empty environment, and the demo at smoke size from it."""
    return ", ".join(sorted(path.name for path in release.demo.iterdir()))


def other_pythons(release: Release) -> str:
    """The same on the other promised versions of Python."""
    tried = []
    for minor, python in pythons():
        if minor == sys.version_info[1]:
            continue
        programs = environment(release.folder / f"full-{minor}", python, release.wheel)
        run(programs / "python", "-I", "-c", SMOKE, release.folder / f"demo-{minor}", cwd=release.folder)
        shutil.rmtree(release.folder / f"full-{minor}")
        tried.append(f"3.{minor}")
    missing = {f"3.{minor}" for minor in MINORS} - {*tried, f"3.{sys.version_info[1]}"}
    said = f"trained on Python {', '.join(tried) or 'no other'}"
    if missing:
        raise Skipped(f"{said}; not here: {', '.join(sorted(missing))}")
    return said


def reading(release: Release) -> str:
    """Every offline command where torch is not installed, on every promised Python that is here."""
    tried = []
    for minor, python in pythons():
        place = release.folder / f"reading-{minor}"
        programs = reading_environment(release, place, python)
        if minor == sys.version_info[1]:
            release.measured.append(f"reading and analysis: {megabytes(place):,.0f} MB")
        (release.folder / f"read-{minor}").mkdir()
        script = release.checkout / "tests" / "analysis" / "reading_only.py"
        archives = [release.folder / f"read-{minor}" / name for name in ("demo.h5", "control.h5")]
        for archive in archives:
            shutil.copy(release.demo / archive.name, archive)
        said = run(programs / "python", "-I", script, *archives, release.folder / f"read-{minor}", cwd=release.folder)
        raise_any(reading_faults(said))
        tried.append(f"3.{minor}")
    return f"on Python {', '.join(tried)}"


def reading_faults(said: str) -> Iterator[str]:
    """What went wrong in an environment without torch."""
    needs_torch = {"demo", "plan", "track"}
    for line in map(json.loads, said.splitlines()):
        if (command := line.get("command")) and line["code"] != (2 if command in needs_torch else 0):
            yield f"{command}: {line}"
        if command in needs_torch and "`pip install kerneltrack`" not in line["stderr"]:
            yield f"{command} does not say what to install: {line}"
        for name in line.get("refused", []):
            if name["type"] != "MissingPackageError":
                yield f"torch is there: {name}"


def times(release: Release) -> str:
    """How long imports take, and how large the environments are: what docs/platforms.md states."""
    python, archive = release.folder / "full" / "bin" / "python", release.demo / "demo.h5"
    for statement in IMPORTS:
        words = [str(python), "-I", "-c", statement.replace("ARCHIVE", repr(str(archive)))]
        seconds = [timed(words) for _ in range(5)]
        release.measured.append(f"{statement}: {min(seconds):.2f} s")
    return "".join(f"\n    {line}" for line in release.measured)


def timed(words: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(words, capture_output=True, check=True)
    return time.perf_counter() - begun


def others(release: Release) -> str:
    """The snippets of docs/format.md in R and Octave."""
    python = release.folder / "full" / "bin" / "python"
    script = release.checkout / "tests" / "archive" / "other_readers.py"
    said = run(python, script, cwd=release.checkout).strip().replace("\n", "; ")
    if "skipped" in said:
        raise Skipped(said)
    return said


def card(release: Release) -> str:
    """What `publish --card` writes: the citation against its schema, and the checksums by sha256sum."""
    target = release.folder / "public"
    words = ["--licence", "CC-BY-4.0", "--author", "A", "--contact", "a@example.org", "--card"]
    program = release.folder / "full" / "bin" / "kerneltrack"
    run(program, "publish", release.demo / "demo.h5", "-o", target / "demo.h5", *words, cwd=release.folder)
    run("sha256sum", "--strict", "-c", "SHA256SUMS", cwd=target)
    return run(release.tools / "cffconvert", "--validate", "-i", target / "CITATION.cff").strip()


def lowest(release: Release) -> str:
    """`make lowest`: the oldest releases that setup.cfg admits."""
    return run("make", "lowest", f"PYTHON={sys.executable}", cwd=release.checkout).strip().splitlines()[-1]


def site(release: Release) -> str:
    """`make docs`."""
    run("make", "docs", f"PYTHON={sys.executable}", cwd=release.checkout)
    return "made"


STEPS: dict[str, Callable[[Release], str]] = {
    step.__name__: step
    for step in (build, described, citation, demo, card, reading, times, others, other_pythons, site, lowest)
}


def main(names: Sequence[str]) -> int:
    """Run the steps; 1 if one failed."""
    if run("git", "-C", ROOT, "status", "--porcelain"):
        print("note: what is not committed is not checked")
    failed = []
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        release = Release(Path(folder))
        for name in names or STEPS:
            begun = time.perf_counter()
            try:
                said = f"ok: {STEPS[name](release)}"
            except Skipped as error:
                said = f"SKIPPED: {error}"
            except Failed as error:
                said = f"FAILED: {error}"
                failed.append(name)
            print(f"{name} ({time.perf_counter() - begun:.0f} s) {said}", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "everything that was tried is in order")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
