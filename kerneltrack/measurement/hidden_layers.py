"""What the hidden layers hold on the probe: activations, inputs of nonlinearities, and the features that the readout reads.

One forward pass with hooks that are gone afterwards. An activation is what a layer's module returns; its gates are what a
nonlinearity is given of it, see :mod:`.gate_inputs`. The *readout* is the linear layer whose output is the network's; where
the last thing a network does is something else, it has none, and no conjugate kernel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.measurement.gate_inputs import GateInputs
from kerneltrack.ntk import Network, layer_of, trainable


@dataclass(frozen=True)
class Hidden:
    """Activations on the probe.

    Attributes:
        activations: a_l (N, m) by layer; a layer that ran several times has all its results side by side. Layers whose
            results are not one row per sample are left out, and so is the readout.
        gates: inputs (N, m) of the nonlinearities by the layer that they are the results of; layers whose results go
            elsewhere are left out.
        features: φ (N, m), the inputs of the linear readout; None where there is none.
        readout: the layer that this readout is; None where there is none.
    """

    activations: Mapping[str, Tensor]
    gates: Mapping[str, Tensor]
    features: Tensor | None
    readout: str | None


@dataclass
class _Calls:
    """What the layers saw in one forward pass, in the order of the calls."""

    layers: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    gates: GateInputs = field(default_factory=GateInputs)


def hidden_activations(network: Network, inputs: Any) -> Hidden:
    """Run ``network`` on the probe's inputs and keep what its layers give.

    Args:
        network: over every trainable parameter, without a head, in the state to look at.
        inputs: N samples.
    """
    samples = network.inputs(inputs)
    rows: dict[str, list[Tensor]] = defaultdict(list)
    gates: dict[str, list[Tensor]] = defaultdict(list)
    features: list[Tensor | None] = []
    layer = None
    with network.evaluating(), torch.no_grad():
        for _, chunk in samples.chunks(network.chunk_rows(samples)):
            with _watched(network.module) as calls, calls.gates:
                outputs = network.evaluate(network.parameters, chunk)
            readout = _readout(calls, outputs)
            features.append(None if readout is None else calls.inputs[readout][0].detach())
            layer = None if readout is None else calls.layers[readout]
            for name, row in _activations(calls, len(chunk), readout).items():
                rows[name].append(row)
            for name, row in _gates(calls, len(chunk), layer).items():
                gates[name].append(row)
    count = len(features)
    whole = None if any(f is None for f in features) else torch.cat([f for f in features if f is not None])
    return Hidden(_joined(rows, count), _joined(gates, count), whole, None if whole is None else layer)


def _joined(rows: Mapping[str, list[Tensor]], chunks: int) -> dict[str, Tensor]:
    """Of each layer the rows of all chunks; a layer that some chunk has none of is left out."""
    return {layer: torch.cat(parts) for layer, parts in rows.items() if len(parts) == chunks}


@contextmanager
def _watched(module: nn.Module) -> Iterator[_Calls]:
    calls = _Calls()

    def hook(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(child: nn.Module, inputs: Any, outputs: Any) -> None:
            calls.layers.append(layer)
            calls.modules.append(child)
            calls.inputs.append(inputs)
            calls.outputs.append(outputs)
            calls.gates.gives(layer, outputs)

        return note

    # layer → its module: of a parametrisation the module that carries it
    owners = {layer_of(name): module.get_submodule(layer_of(raw)) for name, raw in trainable(module, None).items()}
    with ExitStack() as stack:
        for layer, owner in owners.items():
            stack.callback(owner.register_forward_hook(hook(layer)).remove)
        yield calls


def _readout(calls: _Calls, outputs: Tensor) -> int | None:
    """The call of a linear layer whose result is the network's outputs."""
    for index in reversed(range(len(calls.modules))):
        module, result, given = calls.modules[index], calls.outputs[index], calls.inputs[index]
        linear = isinstance(module, nn.Linear) and isinstance(result, Tensor) and len(given) == 1 and given[0].ndim == 2
        if linear and result.numel() == outputs.numel() and torch.equal(result.reshape(outputs.shape), outputs):
            return index
    return None


def _activations(calls: _Calls, count: int, readout: int | None) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = defaultdict(list)
    refused: set[str] = set()
    for index, (layer, result) in enumerate(zip(calls.layers, calls.outputs, strict=True)):
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if index == readout:
            continue
        if not isinstance(first, Tensor) or not first.ndim or first.shape[0] != count or not first.is_floating_point():
            refused.add(layer)
            continue
        found[layer].append(first.detach().reshape(count, -1).clone())
    return {layer: torch.cat(parts, dim=1) for layer, parts in found.items() if layer not in refused}


def _gates(calls: _Calls, count: int, readout: str | None) -> dict[str, Tensor]:
    """Inputs of nonlinearities, one row per sample; what follows the readout is no hidden layer's."""
    found = {}
    for layer, inputs in calls.gates.found.items():
        if layer != readout and all(tensor.ndim and tensor.shape[0] == count for tensor in inputs):
            found[layer] = torch.cat([tensor.reshape(count, -1) for tensor in inputs], dim=1)
    return found
