"""The probes of a run: which instrument measures which of them, how much of a state, and against which earlier states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.kernels import ShareRequest
from kerneltrack.measurement.moment import Moment
from kerneltrack.measurement.pieces import Pieces
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.references import RunReferences
from kerneltrack.measurement.trained_on import TrainedOn
from kerneltrack.measurement.training_outputs import Flags
from kerneltrack.ntk import Plan
from kerneltrack.schedule import Due
from kerneltrack.training import UpdateRule

KeepKernel = Literal["ends", "all", "none"]


class RunProbes:
    """Instruments by probe, and what a run remembers of earlier states for their comparisons.

    Args:
        instruments: by probe name.
        keep_kernel: which snapshots store the kernel itself: the first and the last, all, or none.
    """

    def __init__(self, instruments: Mapping[str, Instrument], keep_kernel: KeepKernel) -> None:
        self._instruments, self._keep_kernel = dict(instruments), keep_kernel
        self._references = RunReferences(self._instruments.values())

    def plans(self, module: nn.Module, names: Iterable[str]) -> list[Plan]:
        """How the kernels of these probes are computed."""
        return [self._instruments[name].plan(module) for name in names]

    def pieces(self, readings: Mapping[str, Reading]) -> dict[str, Pieces]:
        """What each whole state took."""
        return {name: reading.pieces for name, reading in readings.items() if reading.pieces is not None}

    def trace_share(self, module: nn.Module, name: str) -> float | None:
        """Operations of ``output="trace"`` over those of the kernel that is measured; None where it is one already."""
        instrument = self._instruments[name]
        if instrument.output not in ("full", "diagonal"):
            return None
        return replace(instrument, output="trace").plan(module).flops / max(instrument.plan(module).flops, 1)

    def assist(self, module: nn.Module, request: ShareRequest) -> None:
        """Serve the leader's request, on a rank that follows."""
        self._instruments[request.probe].assist(module, request)

    def state_dict(self) -> dict[str, Any]:
        """θ_0, the first and the last measured state, where an observable needs them: plain values and tensors."""
        return self._references.state_dict()

    def load_state_dict(self, memory: Mapping[str, Any], device: torch.device, *, measures: bool) -> None:
        """Go on where :meth:`state_dict` was taken; θ_0 goes to ``device``.

        Args:
            memory: what was kept.
            device: where the network is.
            measures: whether this rank measures.
        """
        self._references.load_state_dict(memory, device, measures=measures)

    def complete(
        self,
        module: nn.Module,
        readings: Mapping[str, Reading],
        rule: UpdateRule | None,
        rates: Sequence[float],
        trained_on: TrainedOn,
    ) -> dict[str, Reading]:
        """The readings of θ_t with what needs θ_{t+1}, which ``module`` is in now.

        Args:
            module: the network after the update.
            readings: by probe, of :meth:`measure`.
            rule: the preconditioner that the update used; None: that of before.
            rates: the learning rates that it used.
            trained_on: what it was made from.
        """
        return {
            name: self._instruments[name].complete(
                module, reading, (rule or reading.rule).with_rates(rates), trained_on
            )
            for name, reading in readings.items()
        }

    def measure(
        self,
        into: dict[str, Reading],
        module: nn.Module,
        moment: Moment,
        rule: UpdateRule,
        due: Mapping[str, Due],
        flags: Flags,
        *,
        last: bool,
    ) -> list[str]:
        """Measure every probe in ``due`` into ``into``; what one probe gave stays there where the next one fails.

        Returns the probes whose kernel there is none of, because nothing that it is of trains now.
        """
        if moment.step == 0:
            self._references.begin(module)
        trains = {name: self._instruments[name].trains(module) for name in due}
        for name in (name for name in due if trains[name]):
            if due[name].extent == "whole":
                into[name] = self._measure(name, module, moment, rule, into, flags, last=last)
            else:
                into[name] = self._glance(name, module, moment, rule, kernel=due[name].extent == "kernel")
        self._references.pass_by(module, moment.step, begins=any(one.window > 2 for one in due.values()))
        return [name for name in due if not trains[name]]

    def _measure(
        self,
        name: str,
        module: nn.Module,
        moment: Moment,
        rule: UpdateRule,
        others: Mapping[str, Reading],
        flags: Flags,
        *,
        last: bool,
    ) -> Reading:
        ends = last or moment.step == 0
        reading = self._instruments[name].measure(
            module,
            rule,
            step=moment.step,
            references=self._references.of(name, moment.step),
            flags=flags,
            source=self._source(name, module, moment, rule, others),
            keep_kernel=self._keep_kernel == "all" or (self._keep_kernel == "ends" and ends),
            keep_parameters=not last,
        )
        self._references.keep(name, moment.step, reading.state)
        return reading

    def _glance(self, name: str, module: nn.Module, moment: Moment, rule: UpdateRule, *, kernel: bool) -> Reading:
        """A light state of a group."""
        reading = self._instruments[name].glance(
            module,
            rule,
            step=moment.step,
            references=self._references.of(name, moment.step),
            with_kernel=kernel,
            keep_kernel=self._keep_kernel == "all",
        )
        self._references.keep(name, moment.step, reading.state, light=True)
        return reading

    def _source(
        self, name: str, module: nn.Module, moment: Moment, rule: UpdateRule, others: Mapping[str, Reading]
    ) -> tuple[Instrument, Reading] | None:
        """The first probe and its reading now, which the others are carried over from; measured if it was not due."""
        first = next(iter(self._instruments))
        instrument = self._instruments[first]
        if name == first or not any(need.from_source for need in instrument.wanted):
            return None
        bare = replace(instrument, observables=(), loss=None)
        known = others.get(first)
        if known is None or not known.whole:
            known = bare.measure(module, rule, step=moment.step, keep_parameters=False)
        return instrument, known
