"""The network's first-order Taylor polynomial in its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from kerneltrack.ntk.network import Forward, Network, refuse_random

Linearized = Callable[..., Tensor]


def linearize(
    model: nn.Module, params: Mapping[str, Tensor] | None = None, *, forward: Forward | None = None
) -> Linearized:
    """f_lin(x; θ) = f(x; θ_0) + J(x; θ_0)(θ − θ_0), as a function of (x, parameters).

    Args:
        model: the network f; its trainable parameters are linearised, the frozen ones stay.
        params: θ_0 by name; None copies the model's current values, so that later training does not move the
            anchor.
        forward: as in :func:`kerneltrack.empirical_ntk`.

    Returns:
        ``callable(x, parameters=None) -> (N, O)``: ``parameters`` is θ by name (those left out stay at θ_0);
        None is the model's values at the time of the call.
    """
    network = Network(model, forward=forward)
    anchor = network.parameters | dict(params or {})
    anchor = {name: value.detach().clone() for name, value in anchor.items()}

    def linearized(x: Any, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        theta = network.parameters if parameters is None else {**anchor, **parameters}
        refuse_random(network, x)
        step = {name: theta[name].detach() - anchor[name] for name in anchor}
        return network.outputs(x, anchor) + network.jvp(x, step, anchor)

    return linearized
