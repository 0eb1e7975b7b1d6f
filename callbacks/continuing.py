"""Whether a fit goes on with an earlier run: decided by what was loaded and by the step, never by the tracker object."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
