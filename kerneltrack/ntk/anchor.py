"""Anchor: a copy of a network's state, and what can be asked of the network as it was then.

Kernels and products at θ_0 are wanted long after training has left θ_0. The module is not touched for it: the copied
values are put under the forward pass, buffers (the statistics of BatchNorm) included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.ntk.dense import Jacobian, add_jacobian_kernel
from kerneltrack.ntk.forward import Forward
from kerneltrack.ntk.memory import budget_bytes
from kerneltrack.ntk.network import Network
from kerneltrack.ntk.parameters import Selection, summed_dtype, trainable, unwrap
from kerneltrack.ntk.reduction import Head, Output, parse_output


@dataclass(frozen=True)
class Anchor:
    """The values that a module's trainable parameters and buffers had at one moment.

    Attributes:
        parameters: θ by name, as :class:`Network` names them.
        buffers: every buffer by its name in the module.
    """

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> Anchor:
        """Copies of what ``module`` holds now."""
        parameters = {name: value.clone() for name, value in Network(module).parameters.items()}
        return cls(parameters, {name: b.detach().clone() for name, b in unwrap(module).named_buffers()})

    def to(self, device: torch.device) -> Anchor:
        """The same values on another device."""
        parameters, buffers = ({k: v.to(device) for k, v in d.items()} for d in (self.parameters, self.buffers))
        return Anchor(parameters, buffers)


class AnchoredNetwork(Network):
    """A :class:`Network` in the state of an anchor, whatever the module holds now.

    Args:
        model: the module.
        anchor: the state that all outputs, J v and Jᵀ u are taken at, unless other parameters are given.
        params: as of :class:`Network`.
        forward: as there.
        head: as there.
    """

    def __init__(
        self,
        model: nn.Module,
        anchor: Anchor,
        *,
        params: Selection = None,
        forward: Forward | None = None,
        head: Head | None = None,
    ) -> None:
        super().__init__(model, params=params, forward=forward, head=head)
        self._anchor = anchor
        self._every = {name: f"model.{raw}" for name, raw in trainable(self.module, None).items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Name → anchored value of every selected parameter."""
        return {name: self._anchor.parameters[name].detach() for name in self._raw}

    def _state(self) -> dict[str, Tensor]:
        anchored = {self._every[k]: value for k, value in self._anchor.parameters.items() if k in self._every}
        return super()._state() | anchored

    def _buffers(self) -> dict[str, Tensor]:
        held = {f"model.{name}": value for name, value in self._anchor.buffers.items()}
        return {raw: held.get(raw, value).clone() for raw, value in super()._buffers().items()}


def cross_ntk(
    model: nn.Module,
    x: Any,
    anchor: Anchor,
    *,
    output: Output = "full",
    params: Selection = None,
    forward: Forward | None = None,
    memory_budget: int | str | None = None,
) -> Tensor:
    """J J_aᵀ: the kernel between a network as it is and as it was at an anchor, on the same samples.

        C[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ (now) · ∂f_p(x_m)/∂θ (at the anchor)

    It is not symmetric. Computed from plain Jacobians, parameter by parameter.

    Args:
        model: the network; in eval mode if it has BatchNorm or dropout.
        x: N samples.
        anchor: the other state.
        output: as of :func:`kerneltrack.empirical_ntk`.
        params: as there.
        forward: as there.
        memory_budget: as there.

    Returns:
        The shape of ``empirical_ntk(model, x, output=output)``.

    Raises:
        UnsupportedModelError, ProbeError: as there.
    """
    reduction = parse_output(output)
    now = Network(model, params=params, forward=forward, head=reduction.head)
    then = AnchoredNetwork(model, anchor, params=params, forward=forward, head=reduction.head)
    samples, outputs = now.validate(x)
    dtype = summed_dtype(now.parameters)
    count = len(samples)
    shape = {"full": (outputs, outputs), "diagonal": (outputs,), "trace": ()}[reduction.kind]
    kernel = torch.zeros(count, count, *shape, dtype=dtype, device=now.device)
    free = budget_bytes(memory_budget, now.device) - kernel.numel() * kernel.element_size()
    add_jacobian_kernel(
        {"": kernel}, Jacobian(now, dtype=dtype), list(now.parameters), samples, samples, outputs, reduction.kind,
        max(free, 2**20), other=Jacobian(then, dtype=dtype),
    )  # fmt: skip
    return kernel[:, :, 0, 0] if reduction.name == "sum" else kernel
