"""``kerneltrack track``: the snapshots of a run that was not tracked, from the checkpoints that it saved.

Each checkpoint is a state θ_t with the optimizer's state; it is measured by the same instrument as a live run, so the
same state gives the same numbers. What needs both sides of an update is NaN: a checkpoint does not know θ_{t+1}.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from kerneltrack.archive import ArchiveWriter
from kerneltrack.measurement import Moment, Pace, Recorder
from kerneltrack.schedule import Due, Every
from kerneltrack.snapshot import Provenance
from kerneltrack.training import UpdateRule, provenance
from kerneltrack.undisturbed import undisturbed

from ..output import new_archive
from . import checkpoints
from .checkpoints import Checkpoint
from .measuring_options import MeasuringOptions
from .model import model_class, say
from .rebuild import is_class, module_from, optimizers_of


def run_track(pattern: str, model: str, probe: Path, output: Path, options: MeasuringOptions) -> int:
    """Measure every checkpoint that ``pattern`` matches, in the order of their steps, into ``output``.

    Raises:
        TrackerError: no checkpoint matches, two have the same step, or the model cannot be built from one.
        OutputError: ``output`` exists or is no place for an archive.
        OSError: it cannot be written.
    """
    found = checkpoints.find(pattern)
    cls, instrument = model_class(model), options.instrument(probe)
    measured = instrument.probe
    first = module_from(cls, found[0].path)
    if is_class(cls):
        checkpoints.require_moving(found, [name for name, p in first.named_parameters() if p.requires_grad])
    with undisturbed(first):
        instrument, reason = options.settled(instrument, first)
        record = instrument.describe(first)
    with new_archive(output) as partial:
        writer = ArchiveWriter(partial, probes=[record], provenance=_provenance(first, found))
        recorder = Recorder(writer, {measured.name: instrument}, Pace({measured.name: Every(1)}))
        try:
            for checkpoint in found:
                module = module_from(cls, checkpoint.path)
                names = {id(p): n for n, p in module.named_parameters()}
                contents = checkpoints.read(checkpoint.path)
                rule = UpdateRule.of(optimizers_of(module, contents, checkpoint.path), names)
                moment = Moment(step=checkpoint.step, epoch=checkpoint.epoch)
                due = {measured.name: Due(f"checkpoint {checkpoint.path.name}")}
                recorder.open_row(module, moment, rule, due, last=checkpoint is found[-1])
                recorder.close_row(None, update_applied=None)
        finally:
            recorder.close()
    say(reason)
    Console(stderr=True).print(f"{recorder.rows} snapshots in {output}", highlight=False, markup=False)
    return 0


def _provenance(module: nn.Module, found: Sequence[Checkpoint]) -> Provenance:
    run = {"run_id": uuid.uuid4().hex, **provenance.public_facts(module), "replayed_from": [c.path.name for c in found]}
    table = provenance.parameter_table(module)
    return Provenance(run=run, parameters=table, private=provenance.private_facts())
