"""The network's first-order Taylor polynomial in its parameters, as a function that can be trained.

Its products are those of the engine, at the anchor, each with a derivative that is such a product again:

    a(x) = f_0(x)         ∂⟨u, a⟩/∂x by autograd
    b(x, v) = J_0(x) v    ∂⟨u, b⟩/∂v = J_0(x)ᵀ u
    c(x, u) = J_0(x)ᵀ u   ∂⟨w, c⟩/∂u = J_0(x) w

So nothing that must hold during a forward pass (the anchor's values in the module) has to hold when autograd runs later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from kerneltrack.errors import KernelError
from kerneltrack.ntk.network import (
    AnchoredNetwork,
    Configuration,
    Forward,
    Inputs,
    Network,
    NetworkState,
    refuse_random,
    unwrap,
)

Linearized = Callable[..., Tensor]


def linearize(
    model: nn.Module, params: Mapping[str, Tensor] | None = None, *, forward: Forward | None = None
) -> Linearized:
    """f_lin(x; θ) = f(x; θ_0) + J(x; θ_0)(θ − θ_0), as a function of (x, parameters).

    The anchor is the network as it is at this call: trainable and frozen parameters, buffers, modes, submodules, hooks, and
    attributes that are tensors, numbers or short containers of such are copied. Whatever training does to the model
    later does not move it. Variables that ``forward`` closes over are not part of it.

    The result can be differentiated by the parameters (J(x; θ_0)ᵀ, to any order) and once by the inputs, so that the
    linearised network can be trained, also through ``torch.func.grad``, ``vjp`` and ``vmap``; forward mode is not
    offered::

        linear = kt.linearize(model)
        theta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD(theta.values(), lr=0.1)
        for x, y in batches:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(linear(x, theta), y).backward()
            optimizer.step()

    Args:
        model: the network f; its trainable parameters are linearised, the frozen ones stay.
        params: θ_0 by name, for some or all trainable parameters; None for the model's current values.
        forward: as in :func:`kerneltrack.empirical_ntk`.

    Returns:
        ``callable(x, parameters=None) -> (N, O)``: ``parameters`` is θ by name (those left out stay at θ_0);
        None is the model's values at the time of the call, which no gradient reaches.

    Raises:
        KernelError: of ``params`` or ``parameters``: a name that is not that of a trainable parameter of the anchor, a
            value that is no tensor or on another device, or one of another shape.
        UnsupportedModelError, ProbeError: as :func:`kerneltrack.empirical_ntk`.
    """
    state = NetworkState.of(model, frozen=True)
    state = replace(
        state,
        parameters={n: t.detach().clone() for n, t in _at(state, {} if params is None else params, "params").items()},
    )
    network = AnchoredNetwork(model, state, forward=forward, configuration=Configuration(unwrap(model)))

    def linearized(x: Any, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        theta = _at(state, _current(state, model) if parameters is None else parameters, "parameters")
        site = _Site(network, x)
        step = [theta[name] - start for name, start in state.parameters.items()]
        value: Tensor = _Value.of(site, *site.given) + _Along.of(site, *site.given, *step)
        return value

    return linearized


def _current(state: NetworkState, model: nn.Module) -> dict[str, Tensor]:
    """What ``model`` holds now under the anchor's names.

    Raises:
        KernelError: it has other parameters now.
    """
    if gone := state.incomparable(model, ()):
        raise KernelError(
            "the model's current parameters are not those that were linearised", got=gone, remedy="Give parameters=."
        )
    return state.now(model)


def _at(state: NetworkState, given: Mapping[str, Tensor], argument: str) -> dict[str, Tensor]:
    """θ: what is ``given``, in the anchor's dtype, and the anchor's value of every other parameter.

    Raises:
        KernelError: as :func:`linearize`.
    """
    if not isinstance(given, Mapping):
        raise KernelError(
            f"{argument}= of the linearised network is no mapping",
            expected="name → tensor, as dict(model.named_parameters())",
            got=type(given).__name__,
            remedy="Give values by name, or None for those that the model holds.",
        )
    for name, value in given.items():
        _refuse(state, name, value, argument)
    return {name: given[name].to(start) if name in given else start for name, start in state.parameters.items()}


def _refuse(state: NetworkState, name: str, value: Any, argument: str) -> None:
    start = state.parameters.get(name)
    if start is None:
        frozen = "which is frozen" if name in state.frozen else "which is no trainable parameter"
        raise KernelError(
            f"{argument}= of the linearised network names {name!r}, {frozen} of the anchor",
            expected=f"some of {list(state.parameters)[:12]}",
            remedy="Leave it out: buffers and frozen parameters belong to the anchor.",
        )
    if not isinstance(value, Tensor) or value.shape != start.shape or value.device != start.device:
        raise KernelError(
            f"{argument}= of the linearised network does not fit at {name!r}",
            expected=f"a tensor {tuple(start.shape)} on {start.device}",
            got=f"{tuple(value.shape)} on {value.device}" if isinstance(value, Tensor) else type(value).__name__,
            remedy="Give the value that the parameter of this name would have.",
        )


class _Site:
    """Where products are taken: the network at its anchor, and inputs whose tensors autograd hands over.

    Args:
        network: at θ_0.
        x: N samples, a tensor or a pytree.
    """

    def __init__(self, network: Network, x: Any) -> None:
        self._network, self._inputs = network, Inputs(x, attached=True)
        self.given, self.names = self._inputs.tensors, list(network.parameters)
        self.count = len(self.given)
        self.floating = [i for i, tensor in enumerate(self.given) if tensor.is_floating_point()]

    def value(self, x: Sequence[Tensor]) -> Tensor:
        """f_0(x), (N, O)."""
        samples = self._samples(x)
        refuse_random(self._network, samples)
        return self._network.outputs(samples)

    def along(self, x: Sequence[Tensor], v: Sequence[Tensor]) -> Tensor:
        """J_0(x) v, (N, O)."""
        return self._network.jvp(self._samples(x), dict(zip(self.names, v, strict=True)))

    def pull(self, x: Sequence[Tensor], u: Tensor) -> tuple[Tensor, ...]:
        """J_0(x)ᵀ u, one tensor for each parameter."""
        return tuple(self._network.vjp(self._samples(x), u).values())

    def by_inputs(self, x: Sequence[Tensor], u: Tensor, v: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """∂⟨u, J_0(x) v⟩/∂x for the floating inputs; without ``v`` ∂⟨u, f_0(x)⟩/∂x."""
        wanted = [x[i].detach().requires_grad_() for i in self.floating]
        replaced = list(x)
        for i, tensor in zip(self.floating, wanted, strict=True):
            replaced[i] = tensor
        leaves = {name: p.detach().requires_grad_(bool(v)) for name, p in self._network.parameters.items()}

        def pulled(outputs: Tensor) -> Sequence[Tensor | None]:
            along = (outputs * u.to(outputs)).sum()
            if v and along.requires_grad:
                parts = torch.autograd.grad(along, list(leaves.values()), create_graph=True, allow_unused=True)
                along = sum(((p * d).sum() for p, d in zip(parts, v, strict=True) if p is not None), along * 0)
            if not along.requires_grad:
                return [None] * len(wanted)
            return torch.autograd.grad(along, wanted, allow_unused=True)

        with self._network.evaluating(), torch.enable_grad():
            found = self._network.applied(leaves, self._inputs.replace(tuple(replaced)), pulled)
        return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))

    def _samples(self, x: Sequence[Tensor]) -> Inputs:
        return self._inputs.replace(tuple(tensor.detach() for tensor in x))


class _Product(Function):
    """What the four have in common: arguments (site, *tensors), inputs first, kept for the backward pass."""

    @classmethod
    def of(cls, site: _Site, *tensors: Tensor) -> Any:
        """The product, as autograd records it."""
        return cls.apply(site, *tensors)  # type: ignore[no-untyped-call]  # torch's own method is untyped

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.site = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise KernelError(
            "the linearised network has no forward-mode derivative",
            remedy="Use reverse mode: torch.func.vjp, grad or jacrev. Along θ it is linear: subtract two values.",
        )

    @staticmethod
    def kept(ctx: Any) -> tuple[_Site, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The site, the inputs, and the tensors behind them."""
        count = ctx.site.count
        return ctx.site, ctx.saved_tensors[:count], ctx.saved_tensors[count:]

    @staticmethod
    def gradients(ctx: Any, u: Tensor, v: Sequence[Tensor], behind: Callable[[], Sequence[Tensor]]) -> tuple[Any, ...]:
        """Those of every argument: by x along ``u`` and ``v``, and ``behind()`` by the tensors behind x."""
        site, x, others = _Product.kept(ctx)
        found: list[Tensor | None] = [None] * (1 + site.count + len(others))
        if any(ctx.needs_input_grad[1 + i] for i in site.floating):
            for i, part in zip(site.floating, _ByInputs.of(site, *x, u, *v), strict=True):
                found[1 + i] = part
        if any(ctx.needs_input_grad[1 + site.count :]):
            found[1 + site.count :] = behind()
        return tuple(found)


