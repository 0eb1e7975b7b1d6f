"""What the built files hold: complete, described, and with links that lead somewhere. Oracle: git's list of files."""

from __future__ import annotations

import email
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path

#: What only the repository needs.
NOT_IN_SDIST = (".ci/", ".gitignore", ".github/")
#: Where the wheel has what stands in a top-level folder.
INSTALLED = {
    "kerneltrack/": "kerneltrack/",
    "callbacks/": "kerneltrack/callbacks/",
    "analysis/": "kerneltrack/analysis/",
}


def sdist_faults(sdist: Path, tracked: Iterable[str]) -> Iterator[str]:
    """Tracked files that the sdist does not have."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in tracked:
        if name not in held and not name.startswith(NOT_IN_SDIST):
            yield f"the sdist has no {name}"


def wheel_faults(wheel: Path, tracked: Iterable[str]) -> Iterator[str]:
    """Files of the package that the wheel does not have, and what it has besides."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        installed + name.removeprefix(folder)
        for name in tracked
        for folder, installed in INSTALLED.items()
        if name.startswith(folder)
    }
    yield from (f"the wheel has no {name}" for name in sorted(wanted - held))
    yield from (f"the wheel has {name}, which nobody tracks" for name in sorted(held - wanted))


def metadata(wheel: Path) -> Message:
    """METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode("utf-8"))


def metadata_faults(wheel: Path) -> Iterator[str]:
    """What a stranger would miss in what an index shows."""
    said = metadata(wheel)
    if said["License-Expression"] != "MIT" or not said.get_all("License-File"):
        yield f"the licence is {said['License-Expression']!r}, its file {said.get_all('License-File')}"
    labels = {line.partition(",")[0] for line in said.get_all("Project-URL", [])}
    yield from (f"no project URL {label}" for label in {"Source", "Documentation", "Changelog", "Issues"} - labels)
    body = re.sub(r"```.*?```", "", str(said.get_payload()), flags=re.DOTALL)
    targets = [*re.findall(r"\]\(([^)\s]+)\)", body), *re.findall(r"(?:src|href)=[\"']([^\"']+)", body)]
    yield from (f"a relative link {target}" for target in targets if not re.match(r"https?://|#|mailto:", target))
    yield from classifier_faults(said.get_all("Classifier", []))


def classifier_faults(given: Iterable[str]) -> Iterator[str]:
    """Classifiers that no index knows."""
    from trove_classifiers import classifiers

    yield from (f"unknown classifier {name}" for name in given if name not in classifiers)


def placeholder(wheel: Path) -> str:
    """The project's address, if it is the one that leads nowhere."""
    urls = metadata(wheel).get_all("Project-URL", [])
    return next((url for url in urls if ".invalid/" in url), "")
