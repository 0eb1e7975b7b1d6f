"""A call that repeats an earlier one: a small kernel is replayed and compared, and nothing else is asked again.

Around a replay of some hundred microseconds the ordinary way asks for some milliseconds what hardly ever changes: the request,
the plan, the contexts of an evaluation, the sums of samples. Here that was asked once. What may have changed is compared by
one walk over the module (:class:`.Survey`), samples with those of the call before, and the kernel with the network as it is now, by
the program of a few samples or by all of them, as in every call. Wherever anything is not as it was, and where an audit is due,
the ordinary way decides.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import available_bytes
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.methods.audit import audit_key, passed_over
from kerneltrack.ntk.methods.comparison import (
    Notes,
    directions,
    equal_but_for_rounding,
    measured_by_numpy,
    place_of_few,
)
from kerneltrack.ntk.methods.program import Unsaid
from kerneltrack.ntk.methods.recording import Made, asked_of
from kerneltrack.ntk.methods.rehearsal import Rehearsal, Said
from kerneltrack.ntk.methods.request import KernelOptions, KernelRequest
from kerneltrack.ntk.network import Inputs, Survey, contents, known, still
from kerneltrack.undisturbed import eager, full_on_processors, full_precision

#: What a forward pass that has changed may raise.
_ERRORS = (KernelError, Unsaid, *REFUSALS, ValueError, IndexError, TypeError, AttributeError, KeyError)
#: A call that needs less than this asks for no free memory.
_SPARE = 2**24
_REMEMBERED = 8
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Layout:
    """Shape and strides of a kernel in its matrix (B, N1·Q, N2·Q)."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Repeat:
    """What a call by a recording was, to do it again. It holds nothing of the module but what its recording does.

    Args:
        request: what was asked.
        plan: the key of the plan that was recorded.
    """

    def __init__(self, request: KernelRequest, plan: tuple[object, ...]) -> None:
        network, asked = request.network, asked_of(request)
        assert asked is not None
        assert asked.recording is not None
        survey = Survey(network.module)
        self._rehearsal = Rehearsal.of(request)
        self.hooked, self._marks, self._asked, self._recording = survey.hooked, survey.marks, asked, asked.recording
        self._key, self._audit = network.plan_key(request.x1), audit_key(request, plan)
        self._layouts = {layer: _layout(request, matrix) for layer, matrix in asked.recording.result.items()}
        self._needed = 2 * request.result_bytes + asked.recording.size if request.of_free_memory else 0
        self._turn = asked.recording.turn

    def kernels(self, module: nn.Module, samples: Sequence[Inputs]) -> dict[str, Tensor] | None:
        """Layer → kernel; None where anything is not what it was."""
        recording, survey = self._recording, Survey(module)
        if survey.hooked or survey.marks != self._marks or self._asked.recording is not recording:
            return None
        if not self._fits(samples) or not passed_over(module, self._audit):
            return None
        if not self._are_the_last(samples) and not self._are_accepted(module, samples):
            return None
        compiled = eager() if "torch._dynamo" in sys.modules else nullcontext()
        precision = nullcontext() if full_on_processors() else full_precision()
        with still() as moved, precision, compiled, survey.kept(), torch.enable_grad():
            result, made = recording.again(samples)
            try:
                each = zip(samples, made.notes, made.said, strict=True)
                rows = [self._compared(module, survey, *one) for one in each]
            except _ERRORS:  # the ordinary way says what is wrong
                return None
        if moved or not self._hold(module, rows, made):
            return None
        self._turn = recording.turn
        return {layer: result[layer].as_strided(layout.shape, layout.stride) for layer, layout in self._layouts.items()}

    def _fits(self, samples: Sequence[Inputs]) -> bool:
        return self._needed <= _SPARE or self._needed <= available_bytes(samples[0].tensors[0].device) // 2

    def _are_the_last(self, samples: Sequence[Inputs]) -> bool:
        """Whether they are what the recording holds since the last call of this kind."""
        if self._recording.turn != self._turn:
            return False
        held = [tensor for own in self._recording.samples for tensor in own.tensors]
        given = [tensor for one in samples for tensor in one.tensors]
        return all(map(torch.equal, held, given))

    def _are_accepted(self, module: nn.Module, samples: Sequence[Inputs]) -> bool:
        accepted = known(module, self._key).accepted
        return all((len(one), *contents(one).tolist()) in accepted for one in samples)

    def _compared(self, module: nn.Module, survey: Survey, samples: Inputs, notes: Notes, said: Said | None) -> Numbers:
        """What :func:`measured_by_numpy` says of one ordinary batch, of all samples or by a program of few."""
        if said is None:
            played = self._rehearsal.play(module, survey, samples, partial(directions, len(samples)))
            return measured_by_numpy(notes, *played, notes.alone)
        place = place_of_few(len(samples))
        outputs = said.repeated(module, survey, samples.rows(place.start, place.stop))
        return measured_by_numpy(notes, outputs, {}, notes.everything[place])

    def _hold(self, module: nn.Module, rows: Sequence[Numbers], made: Made) -> bool:
        rounding = known(module, self._key).rounding
        if made.gaps and not bool((torch.stack(made.gaps) <= 1).all()):
            return False
        return all(equal_but_for_rounding(row, notes, rounding) for row, notes in zip(rows, made.notes, strict=True))


