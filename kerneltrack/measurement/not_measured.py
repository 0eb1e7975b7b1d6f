"""NotMeasured: the one way in which a measurement says that something is not there, and why."""

from __future__ import annotations


class NotMeasured(Exception):  # nothing failed: the message is the reason that the row gives
    """What was asked for does not exist here.

    Args:
        reason: why, in one clause; "" where nothing more is known than that.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
