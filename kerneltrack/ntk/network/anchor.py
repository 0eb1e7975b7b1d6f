"""A copy of a network's state, and what can be asked of the network as it was then.

Kernels and products at θ_0 are wanted long after training has left θ_0. The module is not touched for it: the copied
values are put under the forward pass, buffers (the statistics of BatchNorm) included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kerneltrack.ntk.network.forward import Forward
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.parameters import Selection, reported_name, unwrap
from kerneltrack.ntk.reduction import Head


@dataclass(frozen=True)
class NetworkState:
    """The values that a module's trainable parameters and buffers had at one moment.

    Attributes:
        parameters: θ by name, as :class:`Network` names them.
        buffers: every buffer by its name in the module.
    """

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> NetworkState:
        """Copies of what ``module`` holds now."""
        parameters = {name: value.clone() for name, value in Network(module).parameters.items()}
        return cls(parameters, {name: b.detach().clone() for name, b in unwrap(module).named_buffers()})

    def now(self, module: nn.Module) -> dict[str, Tensor]:
        """What ``module`` holds now under the anchor's names, whether it still trains or not."""
        own = dict(unwrap(module).named_parameters(remove_duplicate=False))
        return {name: own[raw].detach() for name, raw in self._raw(module).items()}

    def incomparable(self, module: nn.Module, trained: Iterable[str]) -> str:
        """Why ``module``, in which ``trained`` are the parameters that train, cannot be compared with the anchor; or ""."""
        held = self.now(module)
        gone = [n for n, p in self.parameters.items() if n not in held or held[n].shape != p.shape]
        if gone:
            return f"parameters of the initial network are gone: {listed(gone)}"
        added = [name for name in trained if name not in self.parameters]
        return f"parameters train that did not at step 0: {listed(added)}" if added else ""

    def _raw(self, module: nn.Module) -> dict[str, str]:
        """Name → name in the module of every parameter of the anchor that is still there."""
        inner = unwrap(module)
        raws = {reported_name(inner, raw): raw for raw, _ in inner.named_parameters(remove_duplicate=False)}
        return {name: raws[name] for name in self.parameters if name in raws}

    def to(self, device: torch.device) -> NetworkState:
        """The same values on another device."""
        parameters, buffers = ({k: v.to(device) for k, v in d.items()} for d in (self.parameters, self.buffers))
        return NetworkState(parameters, buffers)


def listed(names: list[str]) -> str:
    """The first two names, and how many more there are."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


class AnchoredNetwork(Network):
    """A :class:`Network` in the state of an anchor, whatever the module holds now and whatever of it trains.

    Args:
        model: the module.
        anchor: the state that all outputs, J v and Jᵀ u are taken at, unless other parameters are given.
        params: as of :class:`Network`; None for every parameter of the anchor.
        forward: as there.
        head: as there.
    """

    def __init__(
        self,
        model: nn.Module,
        anchor: NetworkState,
        *,
        params: Selection = None,
        forward: Forward | None = None,
        head: Head | None = None,
    ) -> None:
        super().__init__(model, params=params, forward=forward, head=head)
        self._anchor = anchor
        self._every = {name: f"model.{raw}" for name, raw in anchor._raw(self.module).items()}
        if params is None:
            self._raw = dict(self._every)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Name → anchored value of every selected parameter."""
        return {name: self._anchor.parameters[name].detach() for name in self._raw}

    def _state(self) -> dict[str, Tensor]:
        anchored = {self._every[k]: value for k, value in self._anchor.parameters.items() if k in self._every}
        return super()._state() | anchored

    def buffers(self) -> dict[str, Tensor]:
        held = {f"model.{name}": value for name, value in self._anchor.buffers.items()}
        return {raw: held.get(raw, value).clone() for raw, value in super().buffers().items()}
