"""How a model is called, and what it may return: (N, O) or (N,), real and floating, or an object with such ``logits``."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.network.hooks import hook_keys
from kerneltrack.ntk.network.remedies import how_to_pick, how_to_shape
from kerneltrack.ntk.reduction import Head, Rowwise

Forward = Callable[[nn.Module, Any], Tensor]
Result = TypeVar("Result")


class Call(nn.Module):
    """``forward(model, inputs)`` as a module, so that ``functional_call`` can replace parameters under it."""

    def __init__(self, model: nn.Module, forward: Forward, head: Head | None) -> None:
        super().__init__()
        self.model, self._forward, self._head = model, forward, head
        self.width: int | None = None

    @property
    def functions(self) -> tuple[Any, Any]:
        """The forward function and the head, as parts of a key."""
        return _weak(self._forward), _weak(self._head)

    @property
    def is_plain(self) -> bool:
        """Whether inputs go into the module as they do by default."""
        return self._forward is default_forward

    def headed(self, outputs: Tensor) -> Tensor:
        """(n, O) → (n, K): the head of f's outputs, where there is one."""
        return outputs if self._head is None else self._head(outputs)

    def forward(self, inputs: Any, count: int, then: Callable[[Tensor], Result], raw: bool = False) -> Result:
        """``then(f(x))`` for a chunk of ``count`` samples; with ``raw`` f's own outputs, without the head."""
        values = as_rows(self._forward(self.model, inputs), count, self.width, inputs)
        self.width = values.shape[1] if count > 1 else self.width
        return then(values if raw else self.headed(values))


#: What every module has; its modes and hooks are looked at by themselves. And the name of the hook that runs, which Lightning
#: notes in its modules: a run's last state is measured in another one than the others, by the same plan.
_EVERY = frozenset(vars(nn.Module())) | {"_current_fx_name"}


def structure(modules: Sequence[nn.Module], parameters: Iterable[Tensor]) -> tuple[Any, ...]:
    """Modes, hooks, and switches: attributes of modules that are true, false, None or a text."""
    modes = tuple(module.training for module in modules)
    return modes, hook_keys(modules, parameters), tuple(map(_switches, modules))


def _switches(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    own = vars(module).items()
    return tuple((k, v) for k, v in own if k not in _EVERY and isinstance(v, (bool, str, type(None))))


def _weak(function: Any) -> Any:
    """``function`` as a part of a key that does not keep alive what it closes over, which may be the module."""
    if isinstance(function, Rowwise):  # made anew for every call
        return Rowwise, _weak(function.g)
    try:
        return weakref.WeakMethod(function) if inspect.ismethod(function) else weakref.ref(function)
    except TypeError:
        return function


def default_forward(model: nn.Module, inputs: Any) -> Tensor:
    """``model(x)`` for a tensor, ``model(*x)`` for a tuple or list, ``model(**x)`` for a dict."""
    if isinstance(inputs, dict):
        return model(**inputs)  # type: ignore[no-any-return]
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)  # type: ignore[no-any-return]


def as_rows(outputs: Any, count: int, width: int | None = None, inputs: Any = None) -> Tensor:
    """``outputs`` as (N, O); a (N,) output becomes (N, 1).

    Args:
        outputs: what the model returned: a tensor, or an object whose attribute ``logits`` is one (transformers'
            ModelOutput).
        count: N.
        width: O, where it is known.
        inputs: what the model received, for what is said in a refusal.

    Raises:
        UnsupportedModelError: not a tensor, not floating, or of another shape.
    """
    if isinstance(getattr(outputs, "logits", None), Tensor):
        outputs = outputs.logits
    if not isinstance(outputs, Tensor):
        raise UnsupportedModelError(
            "the model does not return a tensor",
            expected="(N,) or (N, O), or an object with a tensor called logits",
            got=type(outputs).__name__,
            remedy=how_to_pick(outputs, inputs),
        )
    if not outputs.is_floating_point():
        raise UnsupportedModelError(
            "the outputs are not real floating-point numbers",
            got=outputs.dtype,
            remedy="Return logits, not classes, with forward=.",
        )
    if count == 1 and outputs.numel() == (width or 1) and outputs.dim() < 2 and outputs.shape != (1,):
        outputs = outputs.reshape(1, -1)  # a forward that ends in squeeze() drops the axis of a single sample
    if outputs.dim() not in (1, 2) or outputs.shape[0] != count:
        raise UnsupportedModelError(
            "the output is not (N,) or (N, O)",
            expected=f"({count},) or ({count}, O)",
            got=tuple(outputs.shape),
            remedy=how_to_shape(outputs, count, inputs),
        )
    rows: Tensor = outputs if outputs.dim() == 2 else outputs.unsqueeze(1)
    return rows
