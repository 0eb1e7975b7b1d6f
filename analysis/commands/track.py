"""``kerneltrack track``: the snapshots of a run that was not tracked, from the checkpoints that it saved.

Each checkpoint is a state θ_t with the optimizer's state; it is measured by the same instrument as a live run, so the
same state gives the same numbers. What needs both sides of an update is NaN: a checkpoint does not know θ_{t+1}.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.measurement import Instrument, Moment, Pace, Recorder
from kerneltrack.schedule import Due, Every
from kerneltrack.snapshot import ProbeRecord, Provenance
from kerneltrack.training import UpdateRule, provenance
from kerneltrack.undisturbed import undisturbed

from ..output import new_archive
from . import checkpoints
from .checkpoints import Checkpoint, Weights
from .measuring_options import MeasuringOptions
from .model import builder, say
from .other_checkpoints import rates_of
from .rebuild import is_class, module_from, optimizers_of
from .shard import Shard, leads_in, stored

#: Why a rate without its optimizer says nothing of stability.
_NO_OPTIMIZER = "the checkpoint has rates, and no module says of which optimizer"


def run_track(
    pattern: str,
    model: str | None,
    probe: Path,
    output: Path,
    options: MeasuringOptions,
    *,
    factory: str | None = None,
    weights: Weights = "current",
    shard: Shard | None = None,
) -> int:
    """Measure every checkpoint that ``pattern`` matches, in the order of their steps, into ``output``.

    Args:
        pattern: of files, or of folders of Hugging Face's Trainer.
        model: ``module:Class`` of a LightningModule, or None.
        probe: saved with ``Probe.save``.
        output: the archive.
        options: what is measured.
        factory: ``module:function`` that builds the module, or None.
        weights: which, of checkpoints that hold an average, too.
        shard: the share of the checkpoints that is measured; None: all. A shard's archive that is there already is gone on with.

    Raises:
        TrackerError: no checkpoint matches, two have the same step, or the model cannot be built from one.
        OutputError: ``output`` exists or is no place for an archive.
        OSError: it cannot be written.
    """
    replay = Replay.of(pattern, builder(model, factory), options, probe, weights)
    if shard is None:
        with new_archive(output) as partial:
            rows = replay.write(partial, range(len(replay.found)))
    else:
        rows = replay.write_shard(output, shard)
    for line in replay.said:
        say(line)
    Console(stderr=True).print(f"{rows} snapshots in {output}", highlight=False, markup=False)
    return 0


@dataclass(frozen=True)
class Replay:
    """A run as its checkpoints tell it.

    Attributes:
        found: the checkpoints, in the order of steps.
        build: what builds the module.
        weights: which are measured.
        frozen: parameters that are frozen, of which a checkpoint does not know.
        instrument: what measures.
        record: of the probe, for the archive.
        provenance: of the archive.
        said: what was chosen, to be told at the end.
    """

    found: Sequence[Checkpoint]
    build: Any
    weights: Weights
    frozen: frozenset[str]
    instrument: Instrument
    record: ProbeRecord
    provenance: Provenance
    said: Sequence[str]

    @classmethod
    def of(cls, pattern: str, build: Any, options: MeasuringOptions, probe: Path, weights: Weights) -> Replay:
        """The run whose checkpoints match; errors as of :func:`run_track`."""
        found, instrument = checkpoints.find(pattern), options.instrument(probe)
        first = module_from(build, found[0].path, weights)
        trainable = [name for name, p in first.named_parameters() if p.requires_grad]
        if is_class(build):
            checkpoints.require_moving(found, [name for name in trainable if options.selects(name)], weights)
        left_out = [name for name in trainable if not options.selects(name)]
        frozen = frozenset(checkpoints.standing_still(found, left_out, weights))
        _freeze(first, frozen)
        if set(left_out) == frozen:  # what is left is all that trains
            instrument = replace(instrument, params=None)
        with undisturbed(first):
            instrument, reason = options.settled(instrument, first)
            record = instrument.describe(first)
        names = ", ".join(sorted(frozen))
        still = f"{names}: not in --params and the same in every checkpoint, so taken for frozen" if frozen else ""
        return cls(found, build, weights, frozen, instrument, record, _provenance(first, found), (reason, still))

    def write(self, path: Path, positions: Iterable[int]) -> int:
        """Measure these checkpoints into a new archive; returns the number of rows."""
        return self._measured(ArchiveWriter(path, probes=[self.record], provenance=self.provenance), positions, {})

    def write_shard(self, path: Path, shard: Shard) -> int:
        """Measure a share of the checkpoints, from where its archive has come to; returns the rows that it has."""
        run = {**self.provenance.run, "shard": shard.facts, "replay": self._identity}
        identity = hashlib.blake2b(repr((run["replay"], shard)).encode(), digest_size=16).hexdigest()
        origin = replace(self.provenance, run={**run, "run_id": identity})
        start, stop = shard.bounds(len(self.found))
        done = stored(path, identity)
        begin = start + (done or 0)
        if begin < stop or done is None:
            memory = self._memory(begin)
            if done:
                step = self.found[begin - 1].step
                writer = ArchiveWriter.resume(path, probes=[self.record], provenance=origin, resumed_from_step=step)
            else:
                writer = ArchiveWriter(path, probes=[self.record], provenance=origin, if_exists="replace")
            try:
                self._measured(writer, range(begin, stop), memory)
            except BaseException:
                if not stored(path, identity):  # nothing that a further try could go on with
                    path.unlink(missing_ok=True)
                raise
        return stop - start

    @property
    def _identity(self) -> str:
        """Of what is measured of which checkpoints: the same for every shard."""
        places = [(place.path.name, place.step) for place in self.found]
        return hashlib.blake2b(repr((places, self.weights, sorted(self.frozen))).encode(), digest_size=16).hexdigest()

    def _memory(self, begin: int) -> dict[str, Any]:
        """What a run that has come to this position remembers of the states before; they are measured for it."""
        recorder = self._recorder(None)
        for position in leads_in(begin):
            self._measure(recorder, position)
        return recorder.state_dict()

    def _recorder(self, writer: ArchiveWriter | None) -> Recorder:
        name = self.instrument.probe.name
        return Recorder(writer, {name: self.instrument}, Pace({name: Every(1)}))

    def _measured(self, writer: ArchiveWriter, positions: Iterable[int], memory: Mapping[str, Any]) -> int:
        recorder = self._recorder(writer)
        try:
            recorder.load_state_dict(memory, torch.device("cpu"))
            for position in positions:
                self._measure(recorder, position)
        finally:
            recorder.close()
        return recorder.rows

    def _measure(self, recorder: Recorder, position: int) -> None:
        checkpoint = self.found[position]
        module = module_from(self.build, checkpoint.path, self.weights)
        _freeze(module, self.frozen)
        rule = _rule(module, checkpoints.read(checkpoint.path), checkpoint.path)
        moment = Moment(step=checkpoint.step, epoch=checkpoint.epoch)
        due = {self.instrument.probe.name: Due(f"checkpoint {checkpoint.path.name}")}
        recorder.open_row(module, moment, rule, due, last=position == len(self.found) - 1)
        recorder.close_row(None, update_applied=None)


def _freeze(module: nn.Module, names: frozenset[str]) -> None:
    """As a callback had frozen them, of which a checkpoint does not know."""
    for name, parameter in module.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _rule(module: Any, contents: Mapping[str, Any], path: Path) -> UpdateRule:
    """The rule of the update that followed: of the module's optimizers, or of another loop's the rates alone."""
    names = {id(p): name for name, p in module.named_parameters()}
    if hasattr(module, "configure_optimizers"):
        return UpdateRule.of(optimizers_of(module, contents, path), names)
    rates = rates_of(contents.get("optimizer_states") or [])
    return UpdateRule(rates, {}, None, _NO_OPTIMIZER, unknown=_NO_OPTIMIZER) if rates else UpdateRule.of([], names)


def _provenance(module: nn.Module, found: Sequence[Checkpoint]) -> Provenance:
    run = {"run_id": uuid.uuid4().hex, **provenance.public_facts(module), "replayed_from": [c.path.name for c in found]}
    table = provenance.parameter_table(module)
    return Provenance(run=run, parameters=table, private=provenance.private_facts())
