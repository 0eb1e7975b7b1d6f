"""Functions of entries, joined: y = φ(x₁, x₂, …) of tensors of one shape, whatever it is written with.

An activation spelt out in eight operations is passed eight times by the gradient of each output. Joined, its slopes ∂y/∂xᵢ
are computed once, and each output multiplies by them. Of a single output the joined operations are differentiated as they
stand. Where the gradient has few rows, φ is computed again at these alone.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture
from kerneltrack.ntk.capture.segment import Outcome, Segment, is_of_several
from kerneltrack.ntk.capture.zero_rows import bounded, few_rows, placed

#: Entries from which passes over them cost more than the Python of one more node.
LARGE = 2**16
#: Larger sources are no activations'. Products of `_DEGREE` smaller ones are far from overflow.
_BOUND, _DEGREE = 1e4, 8
#: A function that is computed again at a few rows takes at most so many calls.
_CALLS = 64
#: Passes over memory that slopes have to spare, all outputs together: their own making takes some. The two outputs of a BERT spare
#: two by those of its GELU, and took a twentieth longer; GPT-2's ten spare eighty.
_WORTH = 6


@dataclass(frozen=True)
class Kind:
    """What is known of a function of entries.

    Attributes:
        passes: over memory that autograd takes to differentiate it by one tensor.
        degree: of a bound of it and of its slopes, as a polynomial, by the degrees of the tensors and the numbers that it is given.
        arguments: how many it is given by place; all others are refused.
        by_number: whether the last of these has to be a number.
        options: what else it may be given.
        sums: whether its slopes are ±1: it joins nothing but what has sources in common.
        keeps: whether autograd keeps all that it is given. Only then it begins a join, which keeps its sources.
    """

    passes: int
    degree: Callable[[Sequence[float], Sequence[float]], float]
    arguments: int = 1
    by_number: bool = False
    options: frozenset[str] = frozenset()
    sums: bool = False
    keeps: bool = False

    def takes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether these are what is known of it."""
        if len(args) != self.arguments or set(kwargs) - self.options or kwargs.get("inplace"):
            return False
        if not all(isinstance(value, (Tensor, int, float)) for value in args):
            return False
        return not self.by_number or (isinstance(args[0], Tensor) and not isinstance(args[-1], Tensor))

    def begins(self, given: Sequence[Tensor]) -> bool:
        """Whether it may be the first of a join of these."""
        return self.keeps and len(given) == self.arguments - self.by_number


class Pointwise(Segment):
    """One function φ of entries.

    Args:
        outcome: of the pass.
        leaves: as :class:`Segment` has them.
        value: φ of the leaves.
        sources: of the leaves.
        evaluate: φ of other tensors in the place of the leaves.

    Attributes:
        passes: over memory, of a backward pass by autograd.
        calls: of functions that φ takes.
        degree: as :class:`Kind` has it.
    """

    def __init__(
        self,
        outcome: Outcome,
        leaves: Sequence[Tensor],
        value: Tensor,
        sources: Sequence[Tensor],
        evaluate: Callable[[Sequence[Tensor]], Tensor],
    ) -> None:
        super().__init__(outcome, leaves, value)
        self.sources, self.evaluate = list(sources), evaluate
        self.passes, self.calls, self.degree = 0, 0, 1.0
        self._slopes: Sequence[Tensor | None] | None = None
        self._tame: bool | None = None

    def pulled(self, gradient: Tensor) -> Sequence[Tensor | None]:
        rows = gradient.reshape(-1, gradient.shape[-1])
        seen = None if is_of_several(gradient) else few_rows(rows)
        skips = seen is not None and self._is_tame()
        parts = self._at(rows[seen], seen, len(rows)) if seen is not None and skips else self._everywhere(gradient)
        if self.is_last(gradient):
            self.release()
        return [None if part is None else part.view(gradient.shape) for part in parts]

    def release(self) -> None:
        super().release()
        self.sources, self._slopes = [], None

    def _everywhere(self, gradient: Tensor) -> Sequence[Tensor | None]:
        if self._slopes is None and not self._spares():
            return self.differentiated(gradient)
        if self._slopes is None:
            slopes = self.differentiated(torch.ones_like(self.value))
            self._is_tame()  # the sources are not looked at any more
            self.release()
            self._slopes = slopes
        return [None if slope is None else gradient * slope for slope in self._slopes]

    def _spares(self) -> bool:
        """Whether one product by a slope for each source and output is less than what autograd does."""
        asked = sum(leaf.requires_grad for leaf in self.leaves)
        return (self.passes - asked) * (self.outcome.outputs - 1) >= _WORTH

    def _at(self, gradient: Tensor, seen: Tensor, count: int) -> Sequence[Tensor | None]:
        """From a gradient (R', e) at the rows ``seen`` of R = ``count``."""
        if self._slopes is not None:
            slopes = [None if slope is None else slope.reshape(count, -1)[seen] for slope in self._slopes]
            parts: Sequence[Tensor | None] = [None if slope is None else gradient * slope for slope in slopes]
        else:
            wanted = [leaf.requires_grad for leaf in self.leaves]
            picked = [leaf.detach().reshape(count, -1)[seen] for leaf in self.leaves]
            given = [part.requires_grad_(asked) for part, asked in zip(picked, wanted, strict=True)]
            with torch.enable_grad():
                again = Segment(self.outcome, given, self.evaluate(given))
            parts = again.differentiated(gradient)
        return [None if part is None else placed(part, seen, count) for part in parts]

    def _is_tame(self) -> bool:
        """Whether all slopes are numbers, so that a zero comes out as zero."""
        if self._slopes is None and not self.is_unchanged:
            return False
        if self._tame is None:
            of_few = self.degree <= _DEGREE and self.calls <= _CALLS
            self._tame = of_few and all(bounded(leaf, _BOUND) for leaf in self.leaves)
        return self._tame


