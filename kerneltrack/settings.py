"""Settings: what an archive says of how a probe was measured, in plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from kerneltrack import observables
from kerneltrack.effects import layers_of
from kerneltrack.ntk import Network
from kerneltrack.snapshot import Json

if TYPE_CHECKING:
    from kerneltrack.instrument import Instrument


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
