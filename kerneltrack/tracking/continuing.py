"""An archive that a run goes on with: whether it is this run's, and whether the functions are those that it was measured with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerneltrack.archive import open_archive
from kerneltrack.errors import ArchiveError
from kerneltrack.tracking import callables


def require_same_callables(
    functions: Mapping[str, Any], earlier: Mapping[str, callables.Identity] | None, path: Path
) -> None:
    """Refuse to go on with an archive with a function of other code, whatever it is called; warn where that cannot be told.

    Raises:
        ArchiveError: names the argument.
    """
    for argument, function in functions.items():
        then, now = (earlier or {}).get(argument), callables.identity(function)
        if earlier is not None and then is None:
            continue  # it was no function: the archive's own settings say so
        if then is not None and then["name"] != now["name"] and argument != "output":
            continue  # the archive's settings hold the name
        difference = callables.differs(then, now)
        if difference is True:
            raise ArchiveError(
                f"the archive was measured with another {argument}",
                expected=f"the code of {then['name'] if then else ''!r} as the checkpoint knows it",
                got=f"{now['name']!r} with other code, defaults or enclosed values",
                where=str(path),
                remedy=f"Resume with the {argument} of the archive, or write a new archive under another path.",
            )
        if difference:
            warnings.warn(
                f"kerneltrack: whether {argument}={now['name']} is the one that {path} was measured with cannot be told: "
                f"{difference}. It is taken for the same.",
                stacklevel=2,
            )


def archive_of(path: Path, run: str | None) -> dict[str, Any] | None:
    """What the archive at ``path`` says of itself, where it is that of this run; else None.

    Returns:
        "settings" and "identity" of each probe, and the facts of the "run": plain values.
    """
    if run is None or not path.exists():
        return None
    try:
        with open_archive(path) as archive:
            facts, records = dict(archive.provenance.run), dict(archive.probes)
    except ArchiveError:
        return None
    if facts.get("run_id") != run:
        return None
    return {
        "run": facts,
        "settings": {name: dict(record.settings) for name, record in records.items()},
        "identity": {name: record.identity for name, record in records.items()},
    }
