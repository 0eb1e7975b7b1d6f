"""Whether a fit goes on with an earlier run: decided by what was loaded and by the step, never by the tracker object."""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerneltrack.archive import open_archive
from kerneltrack.errors import ArchiveError

from . import callables


@dataclass(frozen=True)
class Left:
    """What a fit was of, and the step at which it ended."""

    trainer: weakref.ref[Any]
    module: weakref.ref[Any]
    step: int

    @classmethod
    def by(cls, trainer: Any) -> Left:
        """The fit that ``trainer`` ends now."""
        return cls(weakref.ref(trainer), weakref.ref(trainer.lightning_module), int(trainer.global_step))

    def goes_on(self, trainer: Any) -> bool:
        """Whether ``trainer`` begins where this fit ended: the same trainer and module, after at least one update."""
        ours = self.trainer(), self.module()
        return ours == (trainer, trainer.lightning_module) and self.step == int(trainer.global_step) > 0


def state_key(archive: Path) -> str:
    """The key under which a checkpoint holds the state of the tracker that writes ``archive``."""
    return f"NTKTracker{{'archive': {str(archive)!r}}}"


def file_name(key: object) -> str:
    """The archive's file name in such a key; "" where it is another callback's."""
    found = re.fullmatch(r"NTKTracker\{'archive': (['\"])(.*)\1\}", str(key))
    return "" if found is None else re.split(r"[/\\]", found[2])[-1]


def moved_state(tracker: Any, callbacks: Iterable[Any], states: Mapping[str, Any]) -> Any:
    """The state of a tracker whose archive has this one's file name in another folder; None unless it is the only one.

    Args:
        tracker: whose state is wanted; None too where the checkpoint has a state under its own key.
        callbacks: all of the trainer's; what belongs to another of them is left to it.
        states: of the checkpoint, by key.
    """
    others = {getattr(callback, "state_key", None) for callback in callbacks if callback is not tracker}
    named = [key for key in states if key not in others and file_name(key) == tracker.archive.name]
    return states[named[0]] if tracker.state_key not in states and len(named) == 1 else None


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