def _one_by_one(function: type[_Product], info: Any, in_dims: Sequence[int | None], *given: Any) -> tuple[Any, Any]:
    """The rule of ``vmap``: a call for each entry."""
    results = []
    for index in range(info.batch_size):
        one = [g if dim is None else g.select(dim, index) for g, dim in zip(given, in_dims, strict=True)]
        results.append(function.of(*one))
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])


class _Value(_Product):
    """a(x) = f_0(x)."""

    @staticmethod
    def forward(site: _Site, *x: Tensor) -> Tensor:
        return site.value(x)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        return _Product.gradients(ctx, u, (), lambda: ())

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return _one_by_one(_Value, info, in_dims, *given)


class _Along(_Product):
    """b(x, v) = J_0(x) v."""

    @staticmethod
    def forward(site: _Site, *tensors: Tensor) -> Tensor:
        return site.along(tensors[: site.count], tensors[site.count :])

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        site, x, v = _Product.kept(ctx)
        return _Product.gradients(ctx, u, v, lambda: _Pull.of(site, *x, u))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return _one_by_one(_Along, info, in_dims, *given)


class _Pull(_Product):
    """c(x, u) = J_0(x)ᵀ u."""

    @staticmethod
    def forward(site: _Site, *tensors: Tensor) -> tuple[Tensor, ...]:
        return site.pull(tensors[: site.count], tensors[site.count])

    @staticmethod
    def backward(ctx: Any, *w: Tensor) -> tuple[Any, ...]:
        site, x, (u,) = _Product.kept(ctx)
        return _Product.gradients(ctx, u, w, lambda: [_Along.of(site, *x, *w)])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return _one_by_one(_Pull, info, in_dims, *given)


class _ByInputs(_Product):
    """∂⟨u, J_0(x) v⟩/∂x, or ∂⟨u, f_0(x)⟩/∂x."""

    @staticmethod
    def forward(site: _Site, *tensors: Tensor) -> tuple[Tensor, ...]:
        return site.by_inputs(tensors[: site.count], tensors[site.count], tensors[site.count + 1 :])

    @staticmethod
    def backward(ctx: Any, *w: Tensor) -> tuple[Any, ...]:
        raise KernelError(
            "the linearised network's gradient by its inputs has no further derivative",
            remedy="Differentiate once by the inputs, or by the parameters as often as you like.",
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return _one_by_one(_ByInputs, info, in_dims, *given)
