"""Instrument: one measurement of one probe on one network, from the kernel to named numbers. No Lightning here.

The live tracker and the replay of saved checkpoints read the same instrument, so their numbers agree by construction.
A measurement has two halves. :meth:`Instrument.measure` takes the state θ_t before an update; what needs both sides of
that update (the linearisation errors) is added by :meth:`Instrument.complete` once θ_{t+1} is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kerneltrack import observables
from kerneltrack.distributed import Ranks
from kerneltrack.errors import KerneltrackError, ProbeError
from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.comparable import (
    is_another_function,
    kernel_changed,
    of_other_parameters,
    withheld,
    without_layers,
)
from kerneltrack.measurement.eigenpairs import describe, unavailable
from kerneltrack.measurement.hidden_layers import hidden_activations
from kerneltrack.measurement.kernels import Kernels, layers_in, total
from kerneltrack.measurement.out_of_sample import carried_over
from kerneltrack.measurement.parameter_motion import difference, distances, layers_of
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.references import References
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.measurement.stability_ratio import stability_ratio
from kerneltrack.measurement.training_outputs import Flags, training_outputs
from kerneltrack.measurement.update_effects import update_effects
from kerneltrack.memory_budget import refuse_budget
from kerneltrack.ntk import (
    AnchoredNetwork,
    Network,
    NetworkState,
    NTKOperator,
    Plan,
    layer_of,
    parse_output,
    reported_name,
    unwrap,
    validate,
)
from kerneltrack.observables import State
from kerneltrack.snapshot import ProbeRecord
from kerneltrack.spectrum import eigensystem, threads_for
from kerneltrack.training import UpdateRule


@dataclass(frozen=True, kw_only=True)
class Instrument(ProbeSpec):
    """A specification at work: what it says is measured.

    Attributes:
        ranks: the processes that compute the kernel together.
        progress: whether a kernel's computation shows a progress bar, or after how many seconds.
    """

    ranks: Ranks = field(default_factory=Ranks)
    progress: bool | float = False

    def describe(self, module: nn.Module, *, keep_inputs: bool = False, extension_of: str | None = None) -> ProbeRecord:
        """The probe's record with everything that says what the numbers are; checks probe and module on the way.

        Args:
            module: the network.
            keep_inputs: whether the record has the probe's inputs.
            extension_of: the probe whose eigenvectors are carried over to this one, if there is one.

        Raises:
            ProbeError: targets that do not fit the outputs, or a loss without targets.
            KernelError: a module whose kernel cannot be computed exactly.
            ObservableError: targets that the chosen reduction cannot see.
        """
        network = Network(module, params=self.params, forward=self.forward)  # refuses names that are unknown or frozen
        inputs = self._inputs(module)
        try:
            validate(network, inputs, name=f"probe {self.probe.name!r}")
            outputs = network.outputs(inputs)
        except KerneltrackError:
            raise
        except Exception as error:  # whatever a user's model says of inputs that it cannot take
            raise ProbeError(
                f"probe {self.probe.name!r} cannot be put through the network",
                expected="inputs that forward= (by default the module's own call) takes",
                got=f"{type(error).__name__}: {error}",
                remedy="Give a probe with the module's inputs, split= for other batches, or forward=.",
            ) from error
        targets = self._targets(outputs)
        observables.check_targets(None if targets is None else to_float64(targets), self.reduction)
        if self.loss is not None and targets is None:
            raise ProbeError(
                f"probe {self.probe.name!r} has no targets, which loss={self.loss.name!r} needs",
                remedy="Give the probe targets, or the tracker loss=None.",
            )
        if self.loss is not None and targets is not None:
            self.loss.verify(outputs, targets)
        plan = self.plan(module)  # refuses a callable output= and a method= that do not apply
        if self.eigenpairs == "all" and plan.result_bytes > plan.budget_bytes:
            raise refuse_budget(plan.budget_bytes, plan.result_bytes, otherwise='or eigenpairs="leading"')
        record = self.probe.record(outputs.shape[1], keep_inputs=keep_inputs)
        return replace(record, settings={**self.settings(network, outputs), "extension_of": extension_of})

    def plan(self, module: nn.Module) -> Plan:
        """How the kernel of this probe will be computed, and what it costs."""
        return self._kernels.plan(module, self._inputs(module))

    def measure(
        self,
        module: nn.Module,
        rule: UpdateRule,
        *,
        step: int,
        references: References | None = None,
        source: tuple[Instrument, Reading] | None = None,
        flags: Flags | None = None,
        keep_kernel: bool = False,
        keep_parameters: bool = True,
    ) -> Reading:
        """Measure the state that ``module`` is in; call it inside :func:`kerneltrack.undisturbed.undisturbed`.

        Args:
            module: the network, in eval mode.
            rule: the update that is about to happen.
            step: t; the state at step 0 is its own initial state.
            references: the earlier states to compare with; None: none is known.
            source: another probe, whose eigenvectors and targets are carried over to this one, and its reading now.
            flags: the ``training`` flags that the submodules have in training.
            keep_kernel: put the kernel itself among the values.
            keep_parameters: keep θ_t for :meth:`complete`.
        """
        references = references or References()
        anchor, initial, previous = references.start, references.initial, references.previous
        inputs, every = self._inputs(module), self._network(module, every_parameter=True)
        outputs = every.outputs(inputs)
        targets = self._targets(outputs)
        layers = layers_of(every) if references.layers is None else list(references.layers)
        missing = without_layers(layers_of(every), layers)
        changed = [missing["layers"]] if missing else []
        rows = self.rows(outputs)
        operator = self._operator(module, inputs, outputs) if self.eigenpairs == "leading" else None
        kernel, parts = self._kernel(module, inputs, outputs, missing) if operator is None else (None, None)
        with threads_for(rows):
            pairs = eigensystem(
                kernel if operator is None else operator,
                None if self.eigenpairs == "all" else self.pairs_of(rows),
                previous=None if previous is None else previous.eigensystem,
            )
        missing |= unavailable(pairs, formed=kernel is not None)
        stability, whole = None, kernel is not None and self.is_whole(outputs)
        if self.needs("operator"):
            stability, missing["operator"] = stability_ratio(
                every,
                inputs,
                outputs,
                targets,
                self.loss,
                rule,
                kernel=kernel if whole else None,
                top_eigenvalue=float(pairs.values[0]) if whole else None,
            )
        settings = {
            **self.facts(every, outputs, previous, step),
            "layers": layers,
            "parameters": list(self._network(module).parameters),
        }
        state = State(
            eigensystem=pairs,
            kernel=None if kernel is None else to_float64(kernel),
            reduction=self.reduction,
            learning_rates=rule.learning_rates,
            stability=stability,
            initial=initial,
            previous=previous,
            settings=settings,
            **layers_in(None if "layers" in missing else parts, layers, whole=self.needs("layer_kernels")),
            **self._functions(outputs, targets),
            **self._hidden(every, inputs, missing),
            **self._since(module, inputs, kernel, every, anchor, initial if step else None, missing, settings),
            **self._in_training(module, inputs, outputs, flags, missing, step=step),
            **self._by_optimizer(module, inputs, kernel, rule, missing),
            **(self._from_source(module, inputs, outputs, source, missing) if kernel is not None else {}),
        )
        state = state.as_initial() if step == 0 else state
        with threads_for(rows):
            values = observables.compute(self.observables, state)
            stored = observables.measurement(state, top_k=self.top_k, keep_kernel=keep_kernel)
        if callable(self.output):
            stored["outputs"] = to_float64(outputs)  # the archive's are the network's own, whatever g makes of them
        others = of_other_parameters(self.observables, state)
        changed = [missing.get("anchored", "") if anchor else "", *changed, *others.values()]
        remarks = (self._kernels.remark(), describe(pairs, formed=kernel is not None), *dict.fromkeys(changed))
        return Reading(
            state=state,
            values=withheld({**stored, **values}, others),
            reasons={**self._explained(values.reasons, missing), **others},
            rule=rule,
            outputs=outputs,
            before=NetworkState.of(module) if keep_parameters and self.needs("update") else None,
            remarks=tuple(filter(None, remarks)),
        )

    def assist(self, module: nn.Module, by_layer: bool, budget: int | str | None) -> None:
        """On a rank that follows: compute its share of the kernel that the leader's :meth:`measure` has asked for."""
        self._kernels.share(module, self._inputs(module), by_layer, budget)

    def complete(self, module: nn.Module, reading: Reading, rule: UpdateRule) -> Reading:
        """Add what needs θ_{t+1}: ``module`` is now in the state after the update that left ``reading``'s state.

        Args:
            module: the network after the update, in eval mode.
            reading: what :meth:`measure` gave before it.
            rule: the update with the rates and the preconditioner that it really used.
        """
        if reading.before is None:
            return reading
        if gone := reading.before.incomparable(module, ()):
            return replace(reading, reasons=self._explained(reading.reasons, {"update": gone}), before=None)
        layers = reading.state.settings["layers"]
        missing = without_layers(map(layer_of, reading.before.parameters), layers)
        targets, residual = self._targets(reading.outputs), None
        if self.loss is not None and targets is not None and not callable(self.output):
            residual = self.loss.residual(reading.outputs, targets)
        update = update_effects(
            self._network(module, every_parameter=True, anchor=reading.before, headed=True),
            self._network(module, every_parameter=True, headed=True),
            reading.before.now(module),
            self._inputs(module),
            outputs=reading.state.outputs,
            residual=residual,
            rule=rule,
            layers=layers if self.needs("layer_changes") and not missing else None,
        )
        values = observables.compute(self.observables, replace(reading.state, update=update), only={"update"})
        reasons = {name: reason for name, reason in reading.reasons.items() if name not in values}
        return replace(
            reading,
            values={**reading.values, **values},
            reasons={**reasons, **self._explained(values.reasons, missing)},
            before=None,
        )

    def _explained(self, reasons: Mapping[str, str], missing: Mapping[str, str]) -> dict[str, str]:
        """Reasons in which "not measured" is followed by why, where that is known."""
        found = dict(reasons)
        for entry in self.observables:
            why = next((missing[need] for need in sorted(entry.needs) if missing.get(need)), "")
            if why and found.get(entry.name, "").startswith("not measured"):
                found[entry.name] = why
        return found

    @cached_property
    def _selection(self) -> Callable[[str], bool] | None:
        """The chosen parameters, as far as they train now: a name that was checked at the start may freeze later."""
        if self.params is None or callable(self.params):
            return self.params
        return frozenset([self.params] if isinstance(self.params, str) else self.params).__contains__

    def trains(self, module: nn.Module) -> bool:
        """Whether any parameter that the kernel is of trains now."""
        inner = unwrap(module)
        found = (reported_name(inner, n) for n, p in inner.named_parameters(remove_duplicate=False) if p.requires_grad)
        return any(self._selection is None or self._selection(name) for name in found)

    def _network(
        self,
        module: nn.Module,
        *,
        every_parameter: bool = False,
        anchor: NetworkState | None = None,
        headed: bool = False,
    ) -> Network:
        params = None if every_parameter else self._selection
        head = parse_output(self.output).head if headed and callable(self.output) else None
        if anchor is not None:
            return AnchoredNetwork(module, anchor, params=params, forward=self.forward, head=head)
        return Network(module, params=params, forward=self.forward, head=head)

    def _inputs(self, module: nn.Module) -> Any:
        """The probe's inputs where the module's parameters are, floating ones in the parameters' dtype."""
        like = next(p for p in module.parameters() if p.is_floating_point())
        return pytree.tree_map(
            lambda x: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype), self.probe.inputs
        )

    def _targets(self, outputs: Tensor) -> Tensor | None:
        targets = self.probe.aligned_targets(outputs.shape[1])
        return None if targets is None else torch.from_numpy(targets).to(outputs)

    @cached_property
    def _kernels(self) -> Kernels:
        return Kernels(
            probe=self.probe.name,
            output=self.output,
            method=self.method,
            forward=self.forward,
            params=self._selection,
            memory_budget=self.memory_budget,
            ranks=self.ranks,
            progress=self.progress,
        )

    def _operator(self, module: nn.Module, inputs: Any, outputs: Tensor) -> NTKOperator | None:
        """Θ by products, where that is cheaper than its matrix or the only way; else None."""
        rows, needs = self.rows(outputs), observables.needs(self.observables)
        return self._kernels.operator(module, inputs, outputs, needs, pairs=self.pairs_of(rows), rows=rows)

    def _kernel(
        self, module: nn.Module, inputs: Any, outputs: Tensor, missing: dict[str, str]
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The kernel, and each layer's where an observable asks for layers."""
        if self.needs("layers") or self.needs("layer_kernels"):
            why = self._kernels.without_layers(outputs, len(layers_of(self._network(module))))
            if not why:
                parts = self._kernels.measured(module, inputs, by_layer=True)
                return total(parts), parts
            missing |= dict.fromkeys(("layers", "layer_kernels"), why)
        return self._kernels.measured(module, inputs), None

    def _hidden(self, network: Network, inputs: Any, missing: dict[str, str]) -> dict[str, Any]:
        """Activations and the conjugate kernel."""
        if not (self.needs("activations") or self.needs("conjugate")):
            return {}
        found = hidden_activations(network, inputs)
        missing["conjugate"] = "" if found.features is not None else "the network does not end in a linear layer"
        features = None if found.features is None else to_float64(found.features)
        activations = {layer: to_float64(rows) for layer, rows in found.activations.items()}
        return {
            "activations": activations if self.needs("activations") else None,
            "conjugate": features @ features.T if features is not None and self.needs("conjugate") else None,
        }

    def _since(
        self,
        module: nn.Module,
        inputs: Any,
        kernel: Tensor | None,
        network: Network,
        anchor: NetworkState | None,
        initial: State | None,
        missing: dict[str, str],
        settings: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What relates the state to initialisation: distances, J_t J_0ᵀ, and the network linearised there."""
        unknown = anchor.incomparable(module, network.parameters) if anchor else "the initial parameters are unknown"
        if anchor is None or unknown:
            missing |= dict.fromkeys(("parameters", "anchored", "cross_time"), unknown)
            return {}
        found: dict[str, Any] = {}
        now = anchor.now(module)
        if self.needs("parameters"):
            by_layer = distances(anchor.parameters, now)
            whole = sum(distance**2 for distance in by_layer.values()) ** 0.5
            found["parameter_distance"] = whole
            found["layer_distances"] = {layer: by_layer.get(layer, 0.0) for layer in settings["layers"]}
        if self.needs("cross_time") and kernel is not None:
            changed = kernel_changed(settings, initial, "at step 0")
            missing |= {"cross_time": changed} if changed else {}
            if not changed:
                at_start = settings["step"] == 0
                found["cross_time"] = to_float64(
                    kernel if at_start else self._kernels.cross_time(module, inputs, anchor)
                )
        if self.needs("anchored"):
            start = self._network(module, every_parameter=True, anchor=anchor, headed=True)
            outputs = to_float64(start.outputs(inputs))
            if initial is not None and is_another_function(outputs, initial.outputs, settings["dtype"]):
                missing["anchored"] = "something else than the trained parameters has moved since step 0"
                return found
            linear = to_float64(start.jvp(inputs, difference(anchor.parameters, now)))
            found["anchored_outputs"] = linear + (outputs if initial is None else initial.outputs)
        return found

    def _in_training(
        self,
        module: nn.Module,
        inputs: Any,
        outputs: Tensor,
        flags: Flags | None,
        missing: dict[str, str],
        *,
        step: int,
    ) -> dict[str, Any]:
        """The outputs with the flags of training."""
        if not self.needs("training_outputs") or callable(self.output):
            return {}
        if flags is None:
            missing["training_outputs"] = "the flags of training are unknown"
            return {}
        if not any(flags.values()):
            return {"training_outputs": to_float64(outputs)}
        found, missing["training_outputs"] = training_outputs(module, inputs, flags, forward=self.forward, seed=step)
        return {} if found is None else {"training_outputs": to_float64(found)}

    def _by_optimizer(
        self, module: nn.Module, inputs: Any, kernel: Tensor | None, rule: UpdateRule, missing: dict[str, str]
    ) -> dict[str, Any]:
        """J P_t Jᵀ; where P is one number it is that times the kernel."""
        if not self.needs("optimizer_kernel") or kernel is None:
            return {}
        metric = rule.metric(list(self._network(module).parameters))
        if metric is None:
            missing["optimizer_kernel"] = rule.unknown or "there is no optimizer"
            return {}
        if isinstance(metric, float):
            return {"optimizer_kernel": metric * to_float64(kernel)}
        moved = {name: entry for name, entry in metric.items() if isinstance(entry, Tensor) or entry > 0}
        if not moved:
            return {"optimizer_kernel": 0 * to_float64(kernel)}
        return {"optimizer_kernel": to_float64(self._kernels.own(module, inputs, params=tuple(moved), metric=moved))}

    def _from_source(
        self,
        module: nn.Module,
        inputs: Any,
        outputs: Tensor,
        source: tuple[Instrument, Reading] | None,
        missing: dict[str, str],
    ) -> dict[str, Any]:
        """What another probe says about this one: its eigenvectors carried over, and regression on its targets."""
        if not (self.needs("extension") or self.needs("regression")):
            return {}
        if source is None:
            missing |= dict.fromkeys(("extension", "regression"), "there is no other probe to carry over from")
            return {}
        other, reading = source
        cross = self._kernels.own(module, inputs, other._inputs(module))
        return carried_over(to_float64(cross), to_float64(outputs), reading.state, self.top_k, missing)

    def _functions(self, outputs: Tensor, targets: Tensor | None) -> dict[str, Any]:
        """Outputs, targets, residual and loss on the probe; with a callable g, only g(f)."""
        if callable(self.output):
            return {"outputs": to_float64(torch.func.vmap(self.output)(outputs).reshape(len(outputs), -1))}
        if targets is None:
            return {"outputs": to_float64(outputs)}
        residual = outputs - targets if self.loss is None else self.loss.residual(outputs, targets)
        loss = {} if self.loss is None else {"probe_loss": float(self.loss.value(outputs, targets))}
        return {
            "outputs": to_float64(outputs),
            "targets": to_float64(targets),
            "residual": to_float64(residual),
            **loss,
        }
