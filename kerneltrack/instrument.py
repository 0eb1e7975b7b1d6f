"""Instrument: one measurement of one probe on one network, from the kernel to named numbers. No Lightning here.

The live tracker and the replay of saved checkpoints read the same instrument, so their numbers agree by construction.
A measurement has two halves. :meth:`Instrument.measure` takes the state θ_t before an update; what needs both sides of
that update (the linearisation errors) is added by :meth:`Instrument.complete` once θ_{t+1} is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kerneltrack import observables
from kerneltrack.errors import ProbeError
from kerneltrack.loss import ProbeLoss
from kerneltrack.ntk import Network, empirical_ntk
from kerneltrack.observables import Observable, State, Update
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Array, ProbeRecord
from kerneltrack.spectrum import eigensystem
from kerneltrack.stability import stability_ratio
from kerneltrack.update_rule import UpdateRule

Output = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one probe gave at one moment.

    Attributes:
        state: the measured state, NumPy float64.
        values: the archive's datasets of this measurement, by name.
        reasons: for each observable that is NaN, why.
        rule: the update that leaves this state.
        outputs: f_t (N, O) as the network gave it.
        parameters: θ_t by name, kept until the update has happened; empty where nothing needs it.
    """

    state: State
    values: Mapping[str, Array]
    reasons: Mapping[str, str] = field(default_factory=dict)
    rule: UpdateRule
    outputs: Tensor
    parameters: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """How a probe is measured.

    Attributes:
        probe: the fixed inputs and targets.
        output: "full", "diagonal", "trace", "sum", or a callable g: (O,) → (K,).
        top_k: how many eigenvectors are stored.
        observables: what is computed, from the catalogue.
        loss: the loss on the probe, or None: residual f − y, no loss, no stability ratio.
        method: of :func:`kerneltrack.empirical_ntk`.
        forward: (model, inputs) → outputs, or None for the model's own call.
        params: which parameters the kernel is of: None for all that require grad, a predicate, or names.
        memory_budget: bytes or "2GiB", or None.
        scope: "exact" where the loss on the probe is the training loss itself, else "probe estimate".
    """

    probe: Probe
    output: Output = "full"
    top_k: int = 64
    observables: tuple[Observable, ...] = ()
    loss: ProbeLoss | None = None
    method: str = "auto"
    forward: Callable[[Any, Any], Any] | None = None
    params: Callable[[str], bool] | Iterable[str] | None = None
    memory_budget: int | str | None = None
    scope: str = "probe estimate"

    @property
    def reduction(self) -> str:
        """The output reduction's name."""
        return self.output if isinstance(self.output, str) else "callable"

    def describe(self, module: nn.Module, *, keep_inputs: bool = False) -> ProbeRecord:
        """The probe's record with everything that says what the numbers are; checks probe and module on the way.

        Raises:
            ProbeError: targets that do not fit the outputs.
            KernelError: a module whose kernel cannot be computed exactly.
        """
        network = self._network(module)
        outputs = network.outputs(self._inputs(module))
        targets = self._targets(outputs)
        if self.loss is not None and targets is None:
            raise ProbeError(
                f"probe {self.probe.name!r} has no targets, which loss={self.loss.name!r} needs",
                remedy="Give the probe targets, or the tracker loss=None.",
            )
        if self.loss is not None and targets is not None:
            self.loss.verify(outputs, targets)
        count, width = outputs.shape
        record = self.probe.record(width, keep_inputs=keep_inputs)
        kernel_width = {"full": width, "diagonal": width}.get(self.reduction, 1)
        if callable(self.output):
            kernel_width = int(self.output(outputs[0]).numel())
        modes = count * kernel_width
        settings = {
            "output": self.reduction,
            # neural-tangents' default is the mean over outputs; the factor is stored so that nobody has to guess.
            "mean_trace_factor": 1.0 / width if self.reduction in ("full", "diagonal", "trace") else None,
            "parameters": sorted(network.parameters) if self.params is not None else "all that require grad",
            "parameter_count": sum(p.numel() for p in network.parameters.values()),
            "mode": "eval",
            "dtype": str(outputs.dtype).removeprefix("torch."),
            "method": self.method,
            "loss": None if self.loss is None else self.loss.name,
            "loss_normalisation": None if self.loss is None else "mean over the probe's samples",
            "residual": "f - y" if self.loss is None else "N dL/df",
            "stability_scope": self.scope,
            "forward": None if self.forward is None else getattr(self.forward, "__qualname__", repr(self.forward)),
            "energy_k": list(observables.energy_k(modes)),
            "top_k": min(self.top_k, modes),
        }
        return replace(record, settings=settings)

    def measure(
        self,
        module: nn.Module,
        rule: UpdateRule,
        *,
        initial: State | None = None,
        previous: State | None = None,
        anchor: Mapping[str, Tensor] | None = None,
        keep_kernel: bool = False,
        keep_parameters: bool = True,
    ) -> Reading:
        """Measure the state that ``module`` is in; call it inside :func:`kerneltrack.undisturbed.undisturbed`.

        Args:
            module: the network, in eval mode.
            rule: the update that is about to happen.
            initial: the state at step 0 of the same run; None while it is being measured.
            previous: the last state measured.
            anchor: θ_0 by name, for ``anchored_linearization_error``.
            keep_kernel: put the kernel itself among the values.
            keep_parameters: keep θ_t for :meth:`complete`.
        """
        network, inputs = self._network(module), self._inputs(module)
        outputs = network.outputs(inputs)
        targets = self._targets(outputs)
        kernel = empirical_ntk(
            module, inputs, output=self.output, method=self.method, params=self.params, forward=self.forward,
            memory_budget=self.memory_budget,
        )  # fmt: skip
        pairs = eigensystem(kernel)
        ratio, reason = stability_ratio(
            self._network(module, every_parameter=True), inputs, outputs, targets, self.loss, rule,
            top_eigenvalue=float(pairs.values[0]) if self._spans_all_parameters_and_outputs(outputs) else None,
        )  # fmt: skip
        state = State(
            eigensystem=pairs,
            kernel=_numpy(kernel),
            reduction=self.reduction,  # type: ignore[arg-type]  # one of the five literals, checked by empirical_ntk
            targets=None if targets is None or callable(self.output) else _numpy(targets),
            outputs=_numpy(torch.func.vmap(self.output)(outputs) if callable(self.output) else outputs),
            residual=None if targets is None or callable(self.output) else _numpy(self._residual(outputs, targets)),
            probe_loss=None if self.loss is None or targets is None else float(self.loss.value(outputs, targets)),
            learning_rates=rule.learning_rates,
            stability=ratio,
            initial=initial,
            previous=previous,
            anchored_outputs=self._anchored_outputs(module, inputs, initial, anchor),
        )
        values, reasons = observables.compute(self.observables, state, after_update=False)
        values = {**observables.measurement(state, top_k=self.top_k), **values}
        if keep_kernel:
            values["kernel"] = _stored_kernel(kernel)
        if ratio is None and reason:
            reasons = {**reasons, "stability_ratio": reason}
        kept = keep_parameters and "update" in observables.needs(self.observables)
        parameters = self._network(module, every_parameter=True).parameters if kept else {}
        return Reading(
            state=state, values=values, reasons=reasons, rule=rule, outputs=outputs.detach(),
            parameters={name: p.detach().clone() for name, p in parameters.items()},
        )  # fmt: skip

    def complete(self, module: nn.Module, reading: Reading, rule: UpdateRule) -> Reading:
        """Add what needs θ_{t+1}: ``module`` is now in the state after the update that left ``reading``'s state.

        With Δθ = θ_{t+1} − θ_t, Δf = f_{t+1} − f_t on the probe, P the preconditioner of ``rule`` and m the residual:
        the linear change J_tΔθ and the kernel's flow −J_t P J_tᵀ m/N are taken at θ_t, and compared with Δf.
        """
        if not reading.parameters:
            return reading
        network, inputs = self._network(module, every_parameter=True), self._inputs(module)
        before = dict(reading.parameters)
        step = {name: p.detach() - before[name] for name, p in network.parameters.items()}
        update = Update(
            output_change=_numpy(network.outputs(inputs)) - _numpy(reading.outputs),
            linear_change=_numpy(network.jvp(inputs, step, parameters=before)),
            kernel_change=self._kernel_flow(network, inputs, reading.outputs, rule, before),
        )
        state = replace(reading.state, update=update)
        values, reasons = observables.compute(self.observables, state, after_update=True)
        return replace(
            reading, state=replace(state, update=None), values={**reading.values, **values},
            reasons={**reading.reasons, **reasons}, parameters={},
        )  # fmt: skip

    def _network(self, module: nn.Module, *, every_parameter: bool = False) -> Network:
        return Network(module, params=None if every_parameter else self.params, forward=self.forward)

    def _inputs(self, module: nn.Module) -> Any:
        """The probe's inputs where the module's parameters are, floating ones in the parameters' dtype."""
        like = next(p for p in module.parameters() if p.is_floating_point())
        return pytree.tree_map(
            lambda x: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype), self.probe.inputs
        )

    def _targets(self, outputs: Tensor) -> Tensor | None:
        targets = self.probe.aligned_targets(outputs.shape[1])
        return None if targets is None else torch.from_numpy(targets).to(outputs)

    def _residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs - targets if self.loss is None else self.loss.residual(outputs, targets)

    def _spans_all_parameters_and_outputs(self, outputs: Tensor) -> bool:
        """Whether λ_1 of the measured kernel is λ_1 of J Jᵀ over every output and parameter."""
        return self.params is None and (self.reduction == "full" or (outputs.shape[1] == 1 and self.output != "callable"))

    def _anchored_outputs(
        self, module: nn.Module, inputs: Any, initial: State | None, anchor: Mapping[str, Tensor] | None
    ) -> Array | None:
        """f_0 + J_0(θ_t − θ_0): the network linearised at initialisation, moved to today's parameters."""
        if anchor is None or initial is None or "anchor" not in observables.needs(self.observables):
            return None
        network = self._network(module, every_parameter=True)
        way = {name: p.detach() - anchor[name] for name, p in network.parameters.items()}
        return initial.outputs + _numpy(network.jvp(inputs, way, parameters=dict(anchor)))

    def _kernel_flow(
        self, network: Network, inputs: Any, outputs: Tensor, rule: UpdateRule, parameters: dict[str, Tensor]
    ) -> Array | None:
        targets = self._targets(outputs)
        metric = rule.metric(list(network.parameters))
        if self.loss is None or targets is None or metric is None:
            return None
        gradient = network.vjp(inputs, self._residual(outputs, targets) / len(self.probe), parameters=parameters)
        flow = {
            name: -(metric if isinstance(metric, float) else metric[name]) * g for name, g in gradient.items()
        }
        return _numpy(network.jvp(inputs, flow, parameters=parameters))


def _stored_kernel(kernel: Tensor) -> Array:
    """The kernel with the archive's four axes (N, N, K, K), or (N, N, O, 1) for the diagonal reduction."""
    array = kernel.detach().cpu().numpy()
    return array.reshape(*array.shape, *(1,) * (4 - array.ndim))


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float64).numpy()
    return np.ascontiguousarray(array)
