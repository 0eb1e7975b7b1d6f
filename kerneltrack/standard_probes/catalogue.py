"""The catalogue: every standard probe by its name, and by its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from kerneltrack.errors import ProbeError

from .entry import StandardProbe


@cache
def catalogue() -> Mapping[str, StandardProbe]:
    """Every standard probe by name."""
    texts = sorted((path for path in files(__package__).joinpath("data").iterdir()), key=lambda path: path.name)
    found = [StandardProbe.from_json(path.read_text(encoding="utf-8")) for path in texts if path.name.endswith(".json")]
    return MappingProxyType({entry.name: entry for entry in found})


def standard_probe(name: str) -> StandardProbe:
    """The entry called ``name``.

    Raises:
        ProbeError: there is none.
    """
    if name not in catalogue():
        raise ProbeError(
            f"no standard probe is called {name!r}",
            expected=f"one of {', '.join(catalogue())}",
            remedy="Only sets whose fingerprints were taken from real copies are in the catalogue; "
            "docs/how-to/standard-probes.md shows how another is added. Probe.from_dataloader draws a probe from any data set.",
        )
    return catalogue()[name]


def standard_name(fingerprint: str) -> str:
    """The name of the standard probe with these bytes, or ""."""
    return next((name for name, entry in catalogue().items() if entry.fingerprint == fingerprint), "")
