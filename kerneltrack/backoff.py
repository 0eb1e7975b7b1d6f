"""Out of memory is no reason to lose a measurement: the same kernel again in smaller tiles.

A kernel's memory is its result and the tiles it is computed in; the plan keeps both within a budget, which may still be
more than the machine gives at that moment. Each retry halves the budget, and what worked is kept for the next snapshot.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from kerneltrack.errors import MemoryBudgetError
from kerneltrack.formatting import format_bytes
from kerneltrack.memory_budget import budget_bytes, ran_out

Result = TypeVar("Result")


class MemoryBudget:
    """The memory budget of one probe's kernels, which shrinks where memory runs out.

    Args:
        budget: bytes or "2GiB"; None is half of what is free at each measurement.
    """

    def __init__(self, budget: int | str | None) -> None:
        self.budget = budget

    def run(self, compute: Callable[[int | str | None], Result], device: torch.device) -> tuple[Result, str]:
        """``compute(budget)`` and "" or what had to be done for it.

        Raises:
            Exception: whatever ``compute`` raises; that memory ran out only where not even the smallest tiles fit.
        """
        remark, failure = "", None
        while True:
            at_hand = budget_bytes(self.budget, device)
            try:
                return compute(self.budget), remark
            except MemoryBudgetError as error:
                raise failure or error from error
            except Exception as error:  # looked at, and raised again unless memory ran out
                if not ran_out(error) or at_hand < 2:
                    raise
                failure = error
            _release(device)
            self.budget = at_hand // 2
            remark = f"out of memory: measured again in tiles of {format_bytes(self.budget)}"


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
