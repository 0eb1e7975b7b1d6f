"""How a State is stored in a checkpoint: plain values and tensors, which ``torch.load(weights_only=True)`` reads.

A run that is resumed goes on comparing with its first and its last measured state. Numbers come back bit for bit; the
eigensystem of a stored kernel is not stored but solved again, because its vectors are twice the size of the kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kerneltrack.observables import State
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import EigenSystem, eigensystem

#: What a state knows of others is theirs to keep.
REFERENCES = ("initial", "previous", "update")


def to_plain(state: State) -> dict[str, Any]:
    """``state`` by itself, as plain values and CPU tensors."""
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in REFERENCES}
    pairs: EigenSystem = fields.pop("eigensystem")
    solved_again = pairs.complete and state.kernel is not None
    fields["eigensystem"] = None if solved_again else dataclasses.asdict(pairs)
    return {name: _plain(value) for name, value in fields.items()}


def from_plain(plain: Mapping[str, Any]) -> State:
    """The state that :func:`to_plain` was given."""
    fields = {name: _numpy(value) for name, value in plain.items()}
    pairs = fields.pop("eigensystem")
    # Kernels of half-precision networks are sums in float32.
    dtype = torch.float64 if str(fields["settings"].get("dtype", "float64")).endswith("float64") else torch.float32
    solved = eigensystem(torch.from_numpy(fields["kernel"]).to(dtype)) if pairs is None else EigenSystem(**pairs)
    return State(eigensystem=solved, **{**fields, "learning_rates": tuple(fields["learning_rates"])})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(_narrow(value))
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _narrow(array: Array) -> Array:
    """float64 as float32 where that loses nothing: most numbers come from a float32 network."""
    if array.dtype != np.float64:
        return array.copy()
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow, array, equal_nan=True) else array.copy()


def _numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        array = value.cpu().numpy()
        return array.astype(np.float64) if array.dtype == np.float32 else array
    if isinstance(value, Mapping):
        return {key: _numpy(entry) for key, entry in value.items()}
    return [_numpy(entry) for entry in value] if isinstance(value, list) else value
