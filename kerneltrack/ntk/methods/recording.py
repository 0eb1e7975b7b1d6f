"""The kernel's operations, recorded once and replayed for later calls that ask for the same.

A card does the work of a small network's kernel in a tenth of the time in which Python asks for it, and a CPU that of a
small one in a third. What is recorded is everything from the captured forward pass to the finished Θ; what is asked of every
call stays outside. In its first call by a kept plan the work is done in the ordinary way and watched, in the second it is
recorded.

A recording is of addresses. Parameters and buffers must be where they were; the samples are copied to where they were.
A recording is also of Python's decisions, and does not hear of other ones. So the comparison that every call makes beside
the kernel (:mod:`.comparison`) runs the network anew: its outputs, and Jᵀu, have to be those of the replay, or on a CPU the
:mod:`.program` of a few samples the one that was written down. Where they are not, the recording is thrown away and the kernel
is computed in the ordinary way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError
from kerneltrack.ntk.capture import REFUSALS, first_line
from kerneltrack.ntk.methods.comparison import Notes, place_of_few
from kerneltrack.ntk.methods.kept_plans import key_of
from kerneltrack.ntk.methods.rehearsal import Rehearsal, Said, is_rehearsed
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.tape import Tape, Watch, reserved_bytes, tape_for, where
from kerneltrack.ntk.network import Inputs

#: So often a call may find another network than the one before; then nothing is recorded any more.
_CHANGES = 3
_REMEMBERED = 8
_TURNS = count()


@dataclass(frozen=True)
class Made:
    """What was left beside the kernel: for each comparison its notes, and the gaps of weights that are expressions.

    Where few samples stand for all, for each comparison what their program has ``said``.
    """

    notes: list[Notes]
    gaps: list[Tensor]
    said: Sequence[Said | None] = ()

    def tensors(self) -> list[Tensor]:
        """All of it."""
        pulled = [part for one in self.notes for part in one.pulled.values() if part is not None]
        return [*self.gaps, *pulled, *(tensor for one in self.notes for tensor in (*one.outputs, *one.rows))]

    def like(self, tensors: Iterable[Tensor]) -> Made:
        """The same of other :meth:`tensors`."""
        own = iter(tensors)
        gaps = [next(own) for _ in self.gaps]
        pulled = [
            {name: None if part is None else next(own) for name, part in one.pulled.items()} for one in self.notes
        ]
        outputs = [([next(own) for _ in one.outputs], [next(own) for _ in one.rows]) for one in self.notes]
        return Made([Notes(*each, part) for each, part in zip(outputs, pulled, strict=True)], gaps, self.said)


#: Makes the kernel of the samples (x1, or x1 and x2) in the matrices of its layers; whether outputs are all that it notes.
Work = Callable[[list[Inputs], dict[str, Tensor], bool], Made]


@dataclass
class Recording:
    """A tape, and the memory that it works on.

    Attributes:
        tape: what is replayed.
        samples: where it reads x1, and x2 if that is another.
        result: each layer's matrix as it was recorded, (B, N1·Q, N2·Q).
        made: what stood beside the kernel then.
        read: what else it reads, kept alive.
        size: bytes that it holds.
        turn: when it was used last.
    """

    tape: Tape
    samples: list[Inputs]
    result: dict[str, Tensor]
    made: Made
    read: list[Tensor]
    size: int
    turn: int

    def replay(self, samples: list[Inputs], into: Mapping[str, Tensor]) -> Made:
        """The kernel of these samples."""
        result, made = self.again(samples)
        torch._foreach_copy_(list(into.values()), [result[layer] for layer in into])
        return made

    def again(self, samples: Sequence[Inputs]) -> tuple[dict[str, Tensor], Made]:
        """Layer → matrix of these samples, and what stands beside it; of a CPU's tape it is new memory."""
        self.turn = next(_TURNS)
        for own, given in zip(self.samples, samples, strict=True):
            torch._foreach_copy_(list(own.tensors), list(given.tensors))
        left = self.tape.replay()
        return dict(zip(self.result, left, strict=False)), self.made.like(left[len(self.result) :])


@dataclass
class Asked:
    """What was asked of a module by one kept plan, and how far its recording has come.

    Attributes:
        addresses: of parameters and buffers in the last call.
        read: what an ordinary call has read; None before one was watched.
        recording: None before there is one.
        reason: why there is none and will be none; "" where there may be.
        changes: how often a recording, or what it was to be made of, did not hold.
    """

    addresses: tuple[int, ...]
    read: list[Tensor] | None = None
    recording: Recording | None = None
    reason: str = ""
    changes: int = 0

    def again(self, why: str) -> None:
        """Starts anew, unless that was so too often."""
        self.read, self.recording, self.changes = None, None, self.changes + 1
        if self.changes > _CHANGES:
            self.reason = self.reason or why


_ASKED: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Asked]] = WeakKeyDictionary()


