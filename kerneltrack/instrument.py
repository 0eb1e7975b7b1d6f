"""Instrument: one measurement of one probe on one network, from the kernel to named numbers. No Lightning here.

The live tracker and the replay of saved checkpoints read the same instrument, so their numbers agree by construction.
A measurement has two halves. :meth:`Instrument.measure` takes the state θ_t before an update; what needs both sides of
that update (the linearisation errors) is added by :meth:`Instrument.complete` once θ_{t+1} is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kerneltrack import observables
from kerneltrack.errors import ProbeError
from kerneltrack.loss import ProbeLoss
from kerneltrack.ntk import Network
from kerneltrack.ntk.parameters import layer_of
from kerneltrack.ntk.shared import shared_ntk
from kerneltrack.observables import Need, Observable, State, Update
from kerneltrack.probe import Probe
from kerneltrack.ranks import Ranks
from kerneltrack.snapshot import Array, Json, ProbeRecord, Reduction
from kerneltrack.spectrum import eigensystem
from kerneltrack.stability import stability_ratio
from kerneltrack.update_rule import UpdateRule

Output = Literal["full", "diagonal", "trace", "sum"] | Callable[[Tensor], Tensor]
Method = Literal["auto", "structured", "jacobian", "products"]

#: The layers' kernels are held side by side up to this many numbers (1 GiB of float32); beyond it layers are not measured.
LAYER_NUMBERS = 2**28


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
    values: Mapping[str, Any]
    reasons: Mapping[str, str]
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
        ranks: the processes that compute the kernel together.
    """

    probe: Probe
    output: Output = "full"
    top_k: int = 64
    observables: tuple[Observable, ...] = ()
    loss: ProbeLoss | None = None
    method: Method = "auto"
    forward: Callable[[Any, Any], Any] | None = None
    params: Callable[[str], bool] | Iterable[str] | None = None
    memory_budget: int | str | None = None
    scope: str = "probe estimate"
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def reduction(self) -> Reduction:
        """The output reduction's name."""
        return "callable" if callable(self.output) else self.output

    def needs(self, need: Need) -> bool:
        """Whether one of the chosen observables needs this to be measured."""
        return need in observables.needs(self.observables)

    def describe(self, module: nn.Module, *, keep_inputs: bool = False) -> ProbeRecord:
        """The probe's record with everything that says what the numbers are; checks probe and module on the way.

        Raises:
            ProbeError: targets that do not fit the outputs, or a loss without targets.
            KernelError: a module whose kernel cannot be computed exactly.
            ObservableError: targets that the chosen reduction cannot see.
        """
        network = self._network(module)
        inputs = self._inputs(module)
        network.validate(inputs, name=f"probe {self.probe.name!r}")
        outputs = network.outputs(inputs)
        targets = self._targets(outputs)
        observables.check_targets(None if targets is None else _numpy(targets), self.reduction)
        if self.loss is not None and targets is None:
            raise ProbeError(
                f"probe {self.probe.name!r} has no targets, which loss={self.loss.name!r} needs",
                remedy="Give the probe targets, or the tracker loss=None.",
            )
        if self.loss is not None and targets is not None:
            self.loss.verify(outputs, targets)
        record = self.probe.record(outputs.shape[1], keep_inputs=keep_inputs)
        return replace(record, settings=self._settings(network, outputs))

    def measure(
        self,
        module: nn.Module,
        rule: UpdateRule,
        *,
        step: int,
        anchor: Mapping[str, Tensor] | None = None,
        initial: State | None = None,
        previous: State | None = None,
        keep_kernel: bool = False,
        keep_parameters: bool = True,
    ) -> Reading:
        """Measure the state that ``module`` is in; call it inside :func:`kerneltrack.undisturbed.undisturbed`.

        Args:
            module: the network, in eval mode.
            rule: the update that is about to happen.
            step: t; the state at step 0 is its own initial state.
            anchor: θ_0 by name, where it is known.
            initial: the state at step 0 of the same run; None where it is unknown.
            previous: the last state measured.
            keep_kernel: put the kernel itself among the values.
            keep_parameters: keep θ_t for :meth:`complete`.
        """
        inputs, every = self._inputs(module), self._network(module, every_parameter=True)
        outputs = every.outputs(inputs)
        targets = self._targets(outputs)
        layers = self._layer_kernels(module, inputs, outputs)
        kernel: Tensor = self._kernel(module, inputs) if layers is None else _total(layers)
        layer_traces = None if layers is None else {name: _trace(part) for name, part in layers.items()}
        pairs = eigensystem(kernel)
        stability, unstable = stability_ratio(
            every, inputs, outputs, targets, self.loss, rule,
            top_eigenvalue=float(pairs.values[0]) if self._is_whole(outputs) else None,
        )  # fmt: skip
        state = State(
            eigensystem=pairs,
            kernel=_numpy(kernel),
            reduction=self.reduction,
            learning_rates=rule.learning_rates,
            stability=stability,
            layer_traces=layer_traces,
            layer_kernels={n: _numpy(k) for n, k in layers.items()} if layers and self.needs("layer_kernels") else None,
            initial=initial,
            previous=previous,
            settings={
                "loss": None if self.loss is None else self.loss.name,
                "dtype": str(outputs.dtype),
                "layers": _layers(every),
                "step": step,
            },
            parameter_distance=None if anchor is None else _norm(_way(anchor, every.parameters)),
            **self._functions(outputs, targets),
        )
        state = state.as_initial() if step == 0 else state
        values = observables.compute(self.observables, state)
        stored = observables.measurement(state, top_k=self.top_k, keep_kernel=keep_kernel)
        kept = every.parameters if keep_parameters and self.needs("update") else {}
        return Reading(
            state=state,
            values={**stored, **values},
            reasons={**values.reasons, **({"stability_ratio": unstable} if unstable else {})},
            rule=rule,
            outputs=outputs,
            parameters={name: p.clone() for name, p in kept.items()},
        )

    def assist(self, module: nn.Module, *, by_layer: bool) -> None:
        """On a rank that follows: compute its share of the kernel that the leader's :meth:`measure` has asked for."""
        self._shared_kernel(module, self._inputs(module), by_layer=by_layer)

    def complete(
        self, module: nn.Module, reading: Reading, rule: UpdateRule, *, anchor: Mapping[str, Tensor] | None = None
    ) -> Reading:
        """Add what needs θ_{t+1}: ``module`` is now in the state after the update that left ``reading``'s state.

        With Δθ = θ_{t+1} − θ_t, Δf = f_{t+1} − f_t on the probe, P the preconditioner of ``rule`` and m the residual:
        the linear change J_tΔθ and the kernel's flow −J_t P J_tᵀ m/N are taken at θ_t, and compared with Δf.

        Args:
            module: the network after the update, in eval mode.
            reading: what :meth:`measure` gave before it.
            rule: the update with the rates it really used.
            anchor: θ_0 by name, for the error of the network linearised at initialisation.
        """
        if not reading.parameters:
            return reading
        network, inputs = self._network(module, every_parameter=True), self._inputs(module)
        before, after = reading.parameters, network.parameters
        update = Update(
            output_change=_numpy(network.outputs(inputs)) - _numpy(reading.outputs),
            linear_change=_numpy(network.jvp(inputs, _way(before, after), parameters=before)),
            kernel_change=self._kernel_flow(network, inputs, reading, rule),
            anchored_outputs=self._anchored(network, inputs, reading, anchor),
        )
        values = observables.compute(self.observables, replace(reading.state, update=update), only={"update"})
        reasons = {name: reason for name, reason in reading.reasons.items() if name not in values}
        return replace(
            reading, values={**reading.values, **values}, reasons={**reasons, **values.reasons}, parameters={}
        )

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

    def _kernel(self, module: nn.Module, inputs: Any, *, by_layer: bool = False) -> Any:
        self.ranks.ask((self.probe.name, by_layer))
        return self._shared_kernel(module, inputs, by_layer=by_layer)

    def _shared_kernel(self, module: nn.Module, inputs: Any, *, by_layer: bool) -> Any:
        return shared_ntk(
            self.ranks, module, inputs, output=self.output, method=self.method, params=self.params,
            forward=self.forward, memory_budget=self.memory_budget, by_layer=by_layer,
        )  # fmt: skip

    def _layer_kernels(self, module: nn.Module, inputs: Any, outputs: Tensor) -> dict[str, Tensor] | None:
        """Each layer's kernel, where an observable asks for layers and all of them fit in memory; they add up to Θ."""
        count, width = outputs.shape
        numbers = count**2 * {"full": width**2, "diagonal": width}.get(self.reduction, 1)
        layers = len(_layers(self._network(module)))
        asked = self.needs("layers") or self.needs("layer_kernels")
        if not asked or callable(self.output) or numbers * layers > LAYER_NUMBERS:
            return None
        kernels: dict[str, Tensor] = self._kernel(module, inputs, by_layer=True)
        return kernels

    def _functions(self, outputs: Tensor, targets: Tensor | None) -> dict[str, Any]:
        """Outputs, targets, residual and loss on the probe; of g(f), which a callable g measures, only the first."""
        if callable(self.output):
            return {"outputs": _numpy(torch.func.vmap(self.output)(outputs).reshape(len(outputs), -1))}
        if targets is None:
            return {"outputs": _numpy(outputs)}
        residual = outputs - targets if self.loss is None else self.loss.residual(outputs, targets)
        loss = {} if self.loss is None else {"probe_loss": float(self.loss.value(outputs, targets))}
        return {"outputs": _numpy(outputs), "targets": _numpy(targets), "residual": _numpy(residual), **loss}

    def _is_whole(self, outputs: Tensor) -> bool:
        """Whether the measured kernel is J Jᵀ over every output and every trainable parameter."""
        one_output = outputs.shape[1] == 1 and not callable(self.output)
        return self.params is None and (self.output == "full" or one_output)

    def _kernel_flow(self, network: Network, inputs: Any, reading: Reading, rule: UpdateRule) -> Array | None:
        targets = self._targets(reading.outputs)
        metric = rule.metric(list(network.parameters))
        if self.loss is None or targets is None or metric is None:
            return None
        residual = self.loss.residual(reading.outputs, targets) / len(self.probe)
        gradient = network.vjp(inputs, residual, parameters=reading.parameters)
        flow = {name: -(metric if isinstance(metric, float) else metric[name]) * g for name, g in gradient.items()}
        return _numpy(network.jvp(inputs, flow, parameters=reading.parameters))

    def _anchored(
        self, network: Network, inputs: Any, reading: Reading, anchor: Mapping[str, Tensor] | None
    ) -> Array | None:
        """f_0 + J_0(θ_t − θ_0): the network linearised at initialisation, moved to the parameters of ``reading``."""
        initial = reading.state.initial
        if anchor is None or initial is None:
            return None
        linear: Array = _numpy(network.jvp(inputs, _way(anchor, reading.parameters), parameters=anchor))
        return initial.outputs + linear

    def _settings(self, network: Network, outputs: Tensor) -> dict[str, Json]:
        count, width = outputs.shape
        kept = width if self.output in ("full", "diagonal") else 1
        modes = count * (int(self.output(outputs[0]).numel()) if callable(self.output) else kept)
        return {
            "output": self.reduction,
            # neural-tangents' default is the mean over outputs; the factor is stored so that nobody has to guess.
            "mean_trace_factor": 1.0 / width if self.output in ("full", "diagonal", "trace") else None,
            "parameters": "all that require grad" if self.params is None else sorted(network.parameters),
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
            "layers": _layers(network),
            "top_k": min(self.top_k, modes),
        }


def _total(layers: Mapping[str, Tensor]) -> Tensor:
    first, *others = layers.values()
    total = first.clone()
    for kernel in others:
        total += kernel
    return total


def _layers(network: Network) -> list[str]:
    """The layers that hold parameters, in the order of the parameter table."""
    return list(dict.fromkeys(layer_of(name) for name in network.parameters))


def _way(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value - start[name] for name, value in end.items()}


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(torch.stack([t.to(torch.float64).square().sum() for t in tensors.values()]).sum().sqrt())


def _trace(kernel: Tensor) -> float:
    """The trace of the kernel matrix that (N, N), (N, N, O) or (N, N, O, O) flattens to."""
    over_samples = torch.diagonal(kernel.to(torch.float64), dim1=0, dim2=1)
    if kernel.ndim == 4:
        over_samples = torch.diagonal(over_samples, dim1=0, dim2=1)
    return float(over_samples.sum())


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float64).numpy()
    return array
