"""Checkpoints as plain data: read without running any of their code, whatever they were pickled with."""

from __future__ import annotations

import argparse
import glob
import pathlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch

from kerneltrack.errors import MissingPackageError, TrackerError

from . import other_checkpoints

#: Which weights of a checkpoint that holds both: those that are trained, or their average (EMA, SWA).
Weights = Literal["current", "average"]
#: What a checkpoint may be made of, by the module that it stands in; everything else becomes an :class:`Unread`.
_PLAIN = {
    "collections": {"OrderedDict", "defaultdict", "deque", "Counter"},
    "builtins": {"set", "frozenset", "bytearray", "complex", "slice", "range", "int", "float", "str", "list", "dict", "tuple"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "torch": {"device", "Size", "dtype"},
    "torch.serialization": {"_get_layout"},
    "torch.nn.parameter": {"Parameter", "Buffer"},
    "pathlib": {"PosixPath", "PurePosixPath", "PurePath", "Path"},
    "argparse": {"Namespace"},
    "lightning_fabric.utilities.data": {"AttributeDict"},
    "lightning.fabric.utilities.data": {"AttributeDict"},
    "pytorch_lightning.utilities.parsing": {"AttributeDict"},
    "lightning.pytorch.utilities.parsing": {"AttributeDict"},
}  # fmt: skip
_FOREIGN_PATHS = {"WindowsPath": "PureWindowsPath", "PosixPath": "PurePosixPath"}
_NOT_ONE = "is not a checkpoint"
_SAVE = "Save checkpoints with trainer.save_checkpoint or ModelCheckpoint, or a state dict with its step."


class Unread:
    """An object whose class is somebody's code: it is not made, and whoever needs it is told its name."""

    name = ""

    def __new__(cls, *_: Any, **__: Any) -> Unread:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """An item of a list of somebody's own class."""

    def extend(self, values: Any) -> None:
        """Items of a list of somebody's own class."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        rebuilds = module in ("torch._utils", "torch._tensor") and name.startswith("_rebuild")
        stored = module in ("torch", "torch.storage") and (name.endswith("Storage") or hasattr(torch, name))
        is_dtype = stored and isinstance(getattr(torch, name, None), torch.dtype)
        if module == "pathlib" and not hasattr(pathlib, name):
            return Unread
        if module == "pathlib" and name in _FOREIGN_PATHS and name != type(Path()).__name__:
            return getattr(pathlib, _FOREIGN_PATHS[name])  # a path of another system cannot be opened here anyway
        if rebuilds or is_dtype or (stored and name.endswith("Storage")) or name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        return type(name, (Unread,), {"name": f"{module}.{name}"})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="plain")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its place in the run."""

    path: Path
    step: int
    epoch: int


def read(path: Path) -> dict[str, Any]:
    """The checkpoint's contents, in the shape of Lightning's; tensors, plain values, and :class:`Unread` for the rest.

    Raises:
        TrackerError: it cannot be read, or is another kind of file.
    """
    path = other_checkpoints.file_in(path)
    contents = _contents(path)
    if isinstance(contents, Unread):
        raise TrackerError(f"{path} {_NOT_ONE}", got=f"a saved {contents.name}", remedy=_SAVE)
    if isinstance(contents, Mapping) and {"global_step", "epoch", "state_dict"} <= set(contents):
        return dict(contents)
    found = other_checkpoints.as_lightnings(contents, path, _contents) if isinstance(contents, Mapping) else None
    if found is None:
        expected = "the entries 'global_step', 'epoch' and 'state_dict', or a state dict"
        raise TrackerError(f"{path} {_NOT_ONE}", expected=expected, remedy=_SAVE)
    return found


def weights_of(contents: Mapping[str, Any], which: Weights, path: Path) -> Mapping[str, Any]:
    """The state dict that is asked for. Lightning puts an average in the place of what is trained.

    Raises:
        TrackerError: an average of a checkpoint that holds none.
    """
    current: Mapping[str, Any] = contents["state_dict"]
    average: Mapping[str, Any] | None = contents.get("average_state")
    if "current_model_state" in contents:
        current, average = contents["current_model_state"], contents["state_dict"]
    if which == "current":
        return current
    if average is None:
        raise TrackerError(
            f"{path} holds no average of its weights",
            expected="a checkpoint of a run with EMAWeightAveraging, or an entry such as 'ema_state_dict'",
            remedy="--weights current measures what was trained.",
        )
    return average


def _contents(path: Path) -> Any:
    if not path.is_file():
        raise TrackerError(f"{path} {_NOT_ONE}", got="a folder" if path.is_dir() else "no regular file", remedy=_SAVE)
    try:
        if path.suffix == ".safetensors":
            return other_checkpoints.safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except MissingPackageError:
        raise
    except PermissionError as error:
        raise TrackerError(
            f"{path} cannot be read", got=error.strerror, remedy="Ask for the right to read it."
        ) from error
    except Exception as error:  # a file of another kind makes the unpickler fail in any way
        begun = path.read_bytes()[:2] == b"PK" and not zipfile.is_zipfile(path)
        got = "a file that ends too early" if begun else "text or another kind of file"
        raise TrackerError(f"{path} {_NOT_ONE}", got=got, remedy=_SAVE) from error


def find(pattern: str) -> list[Checkpoint]:
    """The checkpoints that match, by step; of copies (``save_last``) one.

    Raises:
        TrackerError: there is none, one cannot be read, or two of one step differ.
    """
    paths = sorted(map(Path, glob.glob(pattern, recursive=True)), key=lambda p: (p.stem.startswith("last"), p))
    if not paths:
        raise TrackerError("--checkpoints matches no file", got=pattern, remedy="Quote the pattern: 'ckpt/*.ckpt'.")
    places = [Checkpoint(path, int(c["global_step"]), int(c["epoch"])) for path in paths for c in [read(path)]]
    places.sort(key=lambda place: place.step)
    found = places[:1]
    for earlier, later in pairwise(places):
        if earlier.step != later.step:
            found.append(later)
        elif not _same(read(earlier.path), read(later.path)):
            raise TrackerError(
                f"two checkpoints of step {later.step}",
                got=f"{earlier.path} and {later.path}",
                remedy="Choose one of them with a narrower pattern.",
            )
    return found


def require_moving(checkpoints: Sequence[Checkpoint], trainable: Sequence[str], which: Weights) -> None:
    """Refuse where a parameter that trains by the module's own word stands still while others move.

    A callback that freezes leaves no trace in a checkpoint but this one.

    Args:
        checkpoints: of the run.
        trainable: names of the parameters that the kernel is to be of.
        which: weights are measured.

    Raises:
        TrackerError: naming it.
    """
    still = standing_still(checkpoints, trainable, which)
    if still and len(still) < len(trainable):
        raise TrackerError(
            f"{still[0]} is the same in every checkpoint",
            expected="a parameter that was trained, as the module says",
            got=f"{len(still)} of {len(trainable)} that stand still" if len(still) > 1 else None,
            remedy=f"If a callback froze it, name what trained with --params, as in --params '{_layer(still, trainable)}*'.",
        )


def standing_still(checkpoints: Sequence[Checkpoint], names: Sequence[str], which: Weights) -> list[str]:
    """The parameters that are the same in the first and the last of several checkpoints."""
    if len(checkpoints) < 2:
        return []
    first, last = (weights_of(read(checkpoints[i].path), which, checkpoints[i].path) for i in (0, -1))
    return [name for name in names if name in first and name in last and torch.equal(first[name], last[name])]


def _layer(still: Sequence[str], trainable: Sequence[str]) -> str:
    """The beginning of the name of a parameter that moved: its layer."""
    moved = next(name for name in trainable if name not in still)
    layer, dot, _ = moved.rpartition(".")
    return layer + dot


def _same(one: Any, other: Any) -> bool:
    """Whether two checkpoints are of one state: equal weights and equal states of the optimizers."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if "state_dict" in one and "state_dict" in other:
            return all(
                _same(one.get(key), other.get(key)) for key in ("state_dict", "average_state", "optimizer_states")
            )
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and (isinstance(one, Unread | argparse.Namespace) or bool(one == other))
