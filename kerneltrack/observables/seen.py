"""Seen: whether a probe's points were trained on, and what may be predicted on points that were.

A kernel that was trained on points knows their labels: Θ_t predicts even random ones. Predictions of Θ_t stand on points
that it has not seen, or at step 0. Alignments and energies stay on every probe; there they are *in-sample*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kerneltrack.errors import ObservableError
from kerneltrack.observables.state import State
from kerneltrack.snapshot import InTraining

#: Splits that are not trained on, by the first word of their name.
HELD_OUT = {
    "val",
    "valid",
    "validation",
    "dev",
    "development",
    "test",
    "testing",
    "eval",
    "evaluation",
    "heldout",
    "holdout",
}


def held_out(identity: Mapping[str, object] | None) -> bool:
    """Whether a probe's identity says that it was not trained on: ``split`` names such a split, "validation" or "test".

    Everything else is unknown: a probe drawn from the training loader, one without identity, a split of any other name.

    >>> held_out({"split": "validation[:200]"}), held_out({"split": "train"}), held_out(None)
    (True, False, False)
    """
    words = re.findall(r"[a-z]+", str((identity or {}).get("split", "")).lower())
    if not words or any(word.startswith("train") for word in words):
        return False
    return words[0] in HELD_OUT or words[:2] in (["held", "out"], ["hold", "out"])


def in_training(identity: Mapping[str, object] | None) -> InTraining:
    """What a probe's identity says of itself: "no" where it is held out, "yes" where its split is "train", else "unknown".

    >>> in_training({"split": "test"}), in_training({"split": "train"}), in_training({"split": "train[80%:]"})
    ('no', 'yes', 'unknown')
    """
    if held_out(identity):
        return "no"
    return "yes" if str((identity or {}).get("split", "")).strip().lower() in ("train", "training") else "unknown"


def require_unseen(state: State, *, doubted: bool = True) -> None:
    """Refuse to predict points that Θ_t has been trained on: their labels are in it.

    Args:
        state: after step 0, of a probe that ``settings["in_training"]`` speaks of.
        doubted: whether points of which nobody knows are refused too.

    Raises:
        ObservableError: the kernel has seen these labels.
    """
    said = state.settings.get("in_training", "unknown")
    if state.settings.get("step") == 0 or said == "no" or (said == "unknown" and not doubted):
        return
    raise ObservableError(
        "the kernel has seen these labels",
        expected="the state at step 0, or a probe that is known to be held out",
        remedy='Take one from the validation loader, probe={"train": 128, "val": 128}, or say so: '
        "Probe(..., identity={'split': 'validation'}).",
    )
