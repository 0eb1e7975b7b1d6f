"""Capture of an ordinary batched forward pass, for models that vmap refuses.

A model that asks for values (is anything masked?), or calls what has no batching rule, runs on a batch all the same.
There no tensor says which axis is the samples'. A *site* is a call in which something takes part that requires grad and
does not come from the samples: a weight. The layouts of sites are found by two passes of two prime sizes
(:mod:`.batch_axis`), and a capture goes by them: at every site function and shapes are compared. What has no layout
stays attached to autograd's graph, where the plan finds it: plain autodiff has these parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from kerneltrack.ntk.capture.batch_axis import Layout, Seen, Site, compare
from kerneltrack.ntk.capture.capture import (
    DIFFERENTIATES,
    Capture,
    PlainRule,
    Rule,
    is_weight,
    mark_batched,
    opened,
    tensors_in,
)
from kerneltrack.ntk.capture.expanded import ExpandedUse
from kerneltrack.ntk.capture.record import NotCapturable, Record
from kerneltrack.ntk.capture.use import Use
from kerneltrack.ntk.network import Inputs, Network

#: Sizes of the two batches by which axes are found: primes, so that no other size follows them by chance.
SIZES = (3, 5)

#: The mark of a tensor that was computed from the samples.
_FROM_SAMPLES = "_kerneltrack_from_samples"


def find_sites(network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> list[Site]:
    """The sites of a network's forward pass, by two passes of some of the samples; call it inside ``evaluating()``.

    Raises:
        NotCapturable: the two passes do different things.
        RuntimeError: what the model raises.
    """
    few, many = (_seen(network, leaves, spread(samples, size)) for size in SIZES)
    return compare(few, many, SIZES)


def _seen(network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> list[Seen]:
    log = _Log(len(samples))
    log.evaluated(network, leaves, samples)
    return log.seen


def spread(samples: Inputs, size: int) -> Inputs:
    """So many of the samples, evenly; some twice where there are fewer."""
    return samples.pick([k * len(samples) // size for k in range(size)])


class _Watch(TorchFunctionMode):
    """Follows what is computed from the samples, and stops at every site.

    Args:
        count: N of the batch.

    Attributes:
        program: a checksum of the functions that were called, of the shapes of what they made, of whole numbers that
            they were given, and of indices that came from the samples: these may put rows in another order. Sizes that
            are multiples of N count as such.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.program = count, 0

    def evaluated(self, network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> Tensor:
        """f(x), (N, O), under the watch."""
        own = samples.map(lambda tensor: tensor.view_as(tensor))  # marks stay off the caller's tensors
        for tensor in own.tensors:
            setattr(tensor, _FROM_SAMPLES, True)
        with torch.enable_grad(), self:
            return network.evaluate(leaves, own)

    def site(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """The result of a call in which a weight takes part."""
        raise NotImplementedError

    def without_weight(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of any other call."""
        return func(*args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DIFFERENTIATES:
            raise NotCapturable("the forward pass differentiates by itself")
        name = getattr(func, "__name__", "")
        if name == "__get__" or func in _LOOKS:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and any(map(_from_samples, tensors_in((args, kwargs)))):
                setattr(result, _FROM_SAMPLES, True)
            return result
        given = list(tensors_in((args, kwargs)))
        if torch.is_grad_enabled() and any(t.requires_grad and not _from_samples(t) for t in given):
            inside = opened(func)
            if inside is not None:
                with self:
                    return inside(*args, **kwargs)
            result = self.site(func, args, kwargs, given)
        else:
            result = self.without_weight(func, args, kwargs)
        made = list(tensors_in(result))
        if any(map(_from_samples, given)):
            for tensor in (*made, *_written(name, args, kwargs)):
                setattr(tensor, _FROM_SAMPLES, True)
        self._note(name, func, args, made)
        return result

    def _note(self, name: str, func: Any, args: Any, made: Sequence[Tensor]) -> None:
        shapes = tuple(tuple(map(self._of_count, tensor.shape)) for tensor in made)
        self.program = hash((self.program, func, shapes, self._facts(args[1:], name in _PICK)))

    def _of_count(self, size: int) -> int:
        return -(size // self.count) if size and size % self.count == 0 else size

    def _facts(self, value: Any, picks: bool) -> Any:
        """What of an argument may say where rows go."""
        if isinstance(value, Tensor):
            told = picks and not value.is_floating_point() and _from_samples(value)
            return value.detach().cpu().numpy().tobytes() if told else None
        if isinstance(value, (tuple, list)):
            return tuple(self._facts(item, picks) for item in value)
        if isinstance(value, slice):
            return self._facts((value.start, value.stop, value.step), picks)
        return self._of_count(value) if isinstance(value, int) else None


class _Log(_Watch):
    """Writes down what every site is given and makes."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.seen: list[Seen] = []

    def site(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        shapes = tuple(t.shape for t in given)
        result = func(*args, **kwargs)
        self.seen.append(Seen(func, shapes, tuple(t.shape for t in tensors_in(result))))
        return result


class BatchCapture(_Watch, Capture):
    """Watches one forward pass of a batch and collects its uses, as :class:`Capture` does under vmap.

    Args:
        rules: torch function → rule.
        sites: of this network, for samples of this shape.
        plain: as :class:`Capture` has it.
        copies: as there.
    """

    has_own_axis = False

    def __init__(
        self,
        rules: Mapping[Any, Rule],
        sites: Sequence[Site],
        plain: Mapping[Any, PlainRule] = MappingProxyType({}),
        *,
        copies: bool = True,
    ) -> None:
        Capture.__init__(self, rules, plain, copies=copies, watches=True)
        self.count, self.program = 0, 0
        self._sites, self._next = sites, 0
        self._here: tuple[Layout, ...] = ()

    def run(self, network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> Tensor:
        """f(x), (N, O), of all samples in one batch; fills :attr:`uses`.

        Raises:
            NotCapturable: it does something else than what the sites were found in.
        """
        self.count = len(samples)
        outputs = self.evaluated(network, leaves, samples)
        if self._next != len(self._sites):
            raise _other_pass()
        self._finish(outputs)
        return outputs

    def without_weight(self, func: Any, args: Any, kwargs: Any) -> Any:
        return Capture.without_weight(self, func, args, kwargs)

    def apart(self, tensors: Iterable[Tensor]) -> list[Tensor] | None:
        return list(tensors)

    def together(self, function: Callable[[], Any]) -> Any:
        return function()

    def site(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        if self._next >= len(self._sites) or self._sites[self._next].function != func:
            raise _other_pass()
        site = self._sites[self._next]
        self._next += 1
        self._compare(site.given, given)
        result = self._captured(site, func, args, kwargs, given)
        if result is NotImplemented:
            result = func(*args, **kwargs)  # attached: autograd's graph leads from the outputs to the parameter
        self._compare(site.made, list(tensors_in(result)))
        return result

    def _compare(self, layouts: Sequence[Layout | None], tensors: Sequence[Tensor]) -> None:
        if len(layouts) != len(tensors):
            raise _other_pass()
        for layout, tensor in zip(layouts, tensors, strict=True):
            if layout is not None and layout.shape(self.count) != tensor.shape:
                raise _other_pass()

    def _captured(self, site: Site, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """The result with its uses recorded; NotImplemented where no rule, or no axis, says how."""
        if None in site.given or len(site.made) != 1:
            return NotImplemented
        made = site.made[0]
        if made is None or made.axis is None:
            return NotImplemented
        self._here = tuple(la for la in (made, *site.given) if la is not None and la.axis is not None)
        weights = False
        for layout, tensor in zip(site.given, given, strict=True):
            if layout is not None and layout.axis is not None:
                mark_batched(tensor)
            elif is_weight(tensor):
                if _from_samples(tensor):
                    return NotImplemented
                weights = True
        if not weights:
            return NotImplemented
        kept = len(self.uses)
        try:
            rule = self.rules.get(func)
            result = NotImplemented if rule is None else rule(self, *args, **kwargs)
            if result is NotImplemented:
                result = self._spread_out(func, args, kwargs, made)
        except _NoLayout:
            result = NotImplemented
        if result is NotImplemented:
            del self.uses[kept:]
        else:
            mark_batched(result)
        return result

    def _spread_out(self, func: Any, args: Any, kwargs: Any, made: Layout) -> Any:
        """Weights as per-sample values, in functions of which that is known to be right."""
        if func in ELEMENTWISE:
            return func(*self._placed_in(args, made), **self._placed_in(kwargs, made))
        if func in _REPEATS and is_weight(args[0]) and _broadcasts(args[0].shape, made):
            return self._placed(args[0], made, 0).expand(made.shape(self.count))
        return NotImplemented

    def _placed_in(self, value: Any, made: Layout) -> Any:
        if isinstance(value, Tensor):
            return self._placed(value, made, 0) if is_weight(value) else value
        if isinstance(value, dict):
            return {key: self._placed_in(item, made) for key, item in value.items()}
        return tuple(self._placed_in(item, made) for item in value) if isinstance(value, tuple) else value

    def keep(self, record: Record, y: Tensor, operands: Iterable[Tensor], uses: Iterable[Use]) -> Tensor:
        if y.is_complex():
            raise NotCapturable("a layer with complex values")
        layout = self._layout(y)
        rows = layout.apart(y, self.count)
        if not rows.requires_grad:
            rows = rows.detach().requires_grad_()
        record.operands = [self._layout(t).apart(t, self.count).detach() for t in operands]
        record.versions = [t._version for t in record.operands]
        record.shape, record.edge = rows.shape, get_gradient_edge(rows)
        self._collect(record, uses)
        return layout.together(record.hand(rows))

    def expand(self, weight: Tensor, like: Tensor, trailing: int = 0) -> Tensor:
        return self._placed(weight, self._layout(like), trailing)

    def derive(self, tensor: Tensor, like: Tensor, axes: Sequence[int]) -> None:
        layout = self._layout(like)
        places = [new for new, old in enumerate(axes) if old == layout.axis]
        if not places:
            raise _NoLayout
        sizes = (layout.sizes[old] if new in places else tensor.shape[new] for new, old in enumerate(axes))
        self._here += (Layout(tuple(sizes), places[0]),)
        mark_batched(tensor)

    def _placed(self, weight: Tensor, layout: Layout, trailing: int) -> Tensor:
        if weight.is_complex():
            raise NotCapturable("a weight with complex values")
        record = Record()
        repeated = weight.detach().expand(self.count, *weight.shape).requires_grad_()
        record.shape, record.edge = repeated.shape, get_gradient_edge(repeated)
        placed = layout.placed(repeated.view(*repeated.shape, *(1,) * trailing))
        self.uses.append(ExpandedUse(record, weight))
        return placed

    def _layout(self, tensor: Tensor) -> Layout:
        """That of the site which has the tensor's shape, or at least its axes and as many samples."""
        same = {layout for layout in self._here if layout.shape(self.count) == tensor.shape}
        if not same:
            same = {
                Layout((*tensor.shape[: la.axis], la.sizes[la.axis], *tensor.shape[la.axis + 1 :]), la.axis)
                for la in self._here
                if la.axis is not None
                and len(la.sizes) == tensor.dim()
                and la.shape(self.count)[la.axis] == tensor.shape[la.axis]
            }
        if len(same) != 1:
            raise _NoLayout
        return same.pop()


class _NoLayout(Exception):
    """Inside a rule: nothing says where a tensor has its samples."""


def _other_pass() -> NotCapturable:
    return NotCapturable("the forward pass does different things for different samples")


def _from_samples(tensor: Tensor) -> bool:
    if getattr(tensor, _FROM_SAMPLES, False):
        return True
    return tensor._base is not None and getattr(tensor._base, _FROM_SAMPLES, False)


def _written(name: str, args: Any, kwargs: Any) -> Iterable[Tensor]:
    """What a call has changed in place, and what that is a view of."""
    changed = list(tensors_in(kwargs.get("out")))
    if (name.endswith("_") and not name.endswith("__")) or name in _WRITE:
        changed += tensors_in(args[:1])
    for tensor in changed:
        yield tensor
        if tensor._base is not None:
            yield tensor._base


def _broadcasts(shape: torch.Size, made: Layout) -> bool:
    """Whether one sample's part of what was made is the weight, broadcast."""
    return all(own in (1, size) for own, size in zip(reversed(shape), reversed(made.sizes), strict=False))


_WRITE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}
_LOOKS = {
    Tensor.detach,
    torch.detach,
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.is_floating_point,
    torch.is_floating_point,
    Tensor.stride,
}
#: Functions that take rows, or put them, by index or mask.
_PICK = {
    *("__getitem__", "__setitem__", "index_select", "gather", "take", "take_along_dim", "masked_select"),
    *(
        f"{kind}{end}"
        for kind in ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "masked_scatter")
        for end in ("", "_")
    ),
}
_REPEATS = {Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.broadcast_to, Tensor.broadcast_to}
#: Functions of entries: what a weight is for one sample it is for all, broadcast.
ELEMENTWISE = {
    getattr(place, name)
    for place in (torch, Tensor)
    for name in (
        *("add", "sub", "mul", "div", "true_divide", "subtract", "multiply", "divide", "maximum", "minimum", "pow"),
        *("where", "lerp", "rsub", "add_", "sub_", "mul_", "div_", "__add__", "__radd__", "__iadd__", "__sub__"),
        *("__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__", "__truediv__", "__rtruediv__", "__itruediv__"),
        *("__pow__", "__rpow__"),
    )
    if hasattr(place, name)
}
