"""Whether a few samples have in a batch what they have alone, asked beside a kernel and read behind it.

The capture that a kernel is made of runs each sample alone, whatever the model does with a batch, and so does vmap, which
makes the rows of a plain Jacobian. Outputs, and Jᵀu by factors or rows, are compared with those of one plain batch of a few
samples. A capture of ordinary batches is compared with a sample alone, too: there u, which is another number for each
sample, comes in behind the sum over samples, and in front of it in the batch of a few, so that derivatives that are mixed differ
in any case, but a mean of outputs may be the same in both. Nothing is read before the kernel is there; then all numbers come
at once, and the host decides by the limits of every other call (:mod:`kerneltrack.ntk.network.independence`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.contraction import Direction, SampleBlock, pulled_back
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.methods.kept_plans import Outdated
from kerneltrack.ntk.methods.program import Unsaid
from kerneltrack.ntk.methods.rehearsal import Said
from kerneltrack.ntk.network import (
    FEW,
    Inputs,
    Network,
    Rounding,
    Survey,
    contents,
    explained_derivatives,
    explained_outputs,
    gradients,
)

#: Entries from which their number decides the time, and not that of the calls.
_MANY = 2**16


@dataclass
class Notes:
    """What blocks left to be compared: outputs (n, O) of each, those of the samples compared, Jᵀu of these by parameter."""

    outputs: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    pulled: dict[str, Tensor | None] = field(default_factory=dict)

    @property
    def everything(self) -> Tensor:
        """Outputs of all samples, (N, O)."""
        return self.outputs[0] if len(self.outputs) == 1 else torch.cat(self.outputs)

    @property
    def alone(self) -> Tensor:
        """Those of the samples compared, (k, O)."""
        return self.rows[0] if len(self.rows) == 1 else torch.cat(self.rows)


class Comparison:
    """A few neighbouring samples, as a kernel's blocks have them and as one batch.

    Args:
        network: the network.
        samples: all N samples.
        name: what they are called where they are refused.
        count: how many are compared; None is FEW. Of none only outputs are noted.
        of_batches: whether the kernel's capture is one of batches; then the last of them is run alone as well.

    Attributes:
        notes: what the blocks have left so far.
    """

    def __init__(
        self, network: Network, samples: Inputs, name: str, count: int | None = None, of_batches: bool = False
    ) -> None:
        self.samples, self.name, self._of_batches = samples, name, of_batches
        self._network, self._few = network, min(FEW if count is None else count, len(samples))
        self._start = _start(len(samples), self._few)
        self._said: Said | None = None
        self.notes = Notes()
        self._numbers: Tensor | None = None

    def follow(self, notes: Notes, said: Said | None) -> None:
        """A recording has left ``notes``: of outputs alone, where a program has ``said`` what the network does."""
        self.notes, self._said = notes, said

    def direction(self, place: slice, outputs: Tensor) -> Direction | None:
        """The rows of u that are in the block of the samples ``place``; None where none is."""
        first, last = max(self._start, place.start), min(self._start + self._few, place.stop)
        if first >= last:
            return None
        u = self._cotangents(outputs)
        rows = slice(first - place.start, last - place.start)
        return Direction(rows, u[first - self._start : last - self._start], self._of_batches)

    def note(
        self,
        outputs: Tensor,
        block: SampleBlock,
        wanted: Collection[int],
        direction: Direction | None,
        formed: Mapping[int, Tensor],
    ) -> None:
        """What one block has: its outputs (n, O), and Jᵀu of the direction's samples; ``formed`` as :func:`pulled_back` has it."""
        self.notes.outputs.append(outputs.detach())
        if direction is None:
            return
        self.notes.rows.append(outputs.detach()[direction.rows])
        pulled = pulled_back(block.factors, wanted, block.leaves, direction.rows, formed)
        for name, part in pulled.items():
            before = self.notes.pulled.get(name)
            self.notes.pulled[name] = part if before is None else before if part is None else before + part

    def note_rows(self, outputs: Tensor, rows: Mapping[str, Tensor]) -> None:
        """What the rows of J of all samples have: outputs (N, O), and Jᵀu of a few by the rows (N, O, …) of each parameter."""
        place = slice(self._start, self._start + self._few)
        u = self._cotangents(outputs)
        self.notes = Notes([outputs], [outputs[place]])
        self.notes.pulled = {name: torch.tensordot(u.to(part), part[place], 2) for name, part in rows.items()}

    def settled(self) -> bool:
        """Whether all that was taken for granted holds, by one look at everything that stands on the device."""
        report = self.report.cpu().numpy()
        return self.holds(report) and self.seen(report)

    def compare(self) -> None:
        """Runs the batch; call it inside ``network.evaluating()``.

        Raises:
            Outdated: the forward pass draws random numbers, or its program is another one.
        """
        if self._said is not None:
            self._numbers = self._rehearsed(self._said)
            return
        network, generators = self._network, self._network.now.generators
        before = generators.states()
        leaves = {name: value.requires_grad_() for name, value in network.parameters.items()}
        stop = self._start + self._few

        def differentiate(outputs: Tensor) -> tuple[Tensor, Mapping[str, Tensor | None]]:
            parts = gradients([outputs], list(leaves.values()), [self._cotangents(outputs)])
            return outputs, dict(zip(leaves, parts, strict=True))

        with torch.enable_grad():
            outputs, pulled = network.applied(leaves, self.samples.rows(self._start, stop), differentiate)
        network.refuse_hidden_parameters(outputs)
        outputs = outputs.detach()
        if self._of_batches:
            with torch.no_grad():
                outputs = torch.cat([outputs, network.evaluate(leaves, self.samples.rows(stop - 1, stop))])
        if generators.states() != before:
            raise Outdated("the forward pass draws random numbers")
        alone = self.notes.alone
        alone = torch.cat([alone, alone[-1:]]) if self._of_batches else alone
        self._numbers = measured(self.notes, outputs, pulled, alone)

    def _rehearsed(self, said: Said) -> Tensor:
        """What a batch of the few has, by the program that was written down."""
        network, generators = self._network, self._network.now.generators
        before, survey = generators.states(), Survey(network.module)
        with survey.kept(), torch.enable_grad():
            try:
                place = place_of_few(len(self.samples))
                outputs = said.repeated(network.module, survey, self.samples.rows(place.start, place.stop))
            except (Unsaid, *REFUSALS) as refusal:
                raise Outdated("the forward pass does something else than in the call that was recorded") from refusal
        if survey.hooked or generators.states() != before:
            raise Outdated("the forward pass draws random numbers, or has hooks")
        return measured(self.notes, outputs, {}, self.notes.everything[place])

    def _cotangents(self, outputs: Tensor) -> Tensor:
        return directions(self._few, outputs)

    @property
    def report(self) -> Tensor:
        """All that is to be read, as integers of 64 bits: the numbers, and the sums of what the samples hold."""
        assert self._numbers is not None
        return torch.cat([self._numbers.view(torch.int64), contents(self.samples)])

    def seen(self, report: np.ndarray[Any, Any]) -> bool:
        """Whether these samples have been looked at closely before, by the sums of :attr:`report`."""
        assert self._numbers is not None
        found = len(self.samples), *report[len(self._numbers) :].tolist()
        return found in self._network.known(self.samples).accepted

    def holds(self, report: np.ndarray[Any, Any]) -> bool:
        """Whether what was compared is the same but for rounding, by the numbers of :attr:`report`."""
        assert self._numbers is not None
        values = report[: len(self._numbers)].view(np.float64)
        return equal_but_for_rounding(values, self.notes, self._network.known(self.samples).rounding)


