"""A copy of a network's state, and what can be asked of the network as it was then.

Kernels and products at θ_0 are wanted long after training has left θ_0. The module is not touched for it: the copied
values are put under the forward pass, buffers (the statistics of BatchNorm) included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kerneltrack.ntk.network.configuration import Configuration
from kerneltrack.ntk.network.forward import Forward
from kerneltrack.ntk.network.names import in_tree
from kerneltrack.ntk.network.network import Network, Tensors
from kerneltrack.ntk.network.parameters import Selection, reported_name, unwrap
from kerneltrack.ntk.reduction import Head


@dataclass(frozen=True)
class NetworkState:
    """The values that a module's parameters and buffers had at one moment.

    Attributes:
        parameters: θ by name, as :class:`Network` names them: those that trained.
        buffers: every buffer by its name in the module.
        frozen: the other parameters by name, where they were asked for; else they are those of today.
    """

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, *, frozen: bool = False) -> NetworkState:
        """Copies of what ``module`` holds now, with ``frozen`` of the parameters that do not train too."""
        inner, parameters = unwrap(module), Network(module).parameters
        buffers = {name: b.detach().clone() for name, b in inner.named_buffers()}
        others = {reported_name(inner, raw): p.detach() for raw, p in inner.named_parameters()} if frozen else {}
        return cls(
            {name: value.clone() for name, value in parameters.items()},
            buffers,
            {name: value.clone() for name, value in others.items() if name not in parameters},
        )

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
        """Name → name in the module of every parameter that trained at the anchor and is still there."""
        return _present(module, self.parameters)

    def to(self, device: torch.device) -> NetworkState:
        """The same values on another device."""
        return NetworkState(*({k: v.to(device) for k, v in values.items()} for values in vars(self).values()))


def _present(module: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Name → name in the module, for those of ``names`` that it has."""
    inner = unwrap(module)
    raws = {reported_name(inner, raw): raw for raw, _ in inner.named_parameters(remove_duplicate=False)}
    return {name: raws[name] for name in names if name in raws}


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
        configuration: modes, attributes and submodules of the anchor, with which it is evaluated; None for those of today.
        dtype: as there.
    """

    def __init__(
        self,
        model: nn.Module,
        anchor: NetworkState,
        *,
        params: Selection = None,
        forward: Forward | None = None,
        head: Head | None = None,
        configuration: Configuration | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._anchor, self._configuration = anchor, configuration
        super().__init__(model, params=params, forward=forward, head=head, dtype=dtype)
        trained = {name: in_tree(raw) for name, raw in anchor._raw(self.module).items()}
        self._values_at = {raw: anchor.parameters[name] for name, raw in trained.items()}
        self._values_at |= {in_tree(r): anchor.frozen[n] for n, r in _present(self.module, anchor.frozen).items()}
        if params is None:
            self._raw = trained

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Name → anchored value of every selected parameter."""
        return {name: self._cast(self._anchor.parameters[name]) for name in self._raw}

    @property
    def device(self) -> torch.device:
        """Where the anchor's parameters are, wherever the module has gone since."""
        return next(iter(self._anchor.parameters.values())).device

    @contextmanager
    def evaluating(self, *, throughout: bool = False) -> Iterator[None]:
        """As of :class:`Network`, with the anchor's configuration in place."""
        configuration = nullcontext() if self._configuration is None else self._configuration.restored()
        with configuration, super().evaluating(throughout=throughout):
            yield

    def _state(self, given: Tensors = MappingProxyType({})) -> dict[str, Tensor]:
        return super()._state({raw: self._cast(value) for raw, value in self._values_at.items()} | dict(given))

    def buffers(self) -> dict[str, Tensor]:
        held = {in_tree(name): self._cast(value) for name, value in self._anchor.buffers.items()}
        return {raw: held.get(raw, value).clone() for raw, value in super().buffers().items()}
