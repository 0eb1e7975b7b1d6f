"""What to write where a model's output is none: a ``forward=`` for the way in which this model is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def how_to_pick(outputs: Any, inputs: Any) -> str:
    """The remedy for an output that holds tensors and is none: the first that has a row for each sample, by its name."""
    named = {place: t for place, t in _tensors(outputs) if t.is_floating_point() and t.dim()}
    if not named:
        return "Return a tensor, or pick one with forward=lambda model, x: model(x)[...]."
    rows = {place: t for place, t in named.items() if t.dim() > 1}
    place, tensor = next(iter((rows or named).items()))
    reduced = {3: ".mean(1)"}.get(tensor.dim(), ".flatten(1)" if tensor.dim() > 3 else "")
    others = f"; it also holds {', '.join(p for p in named if p != place)}" if len(named) > 1 else ""
    return f"Pick a tensor: forward=lambda model, x: {_call(inputs)}{place}{reduced}{others}."


def how_to_shape(outputs: Tensor, count: int, inputs: Any) -> str:
    """The remedy for a tensor of another shape than (N,) or (N, O), by where the axis of the samples went."""
    call, shape = _call(inputs), tuple(outputs.shape)
    if not shape:
        return "One number is that of the whole batch, as a loss is: return what it is computed from, with forward=."
    sequences = [t for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.dim() > 1 and t.shape[1] != count]
    if shape[0] != count and len(shape) > 1 and any(t.shape[1] == shape[0] for t in sequences):
        turned = {"model(x)": "model(x.transpose(0, 1))"}.get(call, "model(...), each tensor .transpose(0, 1)")
        return (
            "Axis 0 of the output is as long as axis 1 of the inputs: the model reads sequences first (batch_first=False). "
            "Give samples on axis 0, and turn them on their way in: "
            f"forward=lambda model, x: {turned}{'[-1]' * (len(shape) > 2)}."
        )
    if count == 1 and shape[0] != 1:
        return (
            "A single sample lost its axis, as .squeeze() does. Name the axis in the module, .squeeze(-1) or .flatten(1), or "
            f"give it back: forward=lambda model, x: {call}.reshape({_count(inputs)}, -1)."
        )
    return f"Reduce it: forward=lambda model, x: {call}.flatten(1), or a mean over positions."


def _tensors(outputs: Any) -> Iterator[tuple[str, Tensor]]:
    """Each tensor that an output holds, with what stands behind the call to reach it."""
    if isinstance(outputs, Mapping):
        places = [(f"[{key!r}]", value) for key, value in outputs.items()]
    elif hasattr(outputs, "_fields"):
        places = [(f".{name}", getattr(outputs, name)) for name in outputs._fields]
    elif isinstance(outputs, (tuple, list)):
        places = [(f"[{index}]", value) for index, value in enumerate(outputs)]
    else:
        places = [(f".{name}", value) for name, value in getattr(outputs, "__dict__", {}).items()]
    yield from ((place, value) for place, value in places if isinstance(value, Tensor))


def _call(inputs: Any) -> str:
    """How the model is called with such inputs."""
    if isinstance(inputs, Mapping):
        return "model(**x)"
    return "model(*x)" if isinstance(inputs, (tuple, list)) else "model(x)"


def _count(inputs: Any) -> str:
    """The number of samples of such inputs, as it is written in a forward."""
    if isinstance(inputs, Mapping):
        return f"len(x[{next(iter(inputs))!r}])"
    return "len(x[0])" if isinstance(inputs, (tuple, list)) else "len(x)"