def _layout(request: KernelRequest, matrix: Tensor) -> _Layout:
    kernel = request.as_kernel(matrix)
    kernel = kernel[:, :, 0, 0] if request.reduction.name == "sum" else kernel
    return _Layout(tuple(kernel.shape), kernel.stride())


_REPEATS: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Repeat]] = WeakKeyDictionary()


def repeated(model: nn.Module, x1: Any, x2: Any, options: KernelOptions) -> dict[str, Tensor] | None:
    """Layer → kernel of a call that repeats an earlier one; None where it does not, or where the ordinary way is to be gone."""
    of_model = _REPEATS.get(model) if isinstance(model, nn.Module) else None
    if not of_model or not _is_plain(options):
        return None
    samples = _samples(x1, x2)
    repeat = of_model.get(_key(samples, options))
    return None if repeat is None else repeat.kernels(model, samples)


def remember_call(model: nn.Module, options: KernelOptions, request: KernelRequest, plan: tuple[object, ...]) -> None:
    """That a call was done by a recording of the ``plan``."""
    network, samples = request.network, [request.x1] if request.x2 is None else [request.x1, request.x2]
    if not _is_plain(options) or network.module is not model or network.now.generators.held:
        return
    if network.device.type != "cpu" or (request.machine.compared or 0) < max(map(len, samples)):
        return
    if (repeat := Repeat(request, plan)).hooked:
        return
    of_model = _REPEATS.setdefault(model, {})
    if len(of_model) >= _REMEMBERED:
        of_model.clear()
    of_model[_key(samples, options)] = repeat


def _is_plain(options: KernelOptions) -> bool:
    """Whether the options are numbers and texts, which are told apart by what they are."""
    others = options.params, options.dtype, options.forward, options.metric
    return isinstance(options.output, str) and all(one is None for one in others)


def _samples(x1: Any, x2: Any) -> list[Inputs]:
    first = Inputs(x1, name="x1")
    second = None if x2 is None else Inputs(x2, name="x2")
    return [first] if second is None or second.same_as(first) else [first, second]


def _key(samples: Sequence[Inputs], options: KernelOptions) -> tuple[Any, ...]:
    given = [(one.kinds, len(one), "" if one.is_tensor else str(one.tree)) for one in samples]
    asked = options.output, options.gauge, options.method, options.by_layer, options.memory_budget
    where = threading.get_ident(), torch.are_deterministic_algorithms_enabled()
    return *given, asked, where, id(Machine.of(samples[0].tensors[0].device))
