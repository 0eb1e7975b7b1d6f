"""Anchor: a copy of a network's state, and what can be asked of the network as it was then.

Kernels and products at θ_0 are wanted long after training has left θ_0. The module is not touched for it: the copied
values are put under the forward pass, buffers (the statistics of BatchNorm) included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kerneltrack.ntk.forward import Forward
from kerneltrack.ntk.network import Network
from kerneltrack.ntk.parameters import Selection, trainable, unwrap
from kerneltrack.ntk.reduction import Head


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