def measured(notes: Notes, outputs: Tensor, pulled: Mapping[str, Tensor | None], alone: Tensor) -> Tensor:
    """By output the gap, the least and the largest value, by parameter the gap and the size; in one row, float64.

    Args:
        notes: what the blocks left.
        outputs: of a batch (k, O).
        pulled: Jᵀu of it, by parameter.
        alone: what the blocks have of the same samples (k, O).
    """
    low, high = torch.aminmax(notes.everything, dim=0)
    gap = torch.linalg.vector_norm(outputs - alone, float("inf"), 0)
    own, others = _paired(notes, pulled)
    row = [gap, low, high, _largest([*torch._foreach_sub(others, own), *own])] if own else [gap, low, high]
    return torch.cat(row).double()


def measured_by_numpy(
    notes: Notes, outputs: Tensor, pulled: Mapping[str, Tensor | None], alone: Tensor
) -> np.ndarray[Any, Any]:
    """The same of few numbers on a CPU: there a call of NumPy takes a third of one of torch, and one is of all parameters."""
    own, others = _paired(notes, pulled)
    kinds = {tensor.dtype for tensor in (outputs, *own, *others)}
    if not kinds <= _OF_NUMPY or not all(part.numel() for part in own):
        return measured(notes, outputs, pulled, alone).numpy()
    everything, gap = notes.everything.numpy(), np.abs(outputs.numpy() - alone.numpy()).max(0)
    if not own:
        return np.concatenate([gap, everything.min(0), everything.max(0)], dtype=np.float64)
    starts = [0, *accumulate(part.numel() for part in own[:-1])]
    ours, theirs = (torch.cat([part.reshape(-1) for part in parts]).numpy() for parts in (own, others))
    gaps, sizes = (np.maximum.reduceat(np.abs(entries), starts) for entries in (theirs - ours, ours))
    return np.concatenate([gap, everything.min(0), everything.max(0), gaps, sizes], dtype=np.float64)


