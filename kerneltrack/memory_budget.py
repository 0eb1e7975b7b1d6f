"""Memory budgets: how many bytes a measurement may add, and what is said when they cannot suffice."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kerneltrack.errors import KernelError, MemoryBudgetError
from kerneltrack.formatting import format_bytes

if TYPE_CHECKING:
    import torch  # only a device of torch's has anything to ask: what reads archives loads this file without torch

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")

#: How torch says that memory ran out, besides its own exception on CUDA.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")

#: Where the machine cannot be asked.
_UNKNOWN_MACHINE = 2 * 2**30


def parse_bytes(size: int | str) -> int:
    """Bytes of ``4096``, ``"2GiB"``, ``"500 MB"``.

    Raises:
        KernelError: not a positive size.
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        if match is None or match[2].upper() not in _UNITS:
            raise KernelError("memory_budget= is not a size", expected='bytes or a text like "2GiB"', got=repr(size))
        size = int(float(match[1]) * _UNITS[match[2].upper()])
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise KernelError(
            "memory_budget= is not a size", expected='a positive number of bytes or a text like "2GiB"', got=repr(size)
        )
    return size


def available_bytes(device: torch.device) -> int:
    """Memory that new tensors on ``device`` can take now."""
    if device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _UNKNOWN_MACHINE
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib[0] * 1024 if kib else _UNKNOWN_MACHINE


def budget_bytes(memory_budget: int | str | None, device: torch.device) -> int:
    """The budget in bytes; None is half of what the device has available now."""
    return available_bytes(device) // 2 if memory_budget is None else parse_bytes(memory_budget)


def refuse_budget(budget: int, required: int, *, otherwise: str = "") -> MemoryBudgetError:
    """The error that says which budget would work, and what else there is to do."""
    return MemoryBudgetError(
        "memory_budget= cannot hold the kernel and one row of work",
        required_bytes=required,
        expected=f"at least {required} bytes ({format_bytes(required)})",
        got=f"{budget} bytes",
        remedy=f'Raise the budget, use fewer samples, output="trace" or "diagonal"{otherwise and ", " + otherwise}.',
    )


def ran_out(error: Exception) -> bool:
    """Whether an exception says that memory could not be had."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error).lower() for saying in _SAYINGS)


Result = TypeVar("Result")


class MemoryBudget:
    """The memory budget of one probe's kernels, which shrinks where memory runs out.

    Args:
        budget: bytes or "2GiB"; None is half of what is free at each measurement.
    """

    def __init__(self, budget: int | str | None) -> None:
        self.budget = budget
        self._remark = ""

    def run(self, compute: Callable[[int | str | None], Result], device: torch.device) -> Result:
        """``compute(budget)``, with smaller budgets from now on where memory runs out.

        Raises:
            Exception: whatever ``compute`` raises; that memory ran out only where not even the smallest tiles fit.
        """
        failure: Exception | None = None
        while True:
            at_hand = budget_bytes(self.budget, device)
            try:
                return compute(self.budget)
            except MemoryBudgetError as error:
                raise failure or error from error
            except Exception as error:  # looked at, and raised again unless memory ran out
                if not ran_out(error) or at_hand < 2:
                    raise
                failure = error
            release(device)
            self.budget = at_hand // 2
            self._remark = f"out of memory: measured again in tiles of {format_bytes(self.budget)}"

    def remark(self) -> str:
        """What had to be done since this was last asked; "" for nothing."""
        remark, self._remark = self._remark, ""
        return remark


def release(device: torch.device) -> None:
    """Give back what nothing holds any more, after memory ran out."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
