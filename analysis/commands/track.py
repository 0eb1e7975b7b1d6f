"""``kerneltrack track``: the snapshots of a run that was not tracked, from the checkpoints that it saved.

Each checkpoint is a state θ_t with the optimizer's state; it is measured by the same instrument as a live run, so the
same state gives the same numbers. What needs both sides of an update is NaN: a checkpoint does not know θ_{t+1}.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.snapshot import ProbeRecord, Provenance
from kerneltrack.training import provenance
from kerneltrack.undisturbed import undisturbed

from ..output import new_archive
from . import checkpoints
from .checkpoints import Checkpoint, Weights
from .measuring_options import MeasuringOptions
from .model import builder, say
from .rebuild import is_class
from .saved_run import SavedRun
from .shard import Shard, stored
from .workers import Workers, measured


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
    workers: Workers | None = None,
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
        workers: processes that measure; None: this one.

    Raises:
        TrackerError: no checkpoint matches, two have the same step, or the model cannot be built from one.
        OutputError: ``output`` exists or is no place for an archive.
        OSError: it cannot be written.
    """
    builder(model, factory)  # refused before any file is read
    replay = Replay.of(SavedRun(tuple(checkpoints.find(pattern)), model, factory, probe, options, weights), workers)
    if shard is None:
        with new_archive(output) as partial:
            rows = replay.write(partial)
    else:
        rows = replay.write_shard(output, shard)
    for line in replay.said:
        say(line)
    Console(stderr=True).print(f"{rows} snapshots in {output}", highlight=False, markup=False)
    return 0


@dataclass(frozen=True)
class Replay:
    """A saved run with the facts that its archive is to tell.

    Attributes:
        saved: its checkpoints, and how they are measured.
        record: of the probe.
        provenance: of the archive.
        said: what was chosen, to be told at the end.
        workers: what measures; None: this process.
    """

    saved: SavedRun
    record: ProbeRecord
    provenance: Provenance
    said: Sequence[str]
    workers: Workers | None = None

    @classmethod
    def of(cls, saved: SavedRun, workers: Workers | None = None) -> Replay:
        """With what the options left open chosen, and what stands still frozen; errors as of :func:`run_track`."""
        found, options, weights = saved.found, saved.options, saved.weights
        instrument, first = saved.instrument, saved.module(0)
        trainable = [name for name, p in first.named_parameters() if p.requires_grad]
        if is_class(saved.build):
            checkpoints.require_moving(found, [name for name in trainable if options.selects(name)], weights)
        left_out = [name for name in trainable if not options.selects(name)]
        frozen = frozenset(checkpoints.standing_still(found, left_out, weights))
        with undisturbed(first):
            instrument, reason = options.settled(instrument, first)
        options = replace(options, output=instrument.output, gauge=instrument.gauge)
        if set(left_out) == frozen:  # what is left is all that trains
            options = replace(options, params=())
        saved = replace(saved, options=options, frozen=frozen)
        saved.freeze(first)
        with undisturbed(first):
            record = saved.instrument.describe(first)
        names = ", ".join(sorted(frozen))
        still = f"{names}: not in --params and the same in every checkpoint, so taken for frozen" if frozen else ""
        return cls(saved, record, _provenance(first, found), (reason, still), workers)

    def write(self, path: Path) -> int:
        """Measure all checkpoints into a new archive; returns the number of rows."""
        whole = range(len(self.saved.found))
        return self._measured(ArchiveWriter(path, probes=[self.record], provenance=self.provenance), whole, {})

    def write_shard(self, path: Path, shard: Shard) -> int:
        """Measure a share of the checkpoints, from where its archive has come to; returns the rows that it has."""
        run = {**self.provenance.run, "shard": shard.facts, "replay": self._identity}
        identity = hashlib.blake2b(repr((run["replay"], shard)).encode(), digest_size=16).hexdigest()
        origin = replace(self.provenance, run={**run, "run_id": identity})
        start, stop = shard.bounds(len(self.saved.found))
        done = stored(path, identity)
        begin = start + (done or 0)
        if begin < stop or done is None:
            memory = self.saved.share(range(begin, begin), {}).memory if self.workers is None else {}
            if done:
                step = self.saved.found[begin - 1].step
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
        places = [(place.path.name, place.step) for place in self.saved.found]
        facts = places, self.saved.weights, sorted(self.saved.frozen)
        return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()

    def _measured(self, writer: ArchiveWriter, span: range, memory: Mapping[str, Any]) -> int:
        recorder = self.saved.recorder(writer)
        try:
            if self.workers is None:
                recorder.load_state_dict(memory, torch.device("cpu"))
                for position in span:
                    self.saved.measure(recorder, position)
            else:
                with closing(measured(self.saved, span, self.workers)) as rows:
                    for row in rows:
                        recorder.store(row)
        finally:
            recorder.close()
        return recorder.rows


def _provenance(module: nn.Module, found: Sequence[Checkpoint]) -> Provenance:
    run = {"run_id": uuid.uuid4().hex, **provenance.public_facts(module), "replayed_from": [c.path.name for c in found]}
    table = provenance.parameter_table(module)
    return Provenance(run=run, parameters=table, private=provenance.private_facts())
