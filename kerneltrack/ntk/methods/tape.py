"""A tape: one piece of work on a device, recorded once as a CUDA graph and replayed without Python; and who may be recorded.

A graph is the same operations on the same addresses. So what reads a value, copies from the host or takes memory of its own
from somewhere else is not recorded, and whatever else the work reads is kept alive as long as the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kerneltrack.ntk.methods.operator_tape import OperatorTape

#: Operators with which the host waits for a value.
_READS = frozenset(
    f"aten::{name}"
    for name in (
        *("_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nonzero"),
        *("_unique", "_unique2", "unique_consecutive", "unique_dim", "repeat_interleave"),
    )
)


class Tape(Protocol):
    """One piece of work, recorded."""

    def record(self, work: Callable[[], Iterable[Tensor]]) -> list[Tensor]:
        """Takes down what ``work`` launches; it returns what it leaves.

        Returns:
            What the tape keeps beside what was there before and what is left.

        Raises:
            RuntimeError: it does what cannot be recorded.
        """

    def replay(self) -> Sequence[Tensor]:
        """Does it, on the current stream, and gives what is left then: until the next replay, where that has the same memory."""


class CudaTape:
    """A CUDA graph, captured on a stream of its own; other threads may use the device meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._graph, self._left = device, torch.cuda.CUDAGraph(), list[Tensor]()

    def record(self, work: Callable[[], Iterable[Tensor]]) -> list[Tensor]:
        stream = _stream(self._device)
        current = torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._left = list(work())
            finally:
                self._graph.capture_end()
        current.wait_stream(stream)
        return []

    def replay(self) -> Sequence[Tensor]:
        self._graph.replay()
        return self._left


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream on which tapes are recorded; cuBLAS has its workspace for it before, outside any tape's memory."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        one = torch.ones(16, 16, device=device)
        torch.nn.functional.linear(one, one, one[0]) @ one
    torch.cuda.current_stream(device).wait_stream(stream)
    return stream


def tape_for(device: torch.device) -> Tape | None:
    """An empty tape for work on ``device``; None where nothing is recorded.

    That is on anything but a CPU or a CUDA device, among several processes, whose collectives a graph would hold, and inside
    somebody else's capture.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return None
    if device.type == "cpu":
        return OperatorTape()
    return CudaTape(device) if device.type == "cuda" and not torch.cuda.is_current_stream_capturing() else None


def where(device: torch.device) -> int:
    """The current stream, by number: work on two of them would meet in a tape's memory."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def reserved_bytes(device: torch.device) -> int:
    """What torch holds of the device's memory."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at work that is done in the ordinary way: whether it could be recorded, and what it reads.

    Attributes:
        reason: why it could not; "" where it could.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reason = ""
        self._device, self._read, self._made = device, dict[int, Tensor](), set[int]()

    @property
    def read(self) -> list[Tensor]:
        """What was there before: parameters, buffers, constants."""
        return list(self._read.values())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: else torch loads its whole compiler, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        given, made = _tensors((args, kwargs)), _tensors(result)
        if name in _READS:
            self.reason = self.reason or f"the host waits for a value in {name}"
        if torch.Tag.nondeterministic_seeded in func.tags:  # a replay would draw anew
            self.reason = self.reason or f"random numbers are drawn in {name}"
        for tensor in (*given, *made):
            if tensor.layout != torch.strided:
                self.reason = self.reason or f"{name} has a tensor that is not dense"
            elif tensor.device != self._device and tensor.dim():
                self.reason = self.reason or f"{name} is with a tensor on {tensor.device}"
        if not self.reason:
            for tensor in given:
                if tensor.device == self._device and (place := _place(tensor)) not in self._made:
                    self._read.setdefault(place, tensor.detach())
            self._made |= {_place(tensor) for tensor in made} - self._read.keys()
        return result


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