def replayed(request: KernelRequest, into: Mapping[str, Tensor], work: Work, size: int) -> Made | None:
    """Makes the kernel by a recording; None where it is to be made in the ordinary way.

    Call it inside ``network.evaluating()``, of a kept plan.

    Args:
        request: what was asked.
        into: layer → zeros, (B, N1·Q, N2·Q).
        work: what makes it, on memory of the recording's own.
        size: about how many bytes that would hold.
    """
    asked = asked_of(request)
    if asked is None or asked.read is None or asked.reason:
        return None
    if asked.recording is not None and asked.recording.size > request.free_bytes:
        return None
    samples = [request.x1] if request.x2 is None else [request.x1, request.x2]
    if asked.recording is None and size > request.machine.recorded_bytes:
        asked.reason = f"a recording would hold {size} bytes"
        return None
    if asked.recording is None and (recording := _recorded(request, asked, samples, work)) is not None:
        asked.recording = recording
        _bound(request.machine.recorded_bytes)
    return None if asked.recording is None else asked.recording.replay(samples, into)


@contextmanager
def watched(request: KernelRequest) -> Iterator[None]:
    """Around the ordinary way by a kept plan: sees whether it could be recorded."""
    asked = asked_of(request)
    if asked is None or asked.read is not None or asked.reason:
        yield
        return
    with Watch(request.network.device) as watch:
        yield
    if watch.reason:
        asked.again(watch.reason)  # what is compared once for a plan was perhaps compared in this call
    else:
        asked.read = watch.read


def forget_recording(request: KernelRequest) -> None:
    """What was recorded does not hold any more."""
    asked = _ASKED.get(request.network.module, {}).get(_key(request))
    if asked is not None:
        asked.again("the network changes between calls")


def recorded(module: nn.Module) -> list[str]:
    """In words, what became of each kernel that was asked for again: how much memory its recording holds, or why there is none."""
    return [
        one.reason or f"{_size(one)} bytes" for one in _ASKED.get(module, {}).values() if one.reason or one.recording
    ]


def asked_of(request: KernelRequest) -> Asked | None:
    """How far the recording of what is asked has come; None where nothing may be recorded."""
    if not request.machine.recorded_bytes or request.result_bytes > request.machine.recorded_bytes:
        return None
    of_module, key = _ASKED.setdefault(request.network.module, {}), _key(request)
    addresses = request.network.now.addresses
    if key not in of_module and len(of_module) >= _REMEMBERED:
        of_module.clear()
    asked = of_module.setdefault(key, Asked(addresses))
    if asked.addresses != addresses:
        asked.addresses = addresses
        asked.again("the parameters move between calls")
    return asked


def _key(request: KernelRequest) -> tuple[Any, ...]:
    """Calls that one recording may serve: two threads, or streams, would meet in its memory, and a switch chooses kernels."""
    switches = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.deterministic,
    )
    return key_of(request)[:-1], threading.get_ident(), where(request.network.device), switches


def _recorded(request: KernelRequest, asked: Asked, samples: list[Inputs], work: Work) -> Recording | None:
    """None where it cannot be recorded, now or at all."""
    tape = tape_for(request.network.device)
    if tape is None:
        return None
    before = reserved_bytes(request.network.device)
    said = _said(request, asked, samples)
    own, result, made = [one.map(torch.clone) for one in samples], dict[str, Tensor](), list[Made]()

    def once() -> list[Tensor]:
        result.update(request.zeros())
        made.append(replace(work(own, result, None not in said), said=said))
        return [*result.values(), *made[0].tensors()]

    try:
        kept = tape.record(once)
    except KernelError:
        raise
    except REFUSALS as refusal:
        asked.reason = first_line(refusal)
        return None
    taken = [*kept, *result.values(), *(tensor for one in own for tensor in one.tensors), *made[0].tensors()]
    held = _held(request, taken, asked)
    size = max(held, reserved_bytes(request.network.device) - before)
    if size > request.machine.recorded_bytes:
        asked.reason = f"a recording would hold {size} bytes"
        return None
    return Recording(tape, own, result, made[0], asked.read or [], size, next(_TURNS))


def _said(request: KernelRequest, asked: Asked, samples: list[Inputs]) -> list[Said | None]:
    """Of x1, and x2, the program of a few; None of each where one says nothing, or changes often."""
    unsaid: list[Said | None] = [None for _ in samples]
    if not request.machine.counts_calls or asked.changes > _CHANGES // 2 or not is_rehearsed(request):
        return unsaid
    places, rehearsal = [place_of_few(len(one)) for one in samples], Rehearsal.of(request)
    few = [one.rows(place.start, place.stop) for one, place in zip(samples, places, strict=True)]
    found = [rehearsal.said(request.network.module, one) for one in few]
    return unsaid if None in found else found


def _held(request: KernelRequest, taken: list[Tensor], asked: Asked) -> int:
    """Bytes that a recording keeps: what it works on and leaves, and what it has read beside the module's own tensors.

    Jᵀu, which is left beside the kernel, has as many numbers as there are parameters.
    """
    tree, kept = request.network.now.tree, _storages([*taken, *(asked.read or [])])
    own = _storages([*tree.parameters.values(), *tree.buffers.values()])
    return sum(size for place, size in kept.items() if place not in own)


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address → bytes of the memory behind them."""
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}


def _bound(room: int) -> None:
    """Throws away what was not used for longest, until all recordings together fit."""
    held = [one for of_module in _ASKED.values() for one in of_module.values() if one.recording is not None]
    total = sum(map(_size, held))
    for one in sorted(held, key=_turn):
        if total <= room:
            break
        total -= _size(one)
        one.recording = None


def _turn(asked: Asked) -> int:
    return 0 if asked.recording is None else asked.recording.turn


def _size(asked: Asked) -> int:
    return 0 if asked.recording is None else asked.recording.size