@dataclass(frozen=True)
class _Later:
    """A call that was made as it stands, on one tensor, and may turn out to be a part of what follows."""

    given: weakref.ref[Tensor]
    version: int
    function: Any
    args: tuple[Any, ...]


#: What a tensor that the model holds is: a :class:`Pointwise`, a :class:`_Later`, or the leaf that stands for it.
_POINTWISE = "_kerneltrack_pointwise"


def pointwise(capture: Capture, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """``function`` of entries, joined with those that its arguments come from."""
    kind, given = KINDS[function], [value for value in args if isinstance(value, Tensor)]
    if not given or not kind.takes(args, kwargs):
        return NotImplemented
    apart = capture.apart(given)
    if apart is None or not _are_alike(apart):
        return NotImplemented
    begun = any(_pointwise_of(tensor, own) for tensor, own in zip(given, apart, strict=True))
    if not begun and not kind.begins(given):
        result = function(*args, **kwargs)
        if len(given) == 1 and not kwargs:
            setattr(result, _POINTWISE, _Later(weakref.ref(given[0]), apart[0]._version, function, args))
        return result
    histories = [_history(capture, tensor, own) for tensor, own in zip(given, apart, strict=True)]
    made: list[Pointwise] = []

    def joined() -> Any:
        parts = _parts(given, apart, histories)
        if kind.sums and len(parts) == 2 and not _covers(*parts):
            return NotImplemented
        made.append(_composed(capture.outcome, function, args, kwargs, parts))
        return made[0].joined(made[0].sources)

    result = capture.together(joined)
    if made:
        setattr(result, _POINTWISE, made[0])
    return result


def _are_alike(tensors: Sequence[Tensor]) -> bool:
    """Of one shape and precision, large enough, and differentiated at all."""
    first = tensors[0]
    return (
        first.numel() >= LARGE
        and first.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(first.device.type)
        and all((one.shape, one.dtype) == (first.shape, first.dtype) for one in tensors)
        and any(one.requires_grad for one in tensors)
    )


def _pointwise_of(tensor: Tensor, own: Tensor) -> Pointwise | None:
    """What ``tensor`` was joined from, if neither it nor its sources were written to since; ``own`` is what it holds."""
    mark = getattr(tensor, _POINTWISE, None)
    holds = isinstance(mark, Pointwise) and mark.is_unchanged and own._version == mark.made
    return mark if holds else None


#: A tensor that a model holds, what it holds, and the calls that lead from there on.
_History = tuple[Tensor, Tensor, list[_Later]]


def _history(capture: Capture, tensor: Tensor, own: Tensor) -> _History | None:
    """Whence a tensor comes by calls that were made as they stand, as far as that is still there."""
    calls: list[_Later] = []
    while isinstance(mark := getattr(tensor, _POINTWISE, None), _Later) and own._version == 0:
        before = mark.given()
        held = None if before is None else capture.apart([before])
        if before is None or held is None or held[0]._version != mark.version:
            break
        calls.insert(0, mark)
        tensor, own = before, held[0]
    return (tensor, own, calls) if calls else None


def _parts(given: Sequence[Tensor], apart: Sequence[Tensor], histories: Sequence[_History | None]) -> list[Pointwise]:
    """What the arguments are. A call that was made as it stands is a part where another argument has its source."""
    parts = [_part(tensor, own) for tensor, own in zip(given, apart, strict=True)]
    known = {id(leaf) for part in parts for leaf in part.leaves}
    for place, history in enumerate(histories):
        if history is not None:
            root = _part(*history[:2])
            if {id(leaf) for leaf in root.leaves} <= known:
                for call in history[2]:
                    root = _composed(root.outcome, call.function, call.args, {}, [root])
                parts[place] = root
    return parts


def _part(tensor: Tensor, own: Tensor) -> Pointwise:
    """What a tensor was joined from, or itself."""
    if (joined := _pointwise_of(tensor, own)) is not None:
        return joined
    leaf = getattr(tensor, _POINTWISE, None)
    if not isinstance(leaf, Tensor) or leaf.requires_grad != own.requires_grad:
        leaf = own.detach().requires_grad_(own.requires_grad)
        if own.requires_grad:  # what does not may be the model's own
            setattr(tensor, _POINTWISE, leaf)
    return Pointwise(Outcome(), [leaf], leaf, [own], lambda given: given[0])


def _covers(one: Pointwise, other: Pointwise) -> bool:
    """Whether the sources of one are all the other's."""
    a, b = ({id(leaf) for leaf in part.leaves} for part in (one, other))
    return a <= b or b <= a


def _composed(
    outcome: Outcome, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], parts: Sequence[Pointwise]
) -> Pointwise:
    """``function`` of what the parts are, and of the numbers among ``args``."""
    sources = {
        id(leaf): (leaf, source) for part in parts for leaf, source in zip(part.leaves, part.sources, strict=True)
    }
    order = list(sources)
    places = [[order.index(id(leaf)) for leaf in part.leaves] for part in parts]

    def filled(values: Sequence[Tensor]) -> Tensor:
        tensors = iter(values)
        result: Tensor = function(*(next(tensors) if isinstance(a, Tensor) else a for a in args), **kwargs)
        return result

    def evaluate(given: Sequence[Tensor]) -> Tensor:
        return filled([part.evaluate([given[k] for k in own]) for part, own in zip(parts, places, strict=True)])

    kind = KINDS[function]
    leaves, own = [leaf for leaf, _ in sources.values()], [source for _, source in sources.values()]
    joined = Pointwise(outcome, leaves, filled([part.value for part in parts]), own, evaluate)
    joined.passes = sum(part.passes for part in parts) + kind.passes * len(parts)
    joined.calls = sum(part.calls for part in parts) + 1
    numbers = [float(value) for value in args if not isinstance(value, Tensor)]
    joined.degree = kind.degree([part.degree for part in parts], numbers)
    return joined


