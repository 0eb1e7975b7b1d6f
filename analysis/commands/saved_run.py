"""A run that was saved: its checkpoints, how they are measured, and their rows, one state after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.measurement import Instrument, Moment, Pace, Recorder
from kerneltrack.schedule import Due, Every
from kerneltrack.snapshot import Snapshot
from kerneltrack.training import UpdateRule

from . import checkpoints
from .checkpoints import Checkpoint, Weights
from .measuring_options import MeasuringOptions
from .model import builder
from .other_checkpoints import rates_of
from .rebuild import module_from, optimizers_of

#: Why a rate without its optimizer says nothing of stability.
_NO_OPTIMIZER = "the checkpoint has rates, and no module says of which optimizer"
#: The first state is what later ones are compared with, and the gap to the second the lag at which a motion is told.
_BEGINNING = 2


@dataclass(frozen=True)
class Share:
    """Rows of consecutive checkpoints.

    Attributes:
        rows: in the order of steps.
        memory: what the states after them are compared with, of :meth:`kerneltrack.measurement.Recorder.state_dict`.
    """

    rows: list[Snapshot]
    memory: dict[str, Any]


@dataclass(frozen=True)
class SavedRun:
    """A run as its checkpoints tell it.

    It goes to another process as the values below, and is made again of them there: a module's class and what an observable
    computes are looked up by their names, never sent.

    Attributes:
        found: the checkpoints, in the order of steps.
        model: ``module:Class`` of a LightningModule, or None.
        factory: ``module:function`` that builds the module, or None.
        probe: saved with ``Probe.save``.
        options: what is measured.
        weights: which, of checkpoints that hold an average, too.
        frozen: parameters that are frozen, of which a checkpoint does not know.
    """

    found: tuple[Checkpoint, ...]
    model: str | None
    factory: str | None
    probe: Path
    options: MeasuringOptions
    weights: Weights = "current"
    frozen: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[type[SavedRun], tuple[Any, ...]]:
        return SavedRun, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def build(self) -> Any:
        """What builds the module; errors as of :func:`.model.builder`."""
        return builder(self.model, self.factory)

    @cached_property
    def instrument(self) -> Instrument:
        """What measures; with what the options have left open, as long as it is not settled."""
        return self.options.instrument(self.probe)

    @property
    def beginning(self) -> range:
        """The positions of the states that every later one is compared with."""
        return range(min(_BEGINNING, len(self.found)))

    def absolute(self) -> SavedRun:
        """The same, wherever a process has its working directory."""
        found = tuple(replace(checkpoint, path=checkpoint.path.absolute()) for checkpoint in self.found)
        return replace(self, found=found, probe=self.probe.absolute())

    def module(self, position: int) -> nn.Module:
        """The network in the state of a checkpoint; errors as of :func:`.rebuild.module_from`."""
        module = module_from(self.build, self.found[position].path, self.weights)
        self.freeze(module)
        return module

    def freeze(self, module: nn.Module) -> None:
        """As a callback had frozen them, of which a checkpoint does not know."""
        for name, parameter in module.named_parameters():
            if name in self.frozen:
                parameter.requires_grad_(False)

    def recorder(self, writer: ArchiveWriter | None) -> Recorder:
        """What takes the rows; without a writer they are stored nowhere."""
        name = self.instrument.probe.name
        return Recorder(writer, {name: self.instrument}, Pace({name: Every(1)}))

    def measure(self, recorder: Recorder, position: int) -> Snapshot:
        """The row of a checkpoint, which the recorder takes."""
        checkpoint, module = self.found[position], self.module(position)
        rule = _rule(module, checkpoints.read(checkpoint.path), checkpoint.path)
        moment = Moment(step=checkpoint.step, epoch=checkpoint.epoch)
        due = {self.instrument.probe.name: Due(f"checkpoint {checkpoint.path.name}")}
        recorder.open_row(module, moment, rule, due, last=position == len(self.found) - 1)
        row = recorder.close_row(None, update_applied=None)
        assert row is not None  # one process leads itself
        return row

    def share(self, span: range, memory: Mapping[str, Any]) -> Share:
        """The rows of consecutive checkpoints, stored nowhere.

        Args:
            span: their positions.
            memory: of the beginning, or {}: then the beginning is measured for it, and in any case the state before the span.
        """
        recorder = self.recorder(None)
        recorder.load_state_dict(memory, torch.device("cpu"))
        for position in leads_in(span.start):
            if not memory or position not in self.beginning:
                self.measure(recorder, position)
        rows = [self.measure(recorder, position) for position in span]
        return Share(rows, recorder.state_dict())


def leads_in(start: int) -> list[int]:
    """Positions of the states that those from ``start`` on are compared with: the beginning, and the one before."""
    return sorted({position for position in (*range(_BEGINNING), start - 1) if 0 <= position < start})


def _rule(module: Any, contents: Mapping[str, Any], path: Path) -> UpdateRule:
    """The rule of the update that followed: of the module's optimizers, or of another loop's the rates alone."""
    names = {id(p): name for name, p in module.named_parameters()}
    if hasattr(module, "configure_optimizers"):
        return UpdateRule.of(optimizers_of(module, contents, path), names)
    rates = rates_of(contents.get("optimizer_states") or [])
    return UpdateRule(rates, {}, None, _NO_OPTIMIZER, unknown=_NO_OPTIMIZER) if rates else UpdateRule.of([], names)
