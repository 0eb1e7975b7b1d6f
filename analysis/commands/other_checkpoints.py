"""Checkpoints of other loops than Lightning's, brought into the shape of Lightning's: weights, a step, rates.

A loop of one's own saves a state dict, or a dict of such; Hugging Face's Trainer a folder. Where nothing inside says the
step, a number in the name does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from kerneltrack.errors import MissingPackageError, TrackerError

#: What loops call the parts of a checkpoint; the first that is there is taken.
_WEIGHTS = ("model_state_dict", "state_dict", "model", "model_state", "net", "network")
_AVERAGES = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "average")
_OPTIMIZERS = ("optimizer_state_dict", "optimizer", "optimizer_state", "optim")
_STEPS = ("global_step", "step", "steps", "iteration", "iter", "updates")
_EPOCHS = ("epoch", "epochs")
#: In a folder of Hugging Face's Trainer.
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_TRAINER_STATE = "trainer_state.json"


def file_in(path: Path) -> Path:
    """The file of weights in a folder that a Trainer of transformers saved; any other path is itself."""
    return next((path / name for name in _IN_FOLDER if (path / name).is_file()), path)


def safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file.

    Raises:
        MissingPackageError: the package that reads them is not installed.
        Exception: what that package says of another kind of file.
    """
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise MissingPackageError("safetensors", "`pip install safetensors` brings it.") from error
    found: dict[str, Any] = load_file(path)
    return found


def as_lightnings(contents: Mapping[str, Any], path: Path, read: Any) -> dict[str, Any] | None:
    """The entries that a Lightning checkpoint has; None where there are no weights.

    Args:
        contents: of the file.
        path: of it.
        read: reads another file beside it as plain data.

    Raises:
        TrackerError: neither the contents nor the name say the step.
    """
    weights = _weights(contents)
    if weights is None:
        return None
    beside = _trainer_state(path)
    steps = _number(contents, _STEPS), _number(beside, _STEPS), _in_name(path, "step", anything=True)
    step = next((found for found in steps if found is not None), None)
    if step is None:
        raise TrackerError(
            f"{path} does not say its step",
            expected="an entry 'global_step' or 'step', or a number in the name, such as step-100.pt",
            remedy="Rename the file, or save the step beside the weights.",
        )
    epochs = _number(contents, _EPOCHS), _number(beside, _EPOCHS), _in_name(path, "epoch", anything=False)
    epoch = next((found for found in epochs if found is not None), 0)
    optimizer = next((contents[name] for name in _OPTIMIZERS if isinstance(contents.get(name), Mapping)), None)
    if optimizer is None and beside and (path.parent / "optimizer.pt").is_file():
        optimizer = read(path.parent / "optimizer.pt")
    found = {"global_step": int(step), "epoch": int(epoch), "state_dict": plain_names(weights)}
    average = next((a for name in _AVERAGES if (a := _tensors(contents.get(name))) is not None), None)
    if average is not None:
        found["average_state"] = plain_names(average)
    if isinstance(optimizer, Mapping) and "param_groups" in optimizer:
        found["optimizer_states"] = [optimizer]
    return found


def plain_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what DistributedDataParallel, an average or torch.compile put in front of all of them."""
    found = {name: value for name, value in weights.items() if name != "n_averaged"}
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def rates_of(states: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    """The learning rate of each parameter group, as the optimizers' states hold them."""
    return tuple(float(group["lr"]) for state in states for group in state["param_groups"] if "lr" in group)


def _weights(contents: Mapping[str, Any]) -> Mapping[str, Any] | None:
    named = (_tensors(contents.get(name)) for name in _WEIGHTS)
    return next((found for found in named if found is not None), _tensors(contents))


def _tensors(value: Any) -> Mapping[str, Any] | None:
    """A state dict: names with tensors, nothing else."""
    if not isinstance(value, Mapping) or not value:
        return None
    plain = all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    return value if plain else None


def _number(contents: Mapping[str, Any], names: Iterable[str]) -> float | None:
    for name in names:
        value = contents.get(name)
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def _in_name(path: Path, word: str, *, anything: bool) -> int | None:
    """The number after a word in the file's or the folder's name, or the last number of all."""
    for name in (path.stem, path.parent.name if path.name in _IN_FOLDER else ""):
        named = re.findall(rf"{word}s?[=_\- ]?(\d+)", name, re.IGNORECASE)
        numbers = named or (re.findall(r"\d+", name) if anything else [])
        if numbers:
            return int(numbers[-1])
    return None


def _trainer_state(path: Path) -> dict[str, Any]:
    """What a Trainer of transformers says of the checkpoint in this file's folder; {} where another loop saved it."""
    if path.name not in _IN_FOLDER or not (path.parent / _TRAINER_STATE).is_file():
        return {}
    found: dict[str, Any] = json.loads((path.parent / _TRAINER_STATE).read_text(encoding="utf-8"))
    return found
