"""ForkLimits: how many forks are kept, and in how much memory."""

from __future__ import annotations

from dataclasses import dataclass

from kerneltrack.errors import KernelError, TrackerError
from kerneltrack.memory_budget import parse_bytes


@dataclass(frozen=True)
class ForkLimits:
    """How many forks a tracker keeps; beyond either limit the oldest is dropped, and that is said.

    Args:
        count: forks.
        memory: bytes or a text like "2GiB", of all of them.

    Raises:
        TrackerError: no positive number, or no size.
    """

    count: int = 4
    memory: int | str = "2GiB"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise TrackerError(
                "ForkLimits(count=…)", expected="an integer from 1", got=repr(self.count), remedy="4 is the default."
            )
        try:
            parse_bytes(self.memory)
        except (KernelError, TypeError) as error:
            raise TrackerError(
                "ForkLimits(memory=…)",
                expected='bytes or a text like "2GiB"',
                got=repr(self.memory),
                remedy='"2GiB" is the default.',
            ) from error

    @property
    def bytes(self) -> int:
        """The memory as a number."""
        return parse_bytes(self.memory)
