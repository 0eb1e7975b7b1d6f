"""Gradient hooks: what a user has hung on the way that gradients take, and whether it changes them.

A hook that returns nothing and writes nothing only looks on, and does not matter to a kernel. Any other makes the
gradients that autograd gives no derivatives; then a row of J is what autograd gives for one output of one sample, with the
hook alive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

#: Where torch keeps the backward hooks of a module, and those of all modules.
_OF_MODULE = ("_backward_hooks", "_backward_pre_hooks")
_OF_ALL: tuple[dict[int, Any], ...] = (
    torch.nn.modules.module._global_backward_hooks,
    torch.nn.modules.module._global_backward_pre_hooks,
)
#: Sizes of the gradients that a parameter's hook is tried on: some clip what is large, and return nothing else.
_SIZES = (1.0, 1e6)


def hook_keys(modules: Iterable[nn.Module], parameters: Iterable[Tensor]) -> tuple[Any, ...]:
    """Changes whenever a hook is hung on one of the parameters or modules, or taken away."""
    own = [tuple(hooks) for p in parameters if (hooks := p._backward_hooks)]
    parts = [tuple(hooks) for child in modules for kind in _OF_MODULE if (hooks := getattr(child, kind))]
    return tuple(own), tuple(parts), tuple(map(tuple, _OF_ALL))


def changing(parameter: Tensor) -> list[Callable[[Tensor], Tensor | None]]:
    """The hooks of a parameter that change its gradient; each is called with two gradients of our own."""
    hooks: Mapping[int, Any] = parameter._backward_hooks or {}
    return [hook for hook in hooks.values() if any(_changes(hook, parameter, size) for size in _SIZES)]


def hooked(leaf: Tensor, parameter: Tensor) -> Tensor:
    """``leaf`` with the hooks of ``parameter``."""
    for hook in (parameter._backward_hooks or {}).values():
        leaf.register_hook(hook)  # type: ignore[no-untyped-call]  # torch's own function is untyped
    return leaf


class Spies:
    """Hooks that are watched while a backward pass runs."""

    def __init__(self) -> None:
        self._suspects: list[tuple[str, list[bool]]] = []

    @property
    def culprits(self) -> list[str]:
        """Names of what changed gradients, each once; what was never reached may change them elsewhere."""
        return list(dict.fromkeys(name for name, changed in self._suspects if any(changed) or not changed))

    def on(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        """``hook``, watched."""
        seen: list[bool] = []
        self._suspects.append((name, seen))

        def watched(*given: Any) -> Any:
            tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
            versions = [tensor._version for tensor in tensors]
            result = hook(*given)
            seen.append(result is not None or [tensor._version for tensor in tensors] != versions)
            return result

        return watched

    @contextmanager
    def on_modules(self, module: nn.Module) -> Iterator[None]:
        """The backward hooks of ``module``, of its parts and of all modules, watched."""
        kept: list[tuple[nn.Module, str, Any]] = []
        everywhere = [dict(hooks) for hooks in _OF_ALL]
        for name, child in module.named_modules():
            for kind in _OF_MODULE:
                if hooks := getattr(child, kind):
                    kept.append((child, kind, hooks))
                    setattr(child, kind, self._all(f"a hook on module {name or '(root)'!r}", hooks))
        for hooks in _OF_ALL:
            hooks.update(self._all("a hook on every module", hooks))
        try:
            yield
        finally:
            for child, kind, hooks in kept:
                setattr(child, kind, hooks)
            for hooks, before in zip(_OF_ALL, everywhere, strict=True):
                hooks.update(before)

    def _all(self, name: str, hooks: Mapping[int, Any]) -> OrderedDict[int, Any]:
        return OrderedDict((handle, self.on(name, hook)) for handle, hook in hooks.items())


def _changes(hook: Callable[[Tensor], Tensor | None], parameter: Tensor, size: float) -> bool:
    generator = torch.Generator().manual_seed(parameter.numel())
    draw = size * torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
    gradient = draw.to(parameter.device, parameter.dtype)
    version = gradient._version
    return hook(gradient) is not None or gradient._version != version