def _size(numbers: Sequence[float]) -> float:
    """The degree of numbers as factors: they are small, or at most as large as sources are, or nothing is known."""
    return sum(0.0 if abs(c) <= 1 else 1.0 if abs(c) <= _BOUND else math.inf for c in numbers)


def _same(degrees: Sequence[float], numbers: Sequence[float]) -> float:
    return degrees[0]


def _product(degrees: Sequence[float], numbers: Sequence[float]) -> float:
    return sum(degrees) + _size(numbers)


def _quotient(degrees: Sequence[float], numbers: Sequence[float]) -> float:
    return degrees[0] + (_size([1 / numbers[0]]) if numbers[0] else math.inf)


def _sum(degrees: Sequence[float], numbers: Sequence[float]) -> float:
    return max(*degrees, _size(numbers), 1.0)


def _power(degrees: Sequence[float], numbers: Sequence[float]) -> float:
    return degrees[0] * numbers[0] if numbers[0] >= 1 else math.inf


#: Activations whose slope is bounded.
_ACTIVATION = Kind(3, _same, options=frozenset({"inplace"}), keeps=True)
_BOUNDED = Kind(2, _same)
_PRODUCT, _SUM = Kind(1, _product, 2, keeps=True), Kind(0, _sum, 2, sums=True)
KINDS: dict[Any, Kind] = {
    **dict.fromkeys((F.silu, F.mish), _ACTIVATION),
    F.gelu: Kind(3, _same, options=frozenset({"approximate"}), keeps=True),
    **dict.fromkeys((torch.tanh, Tensor.tanh, torch.sigmoid, Tensor.sigmoid), _BOUNDED),
    **dict.fromkeys((torch.erf, Tensor.erf), Kind(3, _same, keeps=True)),
    **dict.fromkeys((torch.neg, Tensor.neg, Tensor.__neg__), Kind(1, _same)),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply), _PRODUCT),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), _SUM),
    **dict.fromkeys((torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__), _SUM),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), Kind(1, _quotient, 2, by_number=True)),
    **dict.fromkeys((torch.pow, Tensor.pow, Tensor.__pow__), Kind(3, _power, 2, by_number=True, keeps=True)),
    **dict.fromkeys((torch.square, Tensor.square), Kind(3, lambda d, c: 2 * d[0], keeps=True)),
}
