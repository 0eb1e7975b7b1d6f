"""The witness: what one forward and backward pass of a network does beside computing its outputs.

It watches both passes of one sample, and what it saw decides how the kernel may be computed: in which arithmetic, by which
kind of derivative, or not at all. It is asked once for each structure of a module, mode, shape of a sample and set of hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.network.arithmetic import LowestPrecision
from kerneltrack.ntk.network.autograd_graph import is_of_torch
from kerneltrack.ntk.network.hooks import Spies
from kerneltrack.ntk.network.parameters import common_dtype
from kerneltrack.ntk.network.pullback import pull
from kerneltrack.ntk.network.pushforward import forward_mode

_REGISTER_HOOK: Any = Tensor.register_hook
#: What a forward pass asks of autograd's graph: it may hang a hook on a node, or compute something else in forward mode.
_OF_GRAPH: tuple[Any, ...] = (Tensor.grad_fn, Tensor.requires_grad, Tensor.is_leaf)
#: torch's ways to differentiate; whatever torch.func or torch.autograd.functional offers goes through one of them.
DIFFERENTIATES = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})


@dataclass(frozen=True)
class Sight:
    """What a forward and a backward pass were seen to do.

    Attributes:
        eps: the resolution of the coarsest floating-point arithmetic that took part.
        differentiates: the module whose forward pass differentiates by itself; None where none does.
        hooks: what changes gradients inside the model, in words: hooks on tensors, on modules.
        parameters: names of the parameters whose own hooks change their gradient.
        buffers: raw names of the buffers that the forward pass writes into.
    """

    eps: float
    differentiates: str | None = None
    hooks: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()

    @property
    def uncapturable(self) -> str:
        """Why only plain autodiff, sample by sample, gives the derivative; or ""."""
        if self.hooks:
            return f"gradient hooks change what the backward pass gives: {', '.join(self.hooks[:4])}"
        return (
            "" if self.differentiates is None else f"the forward pass differentiates by itself: {self.differentiates}"
        )

    @property
    def told(self) -> str:
        """What decides how a kernel is computed, in words."""
        own = f"hooks on parameters {list(self.parameters[:4])}" if self.parameters else ""
        return "; ".join(filter(None, [self.uncapturable, own])) or f"no hooks, arithmetic of resolution {self.eps:.2g}"

    @property
    def by_rows(self) -> bool:
        """Whether a product with J is only what its rows make it: hooks need not be linear."""
        return bool(self.hooks or self.parameters)


@dataclass(frozen=True, eq=False)
class Pass:
    """One sample's pass through a network: what :func:`see` needs of it.

    Attributes:
        module: the module.
        values: copies of all parameters, by raw name.
        selected: raw name → reported name of those that a kernel speaks of.
        buffers: copies of all buffers.
        run: (values, buffers, then) → then(f(x)), with these in place while ``then`` runs.
    """

    module: nn.Module
    values: Mapping[str, Tensor]
    selected: Mapping[str, str]
    buffers: Mapping[str, Tensor]
    run: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Callable[[Tensor], Any]], Any]


def see(one: Pass) -> Sight:
    """Watches one forward and backward pass; call it where the network may be evaluated.

    Raises:
        UnsupportedModelError: the forward pass writes into its parameters, or into tensors that are attributes of
            modules and no buffers; it names them.
    """
    leaves = {raw: v.requires_grad_() if raw in one.selected else v for raw, v in one.values.items()}
    selected = [leaves[raw] for raw in one.selected]
    held = _attributes(one.module)
    kept = {name: (tensor._version, tensor.clone()) for name, tensor in held.items()}
    versions = {raw: value._version for raw, value in (leaves | dict(one.buffers)).items()}
    spies, calls = Spies(), Calls(one.module)
    functions = _Functions(spies, calls)
    arithmetic = LowestPrecision(common_dtype(one.values))

    def backward(outputs: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        functions.asleep = True
        if outputs.requires_grad and not is_of_torch(outputs):
            functions.foreign = True
        u = cotangent(outputs)
        return u, pull(selected, u, outputs)

    with torch.enable_grad():
        with calls.followed(), spies.on_modules(one.module), functions, arithmetic:
            u, pulled = _leaf_refused(lambda: one.run(leaves, one.buffers, backward))
        _refuse_written(held, kept)
        _refuse_changed([one.selected.get(raw, raw) for raw in leaves if leaves[raw]._version != versions[raw]])
    culprits = spies.culprits
    asked = functions.foreign and not culprits and functions.differentiates is None
    if asked and _two_derivatives(one, leaves, u, pulled, arithmetic.eps):
        culprits = ["a hook on a node of autograd's graph, or a backward pass of its own"]
    return Sight(
        eps=float(arithmetic.eps),
        differentiates=functions.differentiates,
        hooks=tuple(culprits),
        parameters=(),
        buffers=tuple(raw for raw in one.buffers if one.buffers[raw]._version != versions[raw]),
    )


def cotangent(outputs: Tensor) -> Tensor:
    """u of the shape of the outputs (n, O), the same at every call; drawn by a generator of our own."""
    n, width = outputs.shape
    u = torch.randn(n, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    return u.to(outputs.device, outputs.dtype)


def _attributes(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that modules hold as attributes, by name; torch does not know of them.

    What a pass under vmap has left in an attribute is none: it is dead outside, and every forward pass makes it anew.
    """
    return {
        f"{name}.{attribute}".strip("."): value
        for name, child in module.named_modules()
        for attribute, value in vars(child).items()
        if isinstance(value, Tensor) and not value.is_inference() and not _is_of_vmap(value)
    }


