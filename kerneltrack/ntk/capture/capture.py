"""Capture: what each use of a parameter saw in one forward pass.

Its input, and where the gradient at its output is found.

The model runs once per sample under ``torch.func.vmap``. A :class:`Capture` sees every torch function that
mixes a *weight* (anything that requires grad and is the same for all samples: a parameter, or an expression
of parameters) with per-sample values: a *use* of it. There the weight is detached, so that no autograd path
leads from the outputs to a parameter but through uses that were not understood; those are found afterwards
by walking the graph, and never missed.

Three traps are avoided by construction. The sample axis is not guessed: vmap is asked for the physical tensors and their
batch dimension. The model gets a clone of what was
recorded, so an in-place activation behind a use does not change the record. A recorded input that is
changed in place later is noticed by its version.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.autograd.graph import get_gradient_edge
from torch.func import vmap
from torch.overrides import TorchFunctionMode

from kerneltrack.ntk.capture.expanded import ExpandedUse, expanded
from kerneltrack.ntk.capture.record import NotCapturable, Record
from kerneltrack.ntk.capture.segment import Outcome
from kerneltrack.ntk.capture.use import Use
from kerneltrack.ntk.network import Inputs, Network


def _kept(record: Record, y: Tensor, operands: Iterable[Tensor]) -> Tensor:
    """y, which every sample has, once :class:`Record` has what is below the vmap that runs the samples.

    A ``torch.autograd.Function`` with a rule of its own is given the same tensors, by way of more Python.
    """
    # torch has no public way below its own vmap. Where a release changes these functions, every model of
    # tests/ntk/test_exactness.py fails; `make lowest` captures with the oldest torch that is admitted (tests/ntk/test_passes.py).
    interpreter: Any = retrieve_current_functorch_interpreter()
    level, size = interpreter.level(), interpreter.batch_size()
    parts = [torch._C._functorch._unwrap_batched(tensor, level) for tensor in (y, *operands)]
    if all(dim is None for _, dim in parts):
        raise NotCapturable("a use without a per-sample operand")
    with interpreter.lower():
        rows, *inputs = (_sample_first(tensor, dim, size) for tensor, dim in parts)
        if not rows.requires_grad:
            rows = rows.detach().requires_grad_()
        record.operands = [tensor.detach() for tensor in inputs]
        record.versions = [tensor._version for tensor in record.operands]
        record.shape, record.edge = rows.shape, get_gradient_edge(rows)
        handed = record.hand(rows)
    return torch._C._functorch._add_batch_dim(handed, 0, level)


def _sample_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


#: A rule rewrites a call that uses a weight: it returns the result, or NotImplemented.
Rule = Callable[..., Any]
#: One of a call that does not is given (capture, function, args, kwargs).
PlainRule = Callable[..., Any]


class Capture(TorchFunctionMode):
    """Watches one forward pass under vmap and collects its uses.

    Args:
        rules: torch function → rule.
        plain: the same for calls in which no weight takes part. Backward passes then look for zeros, which the host reads.
        copies: give the model copies of what layers return; without them a model that writes there is refused.
        watches: see whether it writes there.

    Attributes:
        writes: whether it did, where that was watched.
        outcome: what is known once the pass is over.
        has_own_axis: whether a tensor has its samples apart from the axes that the model sees.
    """

    has_own_axis = True

    def __init__(
        self,
        rules: Mapping[Any, Rule],
        plain: Mapping[Any, PlainRule] = MappingProxyType({}),
        *,
        copies: bool = True,
        watches: bool = False,
    ) -> None:
        super().__init__()
        self.rules, self.plain, self.uses, self.outcome = rules, plain, list[Use](), Outcome()
        self.writes, self._copies, self._watches = False, copies, watches or not copies
        self._records = list[Record]()
        self._level = 0

    def run(self, network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> Tensor:
        """f(x), (N, O), sample by sample under vmap; fills :attr:`uses`.

        Raises:
            NotCapturable: the uses cannot describe this forward pass.
            RuntimeError: vmap refuses the model.
        """

        def single(*tensors: Tensor) -> Tensor:
            self._level = _level()
            one = samples.replace(tuple(t.unsqueeze(0) for t in tensors))
            with self:
                return network.evaluate(leaves, one)[0]

        with torch.enable_grad():
            outputs: Tensor = vmap(single)(*samples.tensors)
        self._finish(outputs)
        return outputs

    def _finish(self, outputs: Tensor) -> None:
        """Says what is known once the pass is over.

        Raises:
            NotCapturable: something was written to that is to be read again.
        """
        self.outcome.outputs = outputs.shape[1]
        for use in self.uses:
            use.record.check_unchanged()
        written = [record.was_written() for record in self._records]  # all of them: what was handed out is let go
        self.writes = any(written)
        if self.writes and not self._copies:
            raise NotCapturable("the result of a layer is changed in place, and no copy of it was made")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DIFFERENTIATES:
            raise NotCapturable("the forward pass differentiates by itself")
        if not self._mixes(args, kwargs):
            return self.without_weight(func, args, kwargs)
        inside = opened(func)
        if inside is not None:
            with self:
                return inside(*args, **kwargs)
        if _level() != self._level:
            raise NotCapturable("a parameter is used inside a torch.func transform of the forward pass")
        rule = self.rules.get(func)
        result = NotImplemented if rule is None else rule(self, *args, **kwargs)
        return self._expanded(func, args, kwargs) if result is NotImplemented else result

    def without_weight(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of a call in which no weight takes part."""
        rule = self.plain.get(func) if torch.is_grad_enabled() else None
        result = NotImplemented if rule is None else rule(self, func, args, kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result

    def apart(self, tensors: Iterable[Tensor]) -> list[Tensor] | None:
        """What per-sample tensors hold, samples first; None where one has no samples, or some of another transform."""
        if _level() != self._level:
            return None
        interpreter: Any = retrieve_current_functorch_interpreter()
        parts = [torch._C._functorch._unwrap_batched(tensor, interpreter.level()) for tensor in tensors]
        if any(dim is None for _, dim in parts):
            return None
        with interpreter.lower():
            return [tensor.movedim(dim, 0) if dim else tensor for tensor, dim in parts]

    def together(self, function: Callable[[], Any]) -> Any:
        """The result of ``function`` of what :meth:`apart` gave, samples first, as a per-sample tensor."""
        interpreter: Any = retrieve_current_functorch_interpreter()
        with interpreter.lower():
            result = function()
        return (
            result if result is NotImplemented else torch._C._functorch._add_batch_dim(result, 0, interpreter.level())
        )

    def _mixes(self, args: Any, kwargs: Any) -> bool:
        if not torch.is_grad_enabled():
            return False
        weight = batched = False
        for tensor in tensors_in((args, kwargs)):
            if is_batched(tensor):
                batched = True
            elif tensor.requires_grad:
                weight = True
        return weight and batched

    def keep(self, record: Record, y: Tensor, operands: Iterable[Tensor], uses: Iterable[Use]) -> Tensor:
        """Records y, which was computed from detached weights; those of ``uses`` whose weight is trained count."""
        if y.is_complex():
            raise NotCapturable("a layer with complex values")
        self._collect(record, uses)
        return _kept(record, y, operands)

    def _collect(self, record: Record, uses: Iterable[Use]) -> None:
        self.uses += [use for use in uses if is_weight(use.weight)]
        record.copies, record.watched = self._copies, self._watches
        self._records.append(record)

    def expand(self, weight: Tensor, like: Tensor, trailing: int = 0) -> Tensor:
        """``weight`` as a per-sample tensor that broadcasts with ``like``, behind it so many axes of size 1.

        Its gradient is then ∂f_n/∂weight, the plain Jacobian, in the same backward.
        """
        if weight.is_complex():
            raise NotCapturable("a weight with complex values")
        record = Record()
        self.uses.append(ExpandedUse(record, weight))
        per_sample = expanded(record, weight, like)
        return per_sample.reshape(*weight.shape, *(1,) * trailing) if trailing else per_sample

    def derive(self, tensor: Tensor, like: Tensor, axes: Sequence[int]) -> None:
        """Says that a rule made ``tensor`` of ``like``, whose axes are its own in this order; vmap knows by itself."""

    def _expanded(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other function: every weight in it becomes a per-sample tensor."""
        like = next(t for t in tensors_in((args, kwargs)) if is_batched(t))
        return func(*self._replace(args, like), **self._replace(kwargs, like))

    def _replace(self, value: Any, like: Tensor) -> Any:
        if isinstance(value, Tensor):
            return self.expand(value, like) if is_weight(value) else value
        if isinstance(value, dict):
            return {k: self._replace(v, like) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            parts = [self._replace(v, like) for v in value]
            return type(value)(parts) if type(value) in (tuple, list) else value
        return value


#: What a forward pass that differentiates by itself calls.
DIFFERENTIATES = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


#: The mark of a tensor that has values for every sample of an ordinary batch.
_BATCHED = "_kerneltrack_batched"


def is_batched(tensor: Tensor) -> bool:
    """Whether ``tensor`` has one value for each sample: vmap sees so, or a capture of a batch has marked it."""
    return torch._C._functorch.is_batchedtensor(tensor) or getattr(tensor, _BATCHED, False)


def mark_batched(tensor: Tensor) -> None:
    """Says of a tensor that it has values for every sample."""
    setattr(tensor, _BATCHED, True)


def is_weight(value: Any) -> TypeGuard[Tensor]:
    """Whether ``value`` is a parameter or an expression of parameters.

    It requires grad and is the same for all samples.
    """
    return isinstance(value, Tensor) and value.requires_grad and not is_batched(value)


def detached(value: Any) -> Any:
    """``value`` without its graph where it is a weight."""
    return value.detach() if is_weight(value) else value


def _level() -> int:
    return int(torch._C._functorch.maybe_current_level() or 0)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


_OPENED: dict[Any, Callable[..., Any] | None] = {}


def opened(func: Any) -> Callable[..., Any] | None:
    """A copy of a composite written in Python (attention, norms) whose parts are seen one by one.

    None for anything else.

    The copy answers "no" when it asks whether somebody overrides it; torch's own function is not touched.
    """
    if func not in _OPENED:
        code = getattr(func, "__code__", None)
        asks = [name for name in getattr(code, "co_names", ()) if name.startswith("has_torch_function")]
        inside = isinstance(func, types.FunctionType) and func.__module__ in ("torch.nn.functional", "torch.functional")
        if inside and asks:
            names = {**func.__globals__, **dict.fromkeys(asks, lambda *_: False)}
            copy = types.FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
            copy.__kwdefaults__ = func.__kwdefaults__
            _OPENED[func] = copy
        else:
            _OPENED[func] = None
    return _OPENED[func]
