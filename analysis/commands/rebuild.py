"""A module and its optimizers as a checkpoint holds them, without the Trainer that made it."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kerneltrack.errors import TrackerError, one_line

from . import checkpoints
from .checkpoints import Unread, Weights
from .model import Factory, built, called, say

_FUNCTION = "Name a function that builds the module: --factory module:function."
_NEEDED = (
    "state_dict",
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
    "pytorch-lightning_version",
    "global_step",
    "epoch",
)
_FINETUNING = "internal_optimizer_metadata"  # what BaseFinetuning keeps: the names of the parameters of each group


def module_from(build: Any, path: Path, weights: Weights = "current") -> nn.Module:
    """The module with a checkpoint's weights, on the CPU, and with what trained then.

    Args:
        build: a LightningModule's class, built from the checkpoint's hyper-parameters; or what builds a module without
            arguments.
        path: of the checkpoint.
        weights: which of a checkpoint that holds an average, too.

    Raises:
        TrackerError: it cannot be built, or the weights do not fit it.
    """
    contents = checkpoints.read(path)
    contents["state_dict"] = checkpoints.weights_of(contents, weights, path)
    try:
        module = _of_class(build, contents, path) if is_class(build) else _of_function(build, contents)
    except TrackerError:
        raise
    except Exception as error:  # the module's own code may fail in any way
        raise TrackerError(
            f"{path} cannot be loaded into {called(build)}", got=one_line(error), remedy=_remedy(build, error)
        ) from error
    groups = finetuned(contents)
    if groups:
        names = {name for group in groups for name in group}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
    return module


def is_class(build: Any) -> bool:
    """Whether it is a LightningModule's class, which knows its hyper-parameters, and not a function."""
    return inspect.isclass(build) and hasattr(build, "load_from_checkpoint")


def optimizers_of(module: Any, contents: Mapping[str, Any], path: Path) -> list[Optimizer]:
    """The module's own optimizers in the state that the checkpoint holds; none where it holds none.

    ``configure_optimizers`` may ask the Trainer how long the training is: only the kinds of the optimizers are taken from
    it, rates and all else from the checkpoint.

    Raises:
        TrackerError: they cannot be made, or are not those of the checkpoint.
    """
    states = contents.get("optimizer_states") or []
    if not states:
        return []
    length = _Length(int(contents["global_step"]), int(contents["epoch"]))
    try:
        module.trainer = length
        optimizers = list(configured(module.configure_optimizers()))
        for optimizer, state in zip(optimizers, states, strict=True):
            _regroup(optimizer, module, contents, state)
            optimizer.load_state_dict(state)
    except Exception as error:  # the module's own code may fail in any way
        raise TrackerError(
            f"the optimizers of {path} cannot be rebuilt",
            got=one_line(error),
            remedy="configure_optimizers has to work without data, on a Trainer of which only the length is known.",
        ) from error
    finally:
        module.trainer = None
    return optimizers


def finetuned(contents: Mapping[str, Any]) -> list[list[str]]:
    """The names of the parameters of each group, as a callback that freezes and thaws keeps them; none without one."""
    for state in (contents.get("callbacks") or {}).values():
        if isinstance(state, Mapping) and (kept := state.get(_FINETUNING)):
            return [list(group["params"]) for groups in kept.values() for group in groups]
    return []


def configured(value: Any) -> Iterable[Optimizer]:
    """The optimizers in whatever shape ``configure_optimizers`` may return."""
    if isinstance(value, Optimizer):
        yield value
    elif isinstance(value, dict):
        yield value["optimizer"]
    elif isinstance(value, Sequence):
        pair = len(value) == 2 and isinstance(value[0], Sequence)
        for entry in value[0] if pair else value:
            yield from configured(entry)


class _Length:
    """What of a Trainer a schedule of rates may ask for: how long the training is. No number here reaches a result."""

    def __init__(self, step: int, epoch: int) -> None:
        self.global_step, self.current_epoch = step, epoch
        self.estimated_stepping_batches = self.max_steps = self.num_training_batches = max(step, 1) + 1
        self.max_epochs, self.accumulate_grad_batches, self.world_size, self.num_devices = epoch + 1, 1, 1, 1


def _of_class(cls: Any, contents: Mapping[str, Any], path: Path) -> nn.Module:
    for name, value in (contents.get("hyper_parameters") or {}).items():
        if isinstance(value, Unread):
            raise TrackerError(
                f"{path} cannot be loaded into {called(cls)}",
                got=f"the hyper-parameter {name!r}, a {value.name}: reading it would run its code",
                remedy=_FUNCTION,
            )
    plain = io.BytesIO()
    torch.save({key: contents[key] for key in _NEEDED if key in contents}, plain)
    plain.seek(0)
    module: nn.Module = cls.load_from_checkpoint(plain, map_location="cpu", weights_only=False)
    return module


def _of_function(build: Any, contents: Mapping[str, Any]) -> nn.Module:
    module = built(build.given(plain_values(contents)) if isinstance(build, Factory) else build, called(build))
    say(complete(module))
    module.load_state_dict(contents["state_dict"])
    return module


def plain_values(contents: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's hyper-parameters, without those that are objects of somebody's classes."""
    found = contents.get("hyper_parameters") or {}
    return {name: value for name, value in found.items() if not isinstance(value, Unread)}


def complete(module: Any) -> str:
    """What a Trainer asks of a LightningModule before its weights are there: ``setup("fit")``, then ``configure_model``.

    Layers may be made in either. ``setup`` may need the Trainer or its data, which are not there: a module that has
    parameters all the same is taken as it is.

    Returns:
        What was left out, for :func:`.model.say`; "" for nothing.

    Raises:
        TrackerError: it has no parameters.
    """
    left_out = ""
    if callable(configure := getattr(module, "configure_model", None)):
        if callable(setup := getattr(module, "setup", None)):
            try:
                setup(stage="fit")
            except Exception as error:  # noqa: BLE001  # the module's own code may fail in any way; it is told
                left_out = f'setup("fit") of the model was left out, because it raised {one_line(error)}'
        configure()
    if next(iter(module.parameters()), None) is None:
        raise TrackerError(
            f"{type(module).__qualname__} has no parameters",
            expected='layers after __init__, setup("fit") and configure_model',
            got=left_out or None,
            remedy=f"Where they need the Trainer or its data: {_FUNCTION[0].lower()}{_FUNCTION[1:]}",
        )
    return left_out


def _regroup(optimizer: Optimizer, module: nn.Module, contents: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Give an optimizer the groups that a callback gave it in the training."""
    groups, parameters = finetuned(contents), dict(module.named_parameters())
    if groups and len(groups) == len(state["param_groups"]):
        kept = optimizer.param_groups[0]
        optimizer.param_groups = [{**kept, "params": [parameters[name] for name in names]} for names in groups]


def _remedy(build: Any, error: Exception) -> str | None:
    if not is_class(build):
        return None
    if isinstance(error, TypeError) and "argument" in str(error):
        return f"Call self.save_hyperparameters() in its __init__, so that the checkpoint says how to build it. {_FUNCTION}"
    if isinstance(error, RuntimeError) and not _makes_layers_in_setup(build):
        return None  # the weights do not fit
    return _FUNCTION


def _makes_layers_in_setup(cls: type) -> bool:
    """Whether it may: the checkpoint's weights go into the module before a Trainer is there to call setup."""
    own = (base for base in cls.__mro__ if base.__module__.split(".")[0] not in ("pytorch_lightning", "lightning"))
    return any("setup" in vars(base) for base in own)
