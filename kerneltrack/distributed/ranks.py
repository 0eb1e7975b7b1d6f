"""Rank zero leads and the others compute their share; a failure on one stops all.

A measurement is conducted by the leader. Where its work can be shared it asks, and every follower serves the same
request on its own copy of the network; between requests the followers wait. So whatever the leader does in between
cannot put the ranks out of step, and every exchange of data comes after all of them have said that they are well: a
failure on one rank reaches all with its cause, and none waits for a message that will not come.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from kerneltrack.errors import RankError, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of torch.distributed's default group; a single process sends no message.

    Attributes:
        rank: of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """The default process group's ranks; one alone where there is no group. The group ends with the program."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        _end_group_at_exit()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is rank zero, which measures, decides and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process to share with."""
        return self.size == 1

    def run_everywhere(self, part: Callable[[], T]) -> T:
        """``part()`` on every rank. Where it fails on one, that one raises its error and the others a RankError."""
        if self.alone:
            return part()
        failure: Exception | None = None
        try:
            made = part()
        except Exception as error:  # noqa: BLE001  # whatever it is, the other ranks must hear of it
            failure = error
        reports: list[str | None] = [None] * self.size
        distributed.all_gather_object(reports, None if failure is None else one_line(failure))
        if failure is not None:
            raise failure
        for rank, report in enumerate(reports):
            if report is not None:
                raise RankError(rank, report)
        return made

    def broadcast(self, make: Callable[[], T]) -> T:
        """``make()`` of the leader, on every rank; the value is pickled."""
        made = self.run_everywhere(lambda: make() if self.leads else None)
        return made if self.alone else self._send_from_leader(made)  # type: ignore[return-value]  # None on followers only

    def lead(self, work: Callable[[], T], serve: Callable[[Any], object]) -> T | None:
        """The leader does ``work`` and returns its result; the followers ``serve`` its requests until it is done.

        Raises:
            RankError: on the followers, if the leader's work failed; the leader raises what its work raised.
        """
        if self.alone:
            return work()
        if not self.leads:
            self._follow(serve)
            return None
        try:
            result = work()
        except Exception as error:
            self._send_from_leader(_Done(one_line(error)))
            raise
        self._send_from_leader(_Done(None))
        return result

    def ask(self, request: object) -> None:
        """Have every follower serve ``request`` now; what each rank then does begins with :meth:`run_everywhere`."""
        if not self.alone:
            self._send_from_leader(request)

    def share_buffers(self, module: nn.Module) -> None:
        """Give the followers the leader's buffers.

        BatchNorm's running statistics are each rank's own; a kernel is of one function.
        """
        for buffer in () if self.alone else module.buffers():
            # As bytes: not every backend transports every dtype.
            sent = self._wire(buffer.detach().contiguous().reshape(-1).view(torch.uint8), buffer)
            distributed.broadcast(sent, src=0)
            if not self.leads:
                buffer.detach().copy_(sent.view(buffer.dtype).reshape(buffer.shape))

    def send(self, tensor: Tensor) -> None:
        """To the leader."""
        distributed.send(self._wire(tensor.contiguous(), tensor), dst=0)

    def receive(self, into: Tensor, rank: int) -> Tensor:
        """What ``rank`` sends, of the shape, dtype and device of ``into``, whose values it may replace."""
        wire = self._wire(into, into)
        distributed.recv(wire, src=rank)
        return wire.to(into.device)

    def _follow(self, serve: Callable[[Any], object]) -> None:
        cause: Exception | None = None
        for request in self._requests():
            if isinstance(request, _Done):
                if request.failure is not None:
                    raise cause or RankError(0, request.failure)
                return
            cause = None
            try:
                serve(request)
            except Exception as error:  # noqa: BLE001  # the leader has heard of it, and says what becomes of it
                cause = error

    def _requests(self) -> Iterator[Any]:
        while True:
            yield self._send_from_leader(None)

    def _send_from_leader(self, value: Any) -> Any:
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def _wire(self, tensor: Tensor, like: Tensor) -> Tensor:
        """``tensor`` where the backend can take it: NCCL on the GPU, gloo on the CPU."""
        return tensor.to("cpu" if "gloo" in distributed.get_backend() else like.device)


@dataclass(frozen=True)
class _Done:
    """The leader's last word: its work is done, or failed."""

    failure: str | None


@cache
def _end_group_at_exit() -> None:
    """Have the process group destroyed at exit, once.

    A thread of gloo's may hold the tensors of a finished exchange for a moment longer than the program waits for it. If it
    drops them when the interpreter is already being torn down, the process aborts, its work done. Destroying the group waits
    for those threads. Lightning does the same for NCCL, and leaves gloo's groups alone.
    """
    atexit.register(lambda: distributed.destroy_process_group() if distributed.is_initialized() else None)