def _is_of_vmap(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _leaf_refused(run: Callable[[], Any]) -> Any:
    """``run()``; torch's refusal to change a leaf in place is told like the change itself."""
    try:
        return run()
    except RuntimeError as refusal:
        if "leaf Variable that requires grad" in str(refusal):
            raise _changes(["a parameter, or a view of one"]) from refusal
        raise


def _changes(names: Sequence[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the forward pass changes parameters in place: {list(names)[:8]}",
        remedy="A kernel is that of one parameter value; move the change out of forward.",
    )


def _refuse_changed(names: Sequence[str]) -> None:
    if names:
        raise _changes(names)


def _refuse_written(held: Mapping[str, Tensor], kept: Mapping[str, tuple[int, Tensor]]) -> None:
    written = [name for name, tensor in held.items() if tensor._version != kept[name][0]]
    with torch.no_grad():
        for name in written:
            held[name].copy_(kept[name][1])
    if written:
        raise UnsupportedModelError(
            f"the forward pass writes into tensors that are attributes and no buffers: {written[:8]}",
            remedy="Register them with register_buffer, so that a measurement can put them back; or assign a new tensor.",
        )


def _two_derivatives(
    one: Pass, leaves: Mapping[str, Tensor], u: Tensor, pulled: Sequence[Tensor | None], eps: float
) -> bool:
    """Whether forward mode gives another derivative than reverse mode: uᵀ(J v) is ‖v‖² for v = Jᵀu.

    False where forward mode does not apply, and where v is rounding.
    """
    direction = {raw: part.to_dense() for raw, part in zip(one.selected, pulled, strict=True) if part is not None}
    if not direction:
        return False

    def function(parameters: Mapping[str, Tensor], then: Callable[[Tensor], Tensor]) -> Tensor:
        result: Tensor = one.run({**leaves, **parameters}, one.buffers, then)
        return result

    values = {raw: leaves[raw].detach() for raw in direction}
    try:
        _, pushed = forward_mode(function, values, direction)
    except (RuntimeError, NotImplementedError):
        return False
    forward = float((u.double() * pushed.double()).sum())
    reverse = float(torch.stack([part.double().square().sum() for part in direction.values()]).sum())
    return bool(abs(forward - reverse) > _ROUNDED * eps**0.5 * max(abs(forward), reverse))


#: Two derivatives along one direction are the same up to so many times the root of the arithmetic's resolution.
_ROUNDED = 4.0


class Calls:
    """Which module is running: the innermost one, by name.

    Args:
        module: the root; its own name is "(root)".
    """

    def __init__(self, module: nn.Module) -> None:
        self._names = {id(child): name or "(root)" for name, child in module.named_modules()}
        self._running: list[str | None] = []

    @property
    def innermost(self) -> str:
        """In words."""
        known = [name for name in self._running if name is not None]
        return f"in module {known[-1]!r}" if known else "in forward="

    @contextmanager
    def followed(self, note: Callable[[str], None] = lambda name: None) -> Iterator[None]:
        """Keeps :attr:`innermost` right; ``note`` is told it before every change."""

        def enter(child: nn.Module, inputs: Any) -> None:
            note(self.innermost)
            self._running.append(self._names.get(id(child)))

        def leave(child: nn.Module, inputs: Any, outputs: Any) -> None:
            note(self.innermost)
            if self._running:
                self._running.pop()

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
        try:
            yield
        finally:
            note(self.innermost)
            self._running.clear()
            for handle in handles:
                handle.remove()


class _Functions(TorchFunctionMode):
    """Sees derivatives that a forward pass takes, and hooks that it hangs on its tensors.

    Attributes:
        differentiates: the module that takes a derivative; None where none does.
        foreign: whether forward mode may give another derivative: the forward pass has asked something of autograd's graph, what
            operations save goes through hooks, or a node of the graph is none of torch's.
        asleep: whether what follows is no forward pass.
    """

    def __init__(self, spies: Spies, calls: Calls) -> None:
        super().__init__()
        self._spies, self._calls = spies, calls
        self.differentiates: str | None = None
        self.foreign = self.asleep = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        if not self.asleep:
            if func in DIFFERENTIATES:
                self.differentiates = self.differentiates or self._calls.innermost
            self.foreign |= getattr(func, "__self__", None) in _OF_GRAPH or _saves_through_hooks()
        if func is _REGISTER_HOOK:
            tensor, hook = _tensor_and_hook(*args, **given)
            return func(tensor, self._spies.on(f"a hook on a tensor {self._calls.innermost}", hook))
        return func(*args, **given)


def _saves_through_hooks() -> bool:
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _tensor_and_hook(self: Tensor, hook: Callable[..., Any]) -> tuple[Tensor, Callable[..., Any]]:
    """The arguments of ``Tensor.register_hook``, however they were given."""
    return self, hook
