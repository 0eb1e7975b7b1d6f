"""How far hidden activations have moved: Δ_l = a_l(x; θ_t) − a_l(x; θ_0), of one neuron and of the whole layer.

a_l is what layer l's module returns. Gates are something else: the sign of what a nonlinearity is given, and only layers whose
results go into one have any. A convolution before BatchNorm has none; its norm has.

In the lazy limit the deviation of a single neuron vanishes with width while the norm over the layer does not
(St-Arnaud, Carvalho and Farnadi, arXiv 2511.07272): both are kept, and never called by one name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State

_SOURCE = "St-Arnaud, Carvalho and Farnadi 2025"


def neuron_deviation(now: Array, initial: Array) -> float:
    """RMS over points and neurons of Δ: (‖Δ‖_F²/(N m))^½ of activations (N, m)."""
    return float(np.sqrt(np.mean((now - initial) ** 2)))


def largest_deviation(now: Array, initial: Array) -> float:
    """Largest |Δ| over points and neurons of activations (N, m)."""
    return float(np.max(np.abs(now - initial)))


def layer_deviation(now: Array, initial: Array) -> float:
    """Mean over points of ‖Δ(x)‖₂, the norm over the whole layer, of activations (N, m)."""
    return float(np.mean(np.linalg.norm(now - initial, axis=1)))


def relative_deviation(now: Array, initial: Array) -> float:
    """‖Δ‖_F/‖a(0)‖_F of activations (N, m); NaN where the layer was silent."""
    norm = np.linalg.norm(initial)
    return float(np.linalg.norm(now - initial) / norm) if norm else float("nan")


def gate_flips(now: Array, initial: Array) -> float:
    """Share of (point, neuron) pairs whose gate opened or closed: the input (N, m) of a nonlinearity crossed zero."""
    return float(np.mean((now > 0) != (initial > 0)))


def _by_layer(statistic: Callable[[Array, Array], float], field: str = "activations") -> Callable[[State], Array]:
    """The statistic of every layer that has them; NaN for the others (the readout has none)."""

    def compute(state: State) -> Array:
        now, start = getattr(state, field), None if state.initial is None else getattr(state.initial, field)
        if now is None or start is None:
            raise ObservableError(f"the {field} of this state or of the initial one were not measured")
        layers = list(state.settings.get("layers", now))
        if unknown := sorted((set(now) | set(start)) - set(layers)):
            raise ObservableError(f"{field} of layers that are not in the parameter table", got=unknown)
        both = now.keys() & start.keys()
        return np.array([statistic(now[name], start[name]) if name in both else np.nan for name in layers])

    return compute


def _entry(name: str, statistic: Callable[[Array, Array], float], formula: str, long_name: str) -> Observable:
    return observable(
        name,
        _by_layer(statistic),
        formula,
        "activations",
        "initial",
        source=_SOURCE,
        dims=("layer",),
        default=False,
        long_name=long_name,
    )


OBSERVABLES: tuple[Observable, ...] = (
    _entry(
        "activation_neuron_deviation",
        neuron_deviation,
        "(mean_{n,j} Δ_l[n, j]²)^½, Δ_l = a_l(t) − a_l(0)",
        "RMS deviation of a neuron of each layer",
    ),
    _entry(
        "activation_largest_deviation",
        largest_deviation,
        "max_{n,j} |Δ_l[n, j]|",
        "largest deviation of a neuron of each layer",
    ),
    _entry("activation_layer_deviation", layer_deviation, "mean_n ‖Δ_l[n]‖₂", "deviation of each layer as a whole"),
    _entry(
        "activation_relative_deviation",
        relative_deviation,
        "‖Δ_l‖_F/‖a_l(0)‖_F",
        "deviation of each layer relative to its initial activations",
    ),
    observable(
        "gate_flips",
        _by_layer(gate_flips, "gates"),
        "mean_{n,j} [sign g_l(t) ≠ sign g_l(0)], g_l the inputs of the nonlinearity after layer l",
        "gates",
        "initial",
        source=_SOURCE,
        dims=("layer",),
        default=False,
        definition=2,
        long_name="share of gates that opened or closed since initialisation",
    ),
)
