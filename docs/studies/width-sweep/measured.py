"""What the archive of a training says: its numbers by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kerneltrack import analytic
from kerneltrack.analysis import Run, load


def last(run: Run, name: str) -> float:
    """A scalar observable at the end of training."""
    return float(run.values(name)[-1])


def largest(run: Run, name: str) -> float:
    """A scalar observable, where it is largest while training; NaN where no moment has it."""
    return float(np.fmax.reduce(run.values(name)))


def hidden(run: Run, name: str, layer: int) -> float:
    """An observable of a hidden layer at the end; −1 is the last one. The readout, which has no activations, is left out."""
    return float(run.values(name)[-1, :-1][layer])


def width_of(run: Run) -> float:
    return float(run.provenance["metadata"]["width"])


def smallest_at_start(run: Run) -> float:
    return float(run.values("eigenvalues")[0, -1])


def distance_to_limit(run: Run) -> float:
    """‖Θ_0 − Θ_∞‖_F/‖Θ_∞‖_F, Θ_∞ the closed form of three weight layers; for ReLU MLPs in NTK parametrisation."""
    limit = limit_kernel(run)
    return float(np.linalg.norm(run.at("kernel", 0)[..., 0, 0] - limit) / np.linalg.norm(limit))


def limit_kernel(run: Run) -> np.ndarray:
    """Θ_∞ on the run's probe, whose inputs the archive holds."""
    import torch

    x = torch.as_tensor(np.array(run.dataset["inputs"].values, dtype=np.float64))
    return analytic.relu_ntk(x, depth=3).numpy()


def smallest_over_limit(run: Run) -> float:
    """λ_min(Θ_0)/λ_min(Θ_∞)."""
    return smallest_at_start(run) / float(np.linalg.eigvalsh(limit_kernel(run))[0])


#: name → how it is read off a run
NUMBERS: dict[str, Callable[[Run], float]] = {
    "C' on the trajectory": lambda r: largest(r, "jacobian_stability"),
    "C' on the sphere": lambda r: float(np.max(r.provenance["metadata"]["sphere_constants"])),
    "λ_min(Θ_0)": smallest_at_start,
    "κ(Θ_0)": lambda r: float(r.values("condition_number")[0]),
    "‖ΔJ‖/‖J‖": lambda r: last(r, "jacobian_relative_change"),
    "‖ΔΘ‖/‖Θ‖": lambda r: last(r, "relative_kernel_change"),
    "‖Δθ‖": lambda r: last(r, "parameter_distance"),
    "‖Δθ‖/R": lambda r: largest(r, "stability_radius_share"),
    "neuron RMS": lambda r: hidden(r, "activation_neuron_deviation", -1),
    "neuron RMS, first layer": lambda r: hidden(r, "activation_neuron_deviation", 0),
    "largest neuron": lambda r: hidden(r, "activation_largest_deviation", -1),
    "layer norm": lambda r: hidden(r, "activation_layer_deviation", -1),
    "relative norm": lambda r: hidden(r, "activation_relative_deviation", -1),
    "gate flips": lambda r: hidden(r, "gate_flips", -1),
    "lower bound": lambda r: last(r, "deviation_lower_bound"),
    "bound used": lambda r: largest(r, "deviation_bound_used"),
    "(gate flips/m)^½": lambda r: (hidden(r, "gate_flips", -1) / width_of(r)) ** 0.5,
    "η/√m": lambda r: float(r.learning_rates[0, 0]) / width_of(r) ** 0.5,
    "anchored error": lambda r: last(r, "anchored_linearization_error"),
    "loss": lambda r: last(r, "probe_loss"),
}
#: what needs the closed form, which is that of ReLU MLPs in NTK parametrisation
CLOSED: dict[str, Callable[[Run], float]] = {
    "‖Θ_0 − Θ_∞‖/‖Θ_∞‖": distance_to_limit,
    "λ_min(Θ_0)/λ_min(Θ_∞)": smallest_over_limit,
    "C' of Θ_∞": lambda r: NUMBERS["C' on the trajectory"](r) * smallest_over_limit(r) ** 0.5,
}


def numbers(path: Path) -> dict[str, float | None]:
    """Every number of the training in an archive; None where it is not known, as the bound of a CNN."""
    run = load(path).only
    known = NUMBERS | (CLOSED if run.provenance["metadata"]["setting"] == "relu-ntk" else {})
    found = {name: number(run) for name, number in known.items()}
    return {name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in found.items()}
