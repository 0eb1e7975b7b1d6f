"""Instrument: one measurement of one probe on one network, from the kernel to named numbers. No Lightning here.

The live tracker and the replay of checkpoints read the same instrument, so their numbers agree by construction. Of an update
:meth:`Instrument.measure` takes the state before it, and :meth:`Instrument.complete` adds what needs both (linearisation errors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack import observables
from kerneltrack.distributed import Ranks
from kerneltrack.errors import ProbeError
from kerneltrack.linear_algebra import is_numpy
from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.comparable import of_other_parameters, withheld
from kerneltrack.measurement.context import Context
from kerneltrack.measurement.eigenpairs import describe
from kerneltrack.measurement.kept_jacobian import KeptJacobian, lasting
from kerneltrack.measurement.kernels import Kernels, ShareRequest, total
from kerneltrack.measurement.layers import Layers
from kerneltrack.measurement.parameter_motion import layers_of
from kerneltrack.measurement.pieces import Pieces, Stopwatch
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.references import References
from kerneltrack.measurement.refusals import probe_at_fault, verify_gauge
from kerneltrack.measurement.residence import stays
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.measurement.supplies import supply
from kerneltrack.measurement.trained_on import UNKNOWN, TrainedOn
from kerneltrack.measurement.training_outputs import Flags
from kerneltrack.measurement.update_curvature import bent
from kerneltrack.measurement.update_effects import finest, update_effects
from kerneltrack.memory_budget import refuse_budget
from kerneltrack.ntk import Network, NetworkState, NTKOperator, Plan, selected, unwrap, validate
from kerneltrack.snapshot import ProbeRecord
from kerneltrack.spectrum import Place, solved, threads_for, unsolved
from kerneltrack.training import UpdateRule


@dataclass(frozen=True, kw_only=True)
class Instrument(ProbeSpec):
    """A specification at work: what it says is measured.

    Attributes:
        ranks: the processes that compute the kernel together.
        progress: whether a kernel's computation shows a progress bar, or after how many seconds.
        place: where kernels and eigenvectors stay: "auto" on a CUDA device with memory for it, "kept" where computed, or "host".
    """

    ranks: Ranks = field(default_factory=Ranks)
    progress: bool | float = False
    place: Place = "auto"

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
        network = self._checked(module)
        inputs = self.inputs(module)
        with probe_at_fault(self.probe.name):
            outputs = network.outputs(inputs)  # first: what a plain pass raises is the probe's or the module's fault
            validate(network, inputs, name=f"probe {self.probe.name!r}")
        targets = self.targets(outputs)
        observables.check_targets(None if targets is None else to_float64(targets), self.reduction)
        if self.loss is not None and targets is None:
            raise ProbeError(
                f"probe {self.probe.name!r} has no targets, which loss={self.loss.name!r} needs",
                remedy="Give the probe targets, or the tracker loss=None.",
            )
        if self.loss is not None and targets is not None:
            self.loss.verify(outputs, targets)
            verify_gauge(self.gauge, self.loss, outputs, targets)
        plan = self.plan(module)  # refuses a callable output= and a method= that do not apply
        if self.eigenpairs == "all" and plan.result_bytes > plan.budget_bytes:
            raise refuse_budget(plan.budget_bytes, plan.result_bytes, otherwise='or eigenpairs="leading"')
        record = self.probe.record(outputs.shape[1], keep_inputs=keep_inputs)
        settings = {**self.settings(network, outputs), "extension_of": extension_of}
        return replace(record, settings=settings, in_training=self.seen)

    def width(self, module: nn.Module) -> int:
        """O, from a pass of the first points; errors as of :meth:`describe`."""
        network = self._checked(module)
        with probe_at_fault(self.probe.name):
            return int(network.outputs(network.inputs(self.inputs(module)).rows(0, 2)).shape[1])

    def _checked(self, module: nn.Module) -> Network:
        """The network, where every name in ``params`` is known; a parameter that is frozen now may thaw."""
        selected(unwrap(module), self.params)
        return self.network(module)

    def ignores_shift(self, module: nn.Module) -> bool:
        """Whether a user's own loss ignores, on this probe, one function added to all outputs."""
        if self.loss is None or self.loss.mean is None:
            return False
        outputs = self.network(module).outputs(self.inputs(module))
        targets = self.targets(outputs)
        return targets is not None and self.loss.ignores_shift(outputs, targets)

    def plan(self, module: nn.Module) -> Plan:
        """How the kernel of this probe will be computed, and what it costs."""
        return self._kernels.plan(module, self.inputs(module))

    def measure(
        self,
        module: nn.Module,
        rule: UpdateRule,
        *,
        step: int,
        references: References | None = None,
        source: tuple[ProbeSpec, Reading] | None = None,
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
        watch = Stopwatch()
        context = self._solved(self._context(module, rule, step, references, source, flags), watch)
        measured, missing = supply(context, self.wanted)
        state, outputs, remarks = context.state(measured), context.outputs, self._remarks(context, missing)
        functions, keeps = self._own_functions(context), keep_parameters and self.needs("update")
        jacobian = lasting(context.jacobian, module) if keeps else None
        del context, measured  # no kernel on the device is held beside what observables need
        state = state.as_initial() if step == 0 else state
        with threads_for(state.eigensystem.size), watch.of("observables"), state.sharing():
            values = observables.compute(self.observables, state)
            stored = observables.measurement(state, top_k=self.top_k, keep_kernel=keep_kernel)
        stored |= {name: value for name, value in functions.items() if name in stored}
        others = of_other_parameters(self.observables, state)
        return Reading(
            state=state,
            values=withheld({**stored, **values}, others),
            reasons={**self._explained(values.reasons, missing), **others},
            rule=rule,
            outputs=outputs,
            before=NetworkState.of(module) if keeps else None,
            jacobian=jacobian,
            pieces=Pieces.of(watch, state, top_k=self.top_k),
            remarks=tuple(filter(None, dict.fromkeys((*remarks, *others.values())))),
        )

    def glance(
        self,
        module: nn.Module,
        rule: UpdateRule,
        *,
        step: int,
        references: References | None = None,
        with_kernel: bool = True,
        keep_kernel: bool = False,
    ) -> Reading:
        """Measure a light state: one forward pass, the kernel, and the observables that follow from both without eigenpairs.

        Args:
            module: the network, in eval mode.
            rule: the update that is about to happen.
            step: t.
            references: the earlier states to compare with.
            with_kernel: whether the kernel is computed; where eigenpairs come from products it is not.
            keep_kernel: put it among the values.
        """
        context = self._context(module, rule, step, references)
        previous = context.references.previous
        formed = self.eigenpairs == "all" or (previous is not None and previous.kernel is not None)
        kernel = self._kernels.measured(module, context.inputs) if with_kernel and formed else None
        rows = self.rows(context.outputs)
        resident = stays(kernel, rows=rows, wanted=self.wanted, place=self.place)
        spectrum = unsolved(kernel, rows, "kept" if resident else "host")
        context = replace(context, kernel=kernel, spectrum=spectrum, resident=resident)
        extent = "outputs" if kernel is None else "kernel"
        chosen = tuple(entry for entry in self.observables if observables.is_light(entry.needs, extent))
        measured, missing = supply(context, observables.in_order(observables.needs(chosen)))
        state = context.state(measured)
        values, others = observables.compute(chosen, state), of_other_parameters(chosen, state)
        stored = observables.measurement(state, top_k=0, keep_kernel=keep_kernel)
        stored |= {name: value for name, value in self._own_functions(context).items() if name in stored}
        light = "light: outputs" if kernel is None else "light: kernel and outputs"
        return Reading(
            state=state,
            values=withheld({**stored, **values}, others),
            reasons={**self._explained(values.reasons, missing), **others},
            rule=rule,
            outputs=context.outputs,
            remarks=tuple(filter(None, (light, self._kernels.remark(), context.new_layers, *others.values()))),
            whole=False,
        )

    def _context(
        self,
        module: nn.Module,
        rule: UpdateRule,
        step: int,
        references: References | None,
        source: tuple[ProbeSpec, Reading] | None = None,
        flags: Flags | None = None,
    ) -> Context:
        """All that was given, and the outputs; no kernel and no eigenpair yet."""
        inputs, network = self.inputs(module), self.network(module, every_parameter=True)
        outputs = network.outputs(inputs)
        return Context(
            spec=self,
            kernels=self._kernels,
            module=module,
            network=network,
            inputs=inputs,
            outputs=outputs,
            spectrum=unsolved(None, self.rows(outputs)),
            rule=rule,
            step=step,
            references=references or References(),
            source=source,
            flags=flags,
        )

    def _solved(self, context: Context, watch: Stopwatch) -> Context:
        """The same with the kernel, where it is formed, and the eigenpairs."""
        module, inputs, outputs, references = context.module, context.inputs, context.outputs, context.references
        rows, previous = self.rows(outputs), references.previous
        operator = self._operator(module, inputs, outputs) if self.eigenpairs == "leading" else None
        with watch.of("kernel"):
            found = self._kernel(module, inputs, outputs, references.layers) if operator is None else {}
        kernel, parts = found.get("kernel"), found.get("parts") or ()
        here = stays(kernel, rows=rows, wanted=self.wanted, layers=len(parts), place=self.place)
        pairs = None if self.eigenpairs == "all" else self.pairs_of(rows)
        earlier = None if previous is None else previous.eigensystem
        with threads_for(rows), watch.of("eigensystem"):
            spectrum = solved(operator or kernel, pairs, previous=earlier, place=self.place)
        spectrum = spectrum if here else spectrum.on_host()
        found |= {"operator": operator, "spectrum": spectrum}
        resident = here and not is_numpy(spectrum.vectors)  # one that went to the CPU takes the others along
        return replace(context, **found, resident=resident, references=references.placed(spectrum.vectors))

    def _own_functions(self, context: Context) -> dict[str, Any]:
        """The archive's outputs and residual: the network's own, whatever a callable or a gauge makes of them."""
        found = {"outputs": to_float64(context.outputs)}
        if context.residual is not None:
            found["residual"] = to_float64(context.residual)
        return found

    def _remarks(self, context: Context, missing: Mapping[str, str]) -> tuple[str, ...]:
        """How the kernel was measured, and what has changed since the references."""
        return (
            self._kernels.remark(),
            describe(context.spectrum, formed=context.kernel is not None),
            missing.get("anchored", context.lost_start) if context.references.start else "",
            context.new_layers,
        )

    def assist(self, module: nn.Module, request: ShareRequest) -> None:
        """On a rank that follows: compute its share of the kernel that the leader's :meth:`measure` has asked for."""
        self._kernels.serve(request, module, self.inputs(module))

    def complete(
        self, module: nn.Module, reading: Reading, rule: UpdateRule, trained_on: TrainedOn = UNKNOWN
    ) -> Reading:
        """Add what needs θ_{t+1}: ``module`` is now in the state after the update that left ``reading``'s state.

        Args:
            module: the network after the update, in eval mode.
            reading: what :meth:`measure` gave before it.
            rule: the update with the rates and the preconditioner that it really used.
            trained_on: what it was made from.
        """
        if reading.before is None:
            return reading
        if gone := reading.before.incomparable(module, ()):
            return reading.completed(reasons=self._explained(reading.reasons, {"update": gone}))
        layers = Layers.of(module, self.selection, reading.state.settings["layers"])
        why = layers.new(layers_of(reading.before.parameters))
        missing = {need.name: why for need in self.wanted if need.by_layer}
        split = layers if self.needs("layer_changes") and not why else None
        effects = partial(self._effects, module, reading, rule, split)
        update, dtype = effects(None), reading.state.settings["computed_in"]
        if observables.decided_by_rounding(update, reading.state.outputs, dtype):
            fine = self.network(module, every_parameter=True, headed=True, dtype=torch.float64)
            update = finest(update, fine, self.inputs(module), effects)
        update, unbent = bent(self, module, reading, update, trained_on)
        values = observables.compute(self.observables, replace(reading.state, update=update), only={"update"})
        reasons = {name: reason for name, reason in reading.reasons.items() if name not in values}
        return reading.completed(
            values={**reading.values, **values},
            reasons={**reasons, **self._explained(values.reasons, missing | unbent)},
        )

    def _effects(
        self, module: nn.Module, reading: Reading, rule: UpdateRule, layers: Layers | None, dtype: torch.dtype | None
    ) -> observables.Update:
        """What the update that left the reading's state did, evaluated in ``dtype``, or as the network is."""
        assert reading.before is not None  # complete() has looked
        inputs, outputs = self.inputs(module), reading.outputs
        if dtype is not None:
            outputs = self.network(module, every_parameter=True, anchor=reading.before, dtype=dtype).outputs(inputs)
        targets, residual = self.targets(outputs), None
        if self.loss is not None and targets is not None and not callable(self.output):
            residual = self.residual(outputs, targets)
        return update_effects(
            self.network(module, every_parameter=True, anchor=reading.before, headed=True, dtype=dtype),
            self.network(module, every_parameter=True, headed=True, dtype=dtype),
            reading.before.now(module),
            inputs,
            outputs=reading.state.outputs if dtype is None else None,
            residual=residual,
            rule=rule,
            updates=reading.state.settings["step"] + 1,
            layers=layers,
            read=self.read,
            kept=KeptJacobian.of(reading, whole=self.is_whole(reading.outputs)) if dtype is None else None,
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
    def _kernels(self) -> Kernels:
        return Kernels(
            probe=self.probe.name,
            output=self.output,
            gauge=self.gauge,
            method=self.method,
            forward=self.forward,
            params=self.selection,
            memory_budget=self.memory_budget,
            ranks=self.ranks,
            progress=self.progress,
        )

    def _held(self, module: nn.Module, known: Sequence[str] | None) -> int:
        """How many kernels are held side by side: of the layers that train; of all where they are stored one by one."""
        if any({"layer", "sample_2"} <= set(entry.dims) for entry in self.observables):
            return len(Layers.of(module, self.selection, known).names)
        return len(layers_of(self.network(module).parameters))

    def _operator(self, module: nn.Module, inputs: Any, outputs: Tensor) -> NTKOperator | None:
        """Θ by products, where that is cheaper than its matrix or the only way; else None."""
        rows, needs = self.rows(outputs), observables.needs(self.observables)
        return self._kernels.operator(module, inputs, outputs, needs, pairs=self.pairs_of(rows), rows=rows)

    def _kernel(self, module: nn.Module, inputs: Any, outputs: Tensor, known: Sequence[str] | None) -> dict[str, Any]:
        """The context's kernel; each layer's, or its trace, where an observable asks for it, or why there is none; J."""
        keeps = self.keeps(outputs)
        if not (self.needs("layers") or self.needs("layer_kernels")):
            kernel, jacobian = self._kernels.with_jacobian(module, inputs, keeps=keeps, by_layer=False)
            return {"kernel": kernel, "jacobian": jacobian}
        if why := self._kernels.without_layers(outputs, self._held(module, known)):
            kernel, jacobian = self._kernels.with_jacobian(module, inputs, keeps=keeps, by_layer=False)
            return {"kernel": kernel, "without_parts": why, "jacobian": jacobian}
        if self.needs("layer_kernels"):
            parts, jacobian = self._kernels.with_jacobian(module, inputs, keeps=keeps, by_layer=True)
            return {"kernel": total(parts), "parts": parts, "jacobian": jacobian}
        kernel, traces, jacobian = self._kernels.with_traces(module, inputs, keeps=keeps)
        return {"kernel": kernel, "traces": traces, "jacobian": jacobian}
