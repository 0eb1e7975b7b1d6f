"""``kerneltrack track``: the snapshots of a run that was not tracked, from the checkpoints that it saved.

Each checkpoint is a state θ_t with the optimizer's state; it is measured by the same instrument as a live run, so the
same state gives the same numbers. What needs both sides of an update is NaN: a checkpoint does not know θ_{t+1}.
"""

from __future__ import annotations

import glob
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from kerneltrack.archive import ArchiveWriter
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Moment, Pace, Recorder
from kerneltrack.schedule import Due, Every
from kerneltrack.snapshot import Provenance
from kerneltrack.training import UpdateRule, provenance
from kerneltrack.undisturbed import undisturbed

from ..output import new_archive
from .model import instrument_for, model_class


@dataclass(frozen=True)
class Checkpoint:
    """What a Lightning checkpoint says of its place in the run."""

    path: Path
    step: int
    epoch: int


def run_track(
    pattern: str,
    model: str,
    probe: Path,
    output: Path,
    *,
    loss: str | None = None,
    how: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Measure every checkpoint that ``pattern`` matches, in the order of their steps, into ``output``.

    ``how`` the kernel is measured: see :func:`.model.instrument_for`.

    Raises:
        TrackerError: no checkpoint matches, two have the same step, or the model cannot be built from one.
        OutputError: ``output`` exists or is no place for an archive.
        OSError: it cannot be written.
    """
    checkpoints = find_checkpoints(pattern)
    cls, instrument = model_class(model), instrument_for(probe, loss, how)
    measured = instrument.probe
    first = load_module(cls, checkpoints[0].path)
    with undisturbed(first):
        record = instrument.describe(first)
    with new_archive(output) as partial:
        writer = ArchiveWriter(partial, probes=[record], provenance=_provenance(first, checkpoints))
        recorder = Recorder(writer, {measured.name: instrument}, Pace({measured.name: Every(1)}))
        try:
            for checkpoint in checkpoints:
                module = load_module(cls, checkpoint.path)
                names = {id(p): n for n, p in module.named_parameters()}
                rule = UpdateRule.of(_optimizers(module, checkpoint.path), names)
                moment = Moment(step=checkpoint.step, epoch=checkpoint.epoch)
                due = {measured.name: Due(f"checkpoint {checkpoint.path.name}")}
                recorder.open_row(module, moment, rule, due, last=checkpoint is checkpoints[-1])
                recorder.close_row(None, update_applied=None)
        finally:
            recorder.close()
    Console(stderr=True).print(f"{recorder.rows} snapshots in {output}", highlight=False, markup=False)
    return 0


def find_checkpoints(pattern: str) -> list[Checkpoint]:
    """The checkpoints that match, by step.

    Raises:
        TrackerError: there is none, or two of them are of the same step.
    """
    found = sorted((_place(Path(path)) for path in glob.glob(pattern, recursive=True)), key=lambda c: c.step)
    if not found:
        raise TrackerError("--checkpoints matches no file", got=pattern, remedy="Quote the pattern: 'ckpt/*.ckpt'.")
    for earlier, later in pairwise(found):
        if earlier.step == later.step:
            raise TrackerError(
                f"two checkpoints of step {later.step}",
                got=f"{earlier.path} and {later.path}",
                remedy="Choose one of them with a narrower pattern.",
            )
    return found


def load_module(cls: Any, path: Path) -> nn.Module:
    """The LightningModule with the parameters of a checkpoint, on the CPU.

    Raises:
        TrackerError: it cannot be built from what the checkpoint holds.
    """
    try:
        module: nn.Module = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (TypeError, KeyError, RuntimeError) as error:
        raise TrackerError(
            f"{path} cannot be loaded into {cls.__qualname__}",
            got=" ".join(str(error).split()),
            remedy="Call self.save_hyperparameters() in its __init__, so that the checkpoint says how to build it.",
        ) from error
    return module


def _place(path: Path) -> Checkpoint:
    contents = _read(path)
    return Checkpoint(path, int(contents["global_step"]), int(contents["epoch"]))


def _read(path: Path) -> Any:
    """The checkpoint's contents; tensors and plain values only, no code is run."""
    contents = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(contents, dict) or "global_step" not in contents:
        raise TrackerError(f"{path} is not a Lightning checkpoint", expected="an entry 'global_step'")
    return contents


def _optimizers(module: Any, path: Path) -> list[Optimizer]:
    """The module's own optimizers in the state that the checkpoint holds; none where it holds none."""
    states = _read(path).get("optimizer_states") or []
    optimizers = list(_configured(module.configure_optimizers())) if states else []
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    return optimizers


def _configured(value: Any) -> Iterable[Optimizer]:
    """The optimizers in whatever shape ``configure_optimizers`` may return."""
    if isinstance(value, Optimizer):
        yield value
    elif isinstance(value, dict):
        yield value["optimizer"]
    elif isinstance(value, Sequence):
        pair = len(value) == 2 and isinstance(value[0], Sequence)
        for entry in value[0] if pair else value:
            yield from _configured(entry)


def _provenance(module: nn.Module, checkpoints: Sequence[Checkpoint]) -> Provenance:
    run = {
        "run_id": uuid.uuid4().hex,
        **provenance.public_facts(module),
        "replayed_from": [c.path.name for c in checkpoints],
    }
    table = provenance.parameter_table(module)
    return Provenance(run=run, parameters=table, private=provenance.private_facts())