_OF_NUMPY = {torch.float32, torch.float64}


def _paired(notes: Notes, pulled: Mapping[str, Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Jᵀu of the blocks and of the batch, by parameter, where either is there."""
    pairs = [(notes.pulled[name], part) for name, part in pulled.items()]
    own = [a for pair in pairs if (a := _dense(*pair)) is not None]
    return own, [b for one, other in pairs if (b := _dense(other, one)) is not None]


def equal_but_for_rounding(values: np.ndarray[Any, Any], notes: Notes, rounding: Rounding | None) -> bool:
    """Whether gaps are what rounding explains; False where a value is not finite.

    Args:
        values: what :func:`measured` has found.
        notes: what it was given.
        rounding: what rounding was found to explain of this network before.
    """
    width = notes.outputs[0].shape[1]
    (gap, low, high), rest = values[: 3 * width].reshape(3, width), values[3 * width :]
    gaps, sizes = rest.reshape(2, -1)
    of_outputs = notes.outputs[0].dtype
    dtypes = {of_outputs, *(part.dtype for part in notes.pulled.values() if part is not None)}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    size = np.maximum(-low, high)
    if not np.isfinite(size).all():
        return False
    limit = explained_outputs(high - low, size, torch.finfo(of_outputs).eps)
    slack = explained_derivatives(sizes, sizes.max(initial=0), eps)
    if rounding is not None and len(rounding.outputs) == width:  # of f before any head
        limit = limit + rounding.outputs * size
        slack = slack + rounding.derivatives * sizes if sizes.size else slack
    return bool((gap <= limit).all() and (gaps <= slack).all())


def place_of_few(count: int) -> slice:
    """Where the few are of ``count`` samples that are compared by a program."""
    few = min(FEW, count)
    start = _start(count, few)
    return slice(start, start + few)


def directions(count: int, outputs: Tensor) -> Tensor:
    """u (count, O), the same at every call; of many, zero behind the first half."""
    return _cotangents(max(FEW, count), outputs.shape[1], outputs.dtype, outputs.device)[:count]


def _largest(parts: Sequence[Tensor]) -> Tensor:
    """The largest magnitude in each, (len,); NaN where a part has one.

    A CPU finds the least and the largest entry of many at 20 times the rate of a norm of infinite order.
    """
    sizes = [part.numel() for part in parts]
    if Machine.of(parts[0].device).counts_launches or sum(sizes) < _MANY or not min(sizes):
        return torch.stack(list(torch._foreach_norm(list(parts), float("inf"))))
    ends = torch.stack([end for part in parts for end in part.aminmax()])
    return ends.view(-1, 2).abs().amax(1)


def _dense(part: Tensor | None, other: Tensor | None) -> Tensor | None:
    """A gradient; zeros where only the other one is there."""
    if part is None:
        return None if other is None else torch.zeros_like(other)
    return part.to_dense() if part.layout != torch.strided else part


@lru_cache(maxsize=64)
def _cotangents(count: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """u, (count, O), the same at every call; zero behind the first half, so that what these do to others' derivatives shows."""
    u = torch.randn(count, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    u[(count + 1) // 2 :] = 0
    return u.to(device, dtype)


@lru_cache(maxsize=1024)
def _start(count: int, few: int) -> int:
    """The first of ``few`` neighbouring samples, the same for every call with as many."""
    if not few:
        return 0
    return int(torch.randint(count - few + 1, (), generator=torch.Generator().manual_seed(count)))
