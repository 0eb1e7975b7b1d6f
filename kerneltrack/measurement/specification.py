"""What is measured on a probe, and how, in plain values; no kernel is computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kerneltrack import observables
from kerneltrack.conventions import Gauge, measured
from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.eigenpairs import Eigenpairs
from kerneltrack.measurement.layers import Layers
from kerneltrack.ntk import (
    AnchoredNetwork,
    Keeps,
    Method,
    Network,
    NetworkState,
    Output,
    parse_output,
    reported_name,
    selected,
    unwrap,
)
from kerneltrack.observables import NEEDS, Need, Observable, in_order
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Array, InTraining, Json, Reduction
from kerneltrack.training import ProbeLoss


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """How a probe is measured.

    Attributes:
        probe: the fixed inputs and targets.
        output: "full", "diagonal", "trace", "sum", or a callable g: (O,) → (K,).
        gauge: "raw", or "softmax": without what softmax does not see.
        top_k: how many eigenvectors are stored.
        eigenpairs: "all", or "leading": only the first top_k are computed.
        observables: what is computed, from the catalogue.
        loss: the loss on the probe, or None: residual f − y, no loss, no stability ratio.
        method: of :func:`kerneltrack.empirical_ntk`.
        forward: (model, inputs) → outputs, or None for the model's own call.
        params: which parameters the kernel is of: None for all that require grad, a predicate, or names.
        memory_budget: bytes or "2GiB", or None.
        scope: "exact" where the loss on the probe is the training loss itself, else "probe estimate".
        in_training: whether the probe's points are trained on; None: what its identity says.
        batches: of the training data, as large as an update's; drawn once, for what is measured on batches.
        without_batches: why there are none.
    """

    probe: Probe
    output: Output = "full"
    gauge: Gauge = "raw"
    top_k: int = 64
    eigenpairs: Eigenpairs = "all"
    observables: tuple[Observable, ...] = ()
    loss: ProbeLoss | None = None
    method: Method = "auto"
    forward: Callable[[Any, Any], Any] | None = None
    params: Callable[[str], bool] | Iterable[str] | None = None
    memory_budget: int | str | None = None
    scope: str = "probe estimate"
    in_training: InTraining | None = None
    batches: tuple[Probe, ...] = ()
    without_batches: str = "no training batches were drawn"

    @property
    def reduction(self) -> Reduction:
        """The output reduction's name."""
        return "callable" if callable(self.output) else self.output

    @property
    def seen(self) -> InTraining:
        """Whether the probe's points are trained on, as far as anybody knows."""
        return self.in_training or observables.in_training(self.probe.identity)

    @cached_property
    def wanted(self) -> tuple[Need, ...]:
        """What must be measured, in that order: what the observables need; the leading pairs start from the last ones."""
        last = {"previous"} if self.eigenpairs == "leading" else set()
        return in_order(observables.needs(self.observables) | last)

    def needs(self, name: str) -> bool:
        """Whether this must be measured."""
        return NEEDS[name] in self.wanted

    @cached_property
    def selection(self) -> Callable[[str], bool] | None:
        """The chosen parameters, as far as they train now: a name that was checked at the start may freeze later."""
        if self.params is None or callable(self.params):
            return self.params
        return frozenset([self.params] if isinstance(self.params, str) else self.params).__contains__

    def trains(self, module: nn.Module) -> bool:
        """Whether any parameter that the kernel is of trains now."""
        inner = unwrap(module)
        found = (reported_name(inner, n) for n, p in inner.named_parameters(remove_duplicate=False) if p.requires_grad)
        return any(self.selection is None or self.selection(name) for name in found)

    def network(
        self,
        module: nn.Module,
        *,
        every_parameter: bool = False,
        anchor: NetworkState | None = None,
        headed: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Network:
        """``module`` as a function, over the parameters that the kernel is of.

        Args:
            module: the network.
            every_parameter: over all that train instead.
            anchor: the state to take it in; None for its state now.
            headed: whether a callable output= is part of the function.
            dtype: evaluate it in this dtype; None for its own.
        """
        params = None if every_parameter else self.selection
        head = parse_output(self.output).head if headed and callable(self.output) else None
        if anchor is not None:
            return AnchoredNetwork(module, anchor, params=params, forward=self.forward, head=head, dtype=dtype)
        return Network(module, params=params, forward=self.forward, head=head, dtype=dtype)

    def inputs(self, module: nn.Module) -> Any:
        """The probe's inputs where the module's parameters are, floating ones in the parameters' dtype."""
        like = next(p for p in module.parameters() if p.is_floating_point())
        return pytree.tree_map(
            lambda x: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype), self.probe.inputs
        )

    def targets(self, outputs: Tensor) -> Tensor | None:
        """y (N, O) as the outputs are held against them, one-hot for classes; None where the probe has none."""
        targets = self.probe.aligned_targets(outputs.shape[1])
        return None if targets is None else torch.from_numpy(targets).to(outputs)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """N ∂L/∂f (N, O); f − y where no loss is known."""
        return outputs - targets if self.loss is None else self.loss.residual(outputs, targets)

    def read(self, outputs: Tensor) -> Array:
        """A function (N, O) of the network's outputs in float64, as the kernel meets it; see :mod:`kerneltrack.conventions`."""
        return measured(to_float64(outputs), self.gauge, self.reduction)

    def rows(self, outputs: Tensor) -> int:
        """M, the rows of the kernel matrix, where the network's outputs are (N, O)."""
        count, width = outputs.shape
        if callable(self.output):
            return count * int(self.output(outputs[0]).numel())
        if self.output == "full":
            return count * (width - (self.gauge == "softmax"))
        return count * (width if self.output == "diagonal" else 1)

    def pairs_of(self, rows: int) -> int:
        """How many eigenpairs are computed of a kernel matrix with so many rows."""
        return rows if self.eigenpairs == "all" else min(self.top_k, rows)

    def is_whole(self, outputs: Tensor) -> bool:
        """Whether the measured kernel is J Jᵀ over every output and every trainable parameter."""
        one_output = outputs.shape[1] == 1 and not callable(self.output)
        return self.params is None and (self.output == "full" or one_output)

    def keeps(self, outputs: Tensor) -> Keeps:
        """What stays of the kernel's making, where the outputs are (N, O).

        J, where the loss's curvature is asked for and the kernel alone does not tell it. Of one output the kernel tells that; what
        it was captured as is J already, and says what the update did.
        """
        if self.is_whole(outputs):
            return "what is there" if outputs.shape[1] == 1 and self.needs("update") else "nothing"
        curved = self.loss is not None and any(need.field in ("sharpness", "stability") for need in self.wanted)
        multiplies = curved and self.params is None and self.output in ("diagonal", "trace")
        return "factors" if multiplies else "nothing"

    def settings(self, network: Network, outputs: Tensor) -> dict[str, Json]:
        """The settings of the probe's record.

        Args:
            network: over the parameters that the kernel is of.
            outputs: f (N, O) on the probe.
        """
        modes = self.pairs_of(self.rows(outputs))
        parameters = network.parameters
        every_output = self.output in ("full", "diagonal", "trace") and self.gauge == "raw"
        return {
            "output": self.reduction,
            "gauge": self.gauge,
            # neural-tangents' default is the mean over outputs; the factor is stored, so that no reader has to guess.
            "mean_trace_factor": 1.0 / outputs.shape[1] if every_output else None,
            "parameters": self._named(network.module),
            "parameter_count": sum(p.numel() for p in parameters.values()),
            "mode": "eval",
            "dtype": str(outputs.dtype).removeprefix("torch."),
            "method": self.method,
            "eigenpairs": self.eigenpairs,
            "loss": None if self.loss is None else self.loss.name,
            "loss_normalisation": None if self.loss is None else "mean over the probe's samples",
            "residual": "f - y" if self.loss is None else "N dL/df",
            "stability_scope": self.scope,
            "forward": None if self.forward is None else getattr(self.forward, "__qualname__", repr(self.forward)),
            "energy_k": list(observables.energy_k(modes)),
            "layers": list(Layers.of(network.module, self.selection).names),
            "top_k": min(self.top_k, modes),
        }

    def _named(self, module: nn.Module) -> Json:
        """The parameters that are chosen, frozen ones too: they may thaw."""
        return "all that require grad" if self.params is None else sorted(selected(module, self.selection))

    def facts(self, network: Network, outputs: Tensor, step: int, lag: int | None) -> dict[str, Any]:
        """``State.settings``: what observables must know of how, and of which probe, a state was measured.

        Args:
            network: over every trainable parameter.
            outputs: f_t (N, O).
            step: t.
            lag: Δ of the run, updates between its first two states; None before the second.
        """
        facts: dict[str, Any] = {
            "loss": None if self.loss is None else self.loss.name,
            "dtype": str(outputs.dtype),
            "computed_in": str(_coarsest(outputs, *network.parameters.values())),
            "step": step,
            "in_training": self.seen,
        }
        return facts if lag is None else {**facts, "lag": lag}


def _coarsest(*tensors: Tensor) -> torch.dtype:
    """The dtype of the largest spacing among floating tensors: outputs are no finer than what they were computed with."""
    return max((t.dtype for t in tensors if t.is_floating_point()), key=lambda dtype: torch.finfo(dtype).eps)
