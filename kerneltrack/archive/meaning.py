"""Meaning: a resumed run must measure what the archive's rows are. What an archive does not say cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kerneltrack.archive.header import Header
from kerneltrack.errors import ArchiveError
from kerneltrack.schema import Field
from kerneltrack.snapshot import Json, ProbeRecord, Provenance

#: Settings of a probe that say what its numbers are, and the tracker's argument for each. How they are computed
#: (method, memory) and when may change.
SETTINGS: Mapping[str, str] = {
    "output": "output", "gauge": "gauge", "parameters": "params", "loss": "loss", "residual": "loss", "forward": "forward",
    "eigenpairs": "eigenpairs", "top_k": "top_k", "energy_k": "output", "dtype": "precision of the model",
    "mode": "mode", "extension_of": "probe",
}  # fmt: skip
#: What an archive means that does not have the setting, because it is from before there was one.
_BEFORE: Mapping[str, Json] = {"gauge": "raw"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def require_same(header: Header, records: Mapping[str, ProbeRecord], provenance: Provenance | None, path: Path) -> None:
    """Refuse to continue an archive with settings under which its numbers mean something else.

    Raises:
        ArchiveError: names the setting, the archive's value and the given one.
    """
    frozen = _frozen(header.provenance) | _frozen(provenance or header.provenance)
    for name, record in records.items():
        theirs = {**_BEFORE, **header.probes[name].settings}
        for key, argument in SETTINGS.items():
            if key in theirs and key in record.settings:
                old, new = (_plain(settings[key], frozen) for settings in (theirs, record.settings))
                if old != new:
                    raise _refusal(argument, theirs[key], record.settings[key], f"probe {name!r}, {path}")
    then, now = (p.run.get("observables") for p in (header.provenance, provenance or header.provenance))
    if then is not None and now is not None and set(then) != set(now):
        raise _refusal("observables", then, now, str(path))


def require_same_definitions(columns: Iterable[Field], path: Path) -> None:
    """Refuse to continue a column whose numbers follow another definition than the catalogue's of today.

    Raises:
        ArchiveError: names the observable, and both definitions.
    """
    from kerneltrack.observables import catalogue  # its needs (SciPy) are no reader's

    for field in columns:
        entry = catalogue().get(field.name)
        if entry is not None and field.definition != entry.definition:
            raise ArchiveError(
                f"the archive's {field.name!r} follows another definition",
                expected=f"definition {field.definition}",
                got=f"definition {entry.definition}",
                where=str(path),
                remedy="Write a new archive under another path, or resume with the version that began this one.",
            )


def _refusal(argument: str, old: Json, new: Json, where: str) -> ArchiveError:
    if isinstance(old, list) and isinstance(new, list):
        old, new = [v for v in old if v not in new] or old, [v for v in new if v not in old] or new
    return ArchiveError(
        f"the archive was measured with another {argument}",
        expected=json.dumps(old),
        got=json.dumps(new),
        where=where,
        remedy=f"Resume with the {argument} of the archive, or write a new archive under another path.",
    )


def _plain(value: Json, frozen: set[str]) -> Json:
    """A setting as it is compared: without addresses in memory, and without what does not train at one of the two starts."""
    if isinstance(value, str):
        return _ADDRESS.sub("", value)
    return [v for v in value if v not in frozen] if isinstance(value, list | tuple) else value


def _frozen(provenance: Provenance) -> set[str]:
    return {str(p["name"]) for p in provenance.parameters if not p.get("trainable", True)}
