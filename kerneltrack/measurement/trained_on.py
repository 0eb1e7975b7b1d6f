"""What one update was made from."""

from __future__ import annotations

from dataclasses import dataclass

from kerneltrack.probe import Probe


@dataclass(frozen=True)
class TrainedOn:
    """The batches of one update.

    Attributes:
        batches: one, or several whose gradients were accumulated; () where they are not at hand.
        without: why they are not.
    """

    batches: tuple[Probe, ...] = ()
    without: str = "the loop handed no batch over"


#: The loop said nothing.
UNKNOWN = TrainedOn()
