"""Checkpoints of Lightning as plain data: read without running any of their code, whatever they were pickled with."""

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
from typing import Any

import torch

from kerneltrack.errors import TrackerError

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
_NOT_ONE = "is not a checkpoint of Lightning"
_SAVE = "Save checkpoints with trainer.save_checkpoint, or ModelCheckpoint."


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
    """What a Lightning checkpoint says of its place in the run."""

    path: Path
    step: int
    epoch: int


def read(path: Path) -> dict[str, Any]:
    """The checkpoint's contents; tensors, plain values, and :class:`Unread` for the rest.

    Raises:
        TrackerError: it cannot be read, or is another kind of file.
    """
    if path.suffix == ".safetensors":
        raise TrackerError(f"{path} {_NOT_ONE}", got="safetensors, which hold weights and no step", remedy=_SAVE)
    if not path.is_file():
        raise TrackerError(f"{path} {_NOT_ONE}", got="a folder" if path.is_dir() else "no regular file", remedy=_SAVE)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except PermissionError as error:
        raise TrackerError(
            f"{path} cannot be read", got=error.strerror, remedy="Ask for the right to read it."
        ) from error
    except Exception as error:  # a file of another kind makes the unpickler fail in any way
        begun = path.read_bytes()[:2] == b"PK" and not zipfile.is_zipfile(path)
        got = "a file that ends too early" if begun else "text or another kind of file"
        raise TrackerError(f"{path} {_NOT_ONE}", got=got, remedy=_SAVE) from error
    if isinstance(contents, Unread):
        raise TrackerError(f"{path} {_NOT_ONE}", got=f"a saved {contents.name}", remedy=_SAVE)
    if not isinstance(contents, Mapping) or not {"global_step", "epoch", "state_dict"} <= set(contents):
        raise TrackerError(
            f"{path} {_NOT_ONE}", expected="the entries 'global_step', 'epoch' and 'state_dict'", remedy=_SAVE
        )
    return dict(contents)


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


def require_moving(checkpoints: Sequence[Checkpoint], trainable: Sequence[str]) -> None:
    """Refuse where a parameter that trains by the module's own word stands still while others move.

    A callback that freezes leaves no trace in a checkpoint but this one.

    Raises:
        TrackerError: naming it.
    """
    if len(checkpoints) < 2:
        return
    first, last = (read(checkpoints[i].path)["state_dict"] for i in (0, -1))
    still = [name for name in trainable if name in first and name in last and torch.equal(first[name], last[name])]
    if still and len(still) < len(trainable):
        raise TrackerError(
            f"{still[0]} is the same in every checkpoint",
            expected="a parameter that was trained, as the module says",
            got=f"{len(still)} of {len(trainable)} that stand still" if len(still) > 1 else None,
            remedy="If a callback froze it, name a function as --model that builds the module and freezes it too.",
        )


def _same(one: Any, other: Any) -> bool:
    """Whether two checkpoints are of one state: equal weights and equal states of the optimizers."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if "state_dict" in one and "state_dict" in other:
            return all(_same(one.get(key), other.get(key)) for key in ("state_dict", "optimizer_states"))
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and (isinstance(one, Unread | argparse.Namespace) or bool(one == other))
