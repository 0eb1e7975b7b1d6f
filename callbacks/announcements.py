"""What a fit that measured nothing is told."""

from __future__ import annotations

import warnings

from kerneltrack.tracking import say


def nothing_measured(archive: object, stage: str, *, log: bool) -> None:
    """A word where there was nothing to measure: a warning after a fit without a batch, a line after anything else."""
    if stage == "fit":
        warnings.warn(
            f"kerneltrack: no batch was trained, so nothing was measured and {archive} was not written. Look at max_steps, "
            "max_epochs, limit_train_batches and the length of the training loader.",
            stacklevel=3,
        )
    elif log:
        say(f"{stage} trains nothing, so nothing was measured; the tracker works in Trainer.fit")
