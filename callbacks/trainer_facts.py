"""What the tracker reads off a Lightning trainer and module: facts, never tensors' arithmetic.

Lightning classes are never compared with ``isinstance``: there are two import roots, and an object of one is not an
instance of the other's classes.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Instrument
from kerneltrack.ntk import reported_name
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Json, Provenance, Snapshot
from kerneltrack.training import (
    NAMES,
    LossName,
    ProbeLoss,
    UpdateRule,
    learning_rates,
    parameter_table,
    private_facts,
    public_facts,
)

from . import clipping

#: Strategies whose ``named_parameters()`` are not the parameters, so that a kernel would silently be of something else.
#: ModelParallelStrategy (FSDP2) is not among them: its full parameters can be gathered, see kerneltrack.distributed.unsharded.
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")


def ranks(trainer: Any) -> Ranks:
    """The processes that train together.

    Raises:
        TrackerError: a strategy that keeps the parameters where they cannot be read (FSDP1, DeepSpeed, XLA's FSDP), or
            several processes without torch.distributed.
    """
    strategy = type(trainer.strategy).__name__
    if any(kind.__name__ in SHARDED for kind in type(trainer.strategy).__mro__):
        raise TrackerError(
            f"NTKTracker with {strategy}",
            expected="one device, DDPStrategy, or ModelParallelStrategy with fully_shard (FSDP2)",
            remedy="Use one of those, or save checkpoints and measure them with `kerneltrack track`.",
        )
    found = Ranks.current() if trainer.world_size > 1 else Ranks()
    if found.size != trainer.world_size:
        raise TrackerError(
            f"NTKTracker with {strategy} on {trainer.world_size} processes",
            expected="processes that communicate through torch.distributed",
            got=f"a process group of {found.size}",
            remedy="Use DDPStrategy or ModelParallelStrategy, or train on one device.",
        )
    return found


def require_trainer(trainer: Any) -> None:
    """Refuse what is no Lightning Trainer by what it lacks: there are two import roots, so no class is asked for."""
    needed = (
        "strategy",
        "world_size",
        "global_step",
        "current_epoch",
        "train_dataloader",
        "lightning_module",
        "callbacks",
    )
    if any(not hasattr(type(trainer), name) and not hasattr(trainer, name) for name in needed):
        raise no_trainer(f"{type(trainer).__module__}.{type(trainer).__qualname__}")


def no_trainer(got: str) -> TrackerError:
    """The error of a tracker that another trainer than Lightning's calls."""
    return TrackerError(
        "NTKTracker",
        expected="the Trainer of pytorch_lightning or lightning.pytorch, which calls it as a callback",
        got=got,
        remedy="Train with Trainer(callbacks=[tracker]), or save checkpoints and measure them with `kerneltrack track`.",
    )


def optimizers(trainer: Any) -> list[Optimizer]:
    """The trainer's optimizers, unwrapped."""
    return [getattr(optimizer, "optimizer", optimizer) for optimizer in trainer.optimizers]


def rates(trainer: Any) -> tuple[float, ...]:
    """The learning rates of the next update, read now."""
    return learning_rates(optimizers(trainer))


def update_rule(trainer: Any, module: nn.Module) -> UpdateRule:
    """The rule of the next update, read now."""
    # The kernel's names: those without what wrappers (torch.compile) put in the middle.
    names = {id(parameter): reported_name(module, name) for name, parameter in module.named_parameters()}
    return replace(UpdateRule.of(optimizers(trainer), names), clipping=clipping.announced(trainer, module))


def loss_scale(trainer: Any) -> float | None:
    """The scale of a loss scaler (16-mixed), which drops when it skips an update; None where there is no scaler."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def has_gradient(optimizer: Any) -> bool:
    """Whether any parameter that ``optimizer`` holds has a gradient; none has where training_step returned None."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def last_step(trainer: Any) -> int | None:
    """The step at which training will end, by ``max_steps`` or ``max_epochs``; None where neither is set."""
    total = trainer.estimated_stepping_batches
    return int(total) if math.isfinite(total) and total > 0 else None


def steps_per_epoch(trainer: Any) -> float | None:
    """Updates in an epoch; None where the loader has no length."""
    batches = trainer.num_training_batches
    return math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) and batches else None


def training_loss(module: Any, outputs: Any, backwards: Sequence[torch.Tensor], accumulated: int) -> float:
    """The loss that training_step gave for the batch that ends; NaN where it gave none.

    Lightning hands over what it goes backward from, which in automatic optimization is divided by the batches of an
    update. An optimizer that evaluates its closure more than once (LBFGS) ends with a loss at other weights; the first
    one is of those that the update leaves.

    Args:
        module: whose step it was.
        outputs: what the trainer hands over at the end of the batch.
        backwards: the loss of each backward pass of the batch.
        accumulated: by how many batches the loss was divided when it was made; a callback may change that afterwards.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not module.automatic_optimization:
        return float(loss) if isinstance(loss, torch.Tensor) and loss.numel() == 1 else math.nan
    if len(backwards) > 1:
        loss = backwards[0]
    return float(loss) * accumulated if isinstance(loss, torch.Tensor) else math.nan


def stability_scope(trainer: Any, module: nn.Module, probe: Probe, batch: Any) -> str:
    """Whether the loss on the probe is the loss that is trained: "exact", else "probe estimate".

    Exact demands that every update sees the whole training set in one batch, that this batch is the probe (in whatever
    order), and that the function in training is the one measured: no active dropout, no batch statistics, no clipping,
    no weight decay.
    """
    dataset: Any = getattr(trainer.train_dataloader, "dataset", ())
    whole_set = hasattr(dataset, "__len__") and len(dataset) == len(probe) and trainer.accumulate_grad_batches == 1
    same_function = not any(_differs_in_training(child) for child in module.modules())
    plain_update = clipping.announced(trainer, module) is None and not any(
        group.get("weight_decay") for optimizer in optimizers(trainer) for group in optimizer.param_groups
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


def provenance(
    trainer: Any, module: nn.Module, *, run_id: str, run: Mapping[str, Json], user: Mapping[str, Json]
) -> Provenance:
    """Where the numbers come from, in plain values; private facts in a section of their own."""
    rule = update_rule(trainer, module)
    public: dict[str, Json] = {
        "run_id": run_id,
        **public_facts(module),
        "optimizers": [dict(settings) for settings in rule.settings],
        "clipping": clipping.described(trainer, module),
        "precision": str(trainer.precision),
        "strategy": type(trainer.strategy).__name__,
        "world_size": int(trainer.world_size),
        **run,
    }
    table = parameter_table(module, rule.groups)
    return Provenance(run=public, metadata=dict(user), parameters=table, private=private_facts())


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
