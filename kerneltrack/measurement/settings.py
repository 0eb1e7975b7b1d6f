"""Settings: what an archive says of how a probe was measured, in plain values, and what a state knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kerneltrack import observables
from kerneltrack.measurement.parameter_motion import layers_of
from kerneltrack.ntk import Network
from kerneltrack.observables import State
from kerneltrack.snapshot import Json

if TYPE_CHECKING:
    from kerneltrack.measurement.instrument import Instrument


def settings_of(instrument: Instrument, network: Network, outputs: Tensor) -> dict[str, Json]:
    """The settings of a probe's record.

    Args:
        instrument: how the probe is measured.
        network: over the parameters that the kernel is of.
        outputs: f (N, O) on the probe.
    """
    modes = instrument.pairs_of(instrument.rows(outputs))
    parameters = network.parameters
    every_output = instrument.output in ("full", "diagonal", "trace")
    return {
        "output": instrument.reduction,
        # neural-tangents' default is the mean over outputs; the factor is stored so that nobody has to guess.
        "mean_trace_factor": 1.0 / outputs.shape[1] if every_output else None,
        "parameters": "all that require grad" if instrument.params is None else sorted(parameters),
        "parameter_count": sum(p.numel() for p in parameters.values()),
        "mode": "eval",
        "dtype": str(outputs.dtype).removeprefix("torch."),
        "method": instrument.method,
        "eigenpairs": instrument.eigenpairs,
        "loss": None if instrument.loss is None else instrument.loss.name,
        "loss_normalisation": None if instrument.loss is None else "mean over the probe's samples",
        "residual": "f - y" if instrument.loss is None else "N dL/df",
        "stability_scope": instrument.scope,
        "forward": None
        if instrument.forward is None
        else getattr(instrument.forward, "__qualname__", repr(instrument.forward)),
        "energy_k": list(observables.energy_k(modes)),
        # Of every parameter that trains, as the layers' columns are; the kernel may be of fewer.
        "layers": layers_of(Network(network.module)),
        "top_k": min(instrument.top_k, modes),
    }


def facts_of(
    instrument: Instrument, network: Network, outputs: Tensor, previous: State | None, step: int
) -> dict[str, Any]:
    """``State.settings``: what observables must know of how, and of which probe, a state was measured.

    Args:
        instrument: how the probe is measured.
        network: over every trainable parameter.
        outputs: f_t (N, O).
        previous: the state measured before this one, which knows the run's lag from the third state on.
        step: t.
    """
    facts: dict[str, Any] = {
        "loss": None if instrument.loss is None else instrument.loss.name,
        "dtype": str(outputs.dtype),
        "computed_in": str(_coarsest(outputs, *network.parameters.values())),
        "step": step,
        "held_out": observables.held_out(instrument.probe.identity),
    }
    if previous is not None and "step" in previous.settings:
        lag = previous.settings.get("lag") or step - previous.settings["step"]
        facts |= {"lag": lag} if lag else {}
    return facts


def _coarsest(*tensors: Tensor) -> torch.dtype:
    """The dtype of the largest spacing among floating tensors: outputs are no finer than what they were computed with."""
    return max((t.dtype for t in tensors if t.is_floating_point()), key=lambda dtype: torch.finfo(dtype).eps)
