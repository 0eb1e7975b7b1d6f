"""Whether the loss on a probe is the loss that is trained: said of the probe, and verified by the first update's value."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.utils import _pytree as pytree

from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Instrument
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Snapshot
from kerneltrack.tracking.facts import Facts
from kerneltrack.training import NAMES, LossName, ProbeLoss


def stability_scope(facts: Facts, probe: Probe, batch: Any) -> str:
    """Whether the loss on the probe is the loss that is trained: "exact", else "probe estimate".

    Exact demands that every update sees the whole training set in one batch, that this batch is the probe (in whatever
    order), and that the function in training is the one measured: no active dropout, no batch statistics, no clipping,
    no weight decay.
    """
    dataset: Any = getattr(facts.loader, "dataset", ())
    whole_set = hasattr(dataset, "__len__") and len(dataset) == len(probe) and facts.accumulated == 1
    same_function = not any(_differs_in_training(child) for child in facts.model.modules())
    plain_update = facts.clipping is None and not any(
        group.get("weight_decay") for optimizer in facts.optimizers for group in optimizer.param_groups
    )
    exact = whole_set and same_function and plain_update and _same_samples(batch, probe)
    return "exact" if exact else "probe estimate"


def verify_loss(instruments: Mapping[str, Instrument], snapshot: Snapshot) -> None:
    """Where the probe is the training batch, the named loss must be the loss that was trained.

    A wrong name shows by the trained value being that of another name. A value that is no name's may be right: what is
    trained has a penalty, say, and only the loss in it is named.

    Raises:
        TrackerError: the trained loss has another name.
    """
    for name, instrument in instruments.items():
        found = snapshot.probes.get(name, {})
        measured, trained = float(found.get("probe_loss", math.nan)), snapshot.training_loss
        if instrument.scope != "exact" or math.isnan(measured) or math.isnan(trained) or _same_value(measured, trained):
            continue
        right = [other for other, value in _named_losses(instrument.probe, found) if _same_value(value, trained)]
        said = f"loss={instrument.loss.name if instrument.loss else None!r}"
        if right:
            raise TrackerError(
                said,
                expected=f"the loss that is trained, {right[0]!r}: {trained:.6g} on this batch",
                got=f"{measured:.6g} on the probe, which is the whole training batch",
                remedy='Name the trained loss (torch.nn.MSELoss is "mse", half of it is "half_mse"), give it as a '
                "callable, or pass loss=None.",
            )
        warnings.warn(
            f"kerneltrack: {said} is {measured:.6g} on the probe, which is the whole training batch, and training_step "
            f"gave {trained:.6g}. That is right where it adds something to the loss (a penalty); else name the trained loss.",
            stacklevel=2,
        )


def _same_value(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)


def _named_losses(probe: Probe, found: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Every loss that has a name, on the probe, by what the network gave there."""
    if "outputs" not in found:
        return []
    outputs = torch.as_tensor(found["outputs"])
    targets = probe.aligned_targets(outputs.shape[1])
    if targets is None:
        return []
    names = [name for name in NAMES if name != "cross_entropy" or outputs.shape[1] > 1]
    return [
        (name, float(ProbeLoss.of(cast(LossName, name)).value(outputs, torch.from_numpy(targets)))) for name in names
    ]


def _differs_in_training(child: nn.Module) -> bool:
    if isinstance(child, nn.modules.dropout._DropoutNd):
        return child.training and child.p > 0
    if isinstance(child, nn.modules.batchnorm._NormBase):
        return child.training
    return isinstance(child, nn.MultiheadAttention) and child.training and child.dropout > 0


def _same_samples(batch: Any, probe: Probe) -> bool:
    """Whether a batch (x, y) holds exactly the probe's samples, in any order."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or probe.targets is None:
        return False
    leaves = [*pytree.tree_leaves(batch[0]), batch[1]]
    own = [*pytree.tree_leaves(probe.inputs), probe.targets]
    if len(leaves) != len(own) or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return False
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(leaves, own, strict=True)):
        return False
    return _row_digests(leaves) == _row_digests(own)


def _row_digests(leaves: list[torch.Tensor]) -> list[bytes]:
    rows = [leaf.detach().cpu().contiguous().reshape(len(leaf), -1).view(torch.uint8).numpy() for leaf in leaves]
    return sorted(hashlib.sha256(b"".join(row[i].tobytes() for row in rows)).digest() for i in range(len(rows[0])))
