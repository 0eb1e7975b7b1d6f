"""Weights in the spectral norm: the condition under which every layer learns features, whatever its width.

Features of a layer change by an amount that does not depend on the width where ‖W‖₂ and ‖W_t − W_0‖₂ are both of the size of
√(n_out/n_in). The ratio ‖W_t − W_0‖₂/‖W_0‖₂ of a lazy run falls with width; of a rich one it does not.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State

_SOURCE = "Yang, Simon and Bernstein 2023 (arXiv 2310.17813)"


def _norms(state: State) -> Array:
    """(layers, 4), see :attr:`State.layer_weights`."""
    if state.layer_weights is None:
        raise ObservableError("the weights at initialisation are unknown")
    return np.array(list(state.layer_weights.values())).reshape(-1, 4)


def _over(state: State, above: int, below: int) -> Array:
    norms = _norms(state)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(norms[:, below] > 0, norms[:, above] / norms[:, below], np.nan))


OBSERVABLES = (
    observable(
        "weight_spectral_change",
        lambda s: _over(s, 2, 0),
        "‖W_t − W_0‖₂/‖W_0‖₂ of the layer's matrix W",
        "weights",
        source=_SOURCE,
        dims=("layer",),
        default=False,
        long_name="spectral change of each layer's weights",
    ),
    observable(
        "weight_spectral_scale",
        lambda s: _over(s, 1, 3),
        "‖W_t‖₂/√(n_out/n_in) of the layer's matrix W (n_out, n_in)",
        "weights",
        source=_SOURCE,
        dims=("layer",),
        default=False,
        long_name="spectral norm of each layer's weights against √(n_out/n_in)",
    ),
    observable(
        "weight_change_scale",
        lambda s: _over(s, 2, 3),
        "‖W_t − W_0‖₂/√(n_out/n_in) of the layer's matrix W (n_out, n_in)",
        "weights",
        source=_SOURCE,
        dims=("layer",),
        default=False,
        long_name="spectral norm of the change of each layer's weights against √(n_out/n_in)",
    ),
)
