"""What a Lightning trainer needs to go on from a moment: its checkpoint, without what belongs to the run's own files."""

from __future__ import annotations

from typing import Any


def checkpoint_of(trainer: Any, tracker: Any) -> dict[str, Any]:
    """The checkpoint of this moment, less weights and optimizers, which a fork has in copies of its own.

    Checkpoint callbacks are left out: they know the run's files, and would go on with them. So are the trackers, and what a
    loader says of itself, which is one batch ahead of the update that begins.
    """
    found: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    for name in ("state_dict", "optimizer_states"):
        found.pop(name, None)
    ours = {c.state_key for c in trainer.checkpoint_callbacks} | {tracker.state_key}
    ours |= {c.state_key for c in trainer.callbacks if isinstance(c, type(tracker))}
    found["callbacks"] = {key: state for key, state in found.get("callbacks", {}).items() if key not in ours}
    loops = found.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
    loops.pop("combined_loader", None)
    return found
