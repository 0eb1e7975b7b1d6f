"""``kerneltrack track``: the snapshots of a run that was not tracked, from the checkpoints that it saved.

Each checkpoint is a state θ_t with the optimizer's state; it is measured by the same instrument as a live run, so the
same state gives the same numbers. What needs both sides of an update is NaN: a checkpoint does not know θ_{t+1}.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from .checkpoints import Checkpoint, Weights
from .measuring_options import MeasuringOptions
from .model import builder, say
from .other_checkpoints import rates_of
from .rebuild import is_class, module_from, optimizers_of

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

    Raises:
        TrackerError: no checkpoint matches, two have the same step, or the model cannot be built from one.
        OutputError: ``output`` exists or is no place for an archive.
        OSError: it cannot be written.
    """
    found = checkpoints.find(pattern)
    build, instrument = builder(model, factory), options.instrument(probe)
    measured = instrument.probe
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
    with new_archive(output) as partial:
        writer = ArchiveWriter(partial, probes=[record], provenance=_provenance(first, found))
        recorder = Recorder(writer, {measured.name: instrument}, Pace({measured.name: Every(1)}))
        try:
            for checkpoint in found:
                module = module_from(build, checkpoint.path, weights)
                _freeze(module, frozen)
                rule = _rule(module, checkpoints.read(checkpoint.path), checkpoint.path)
                moment = Moment(step=checkpoint.step, epoch=checkpoint.epoch)
                due = {measured.name: Due(f"checkpoint {checkpoint.path.name}")}
                recorder.open_row(module, moment, rule, due, last=checkpoint is found[-1])
                recorder.close_row(None, update_applied=None)
        finally:
            recorder.close()
    say(reason)
    if frozen:
        say(f"{', '.join(sorted(frozen))}: not in --params and the same in every checkpoint, so taken for frozen")
    Console(stderr=True).print(f"{recorder.rows} snapshots in {output}", highlight=False, markup=False)
    return 0


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
