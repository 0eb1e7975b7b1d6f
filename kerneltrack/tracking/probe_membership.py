"""Whether a probe's points are trained on: told from how it was drawn, from the training data's bytes, and from its identity."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from kerneltrack import observables
from kerneltrack.probe import Probe, collated, given_indices
from kerneltrack.snapshot import Array, InTraining

Drawn = Literal["train", "val"]

#: A data set in memory is compared with the probe row by row up to so many bytes: about half a second.
MAX_BYTES = 1 << 28


def in_training(
    training: Any, probe: Probe, batch: Any, *, drawn: Drawn | None = None, validation: Any = None
) -> InTraining:
    """Whether the probe's points are trained on.

    "yes" where the probe was drawn from the training loader, or one of its inputs is found among the training data: in the
    first batch, in a data set in memory, or at an index that both loaders give. "no" where it was drawn from the validation
    loader, or its identity says that it is held out, and none of that was found. Else what its identity says.

    Args:
        training: the training loader, or several in any container.
        probe: the probe.
        batch: the first training batch.
        drawn: from which loader the tracker drew it; None where it was given.
        validation: the loader of a probe that was drawn from it.
    """
    loaders = [each for each in pytree.tree_leaves(training) if hasattr(getattr(each, "dataset", None), "__len__")]
    if (
        drawn == "train"
        or _in_batch(batch, probe)
        or any(_is_in(loader, probe, drawn, validation) for loader in loaders)
    ):
        return "yes"
    return "no" if drawn == "val" else observables.in_training(probe.identity)


def _in_batch(batch: Any, probe: Probe) -> bool:
    """Whether the first training batch holds a point of the probe."""
    return not set(_digests(_leaves(probe.inputs), range(len(probe)))).isdisjoint(
        _rows(_leaves(_inputs(batch)), len(_leaves(probe.inputs)))
    )


def _is_in(loader: Any, probe: Probe, drawn: Drawn | None, validation: Any) -> bool:
    """Whether any of the probe's points is seen to be among those that a training loader gives."""
    own = _leaves(probe.inputs)
    if not set(_digests(own, range(len(probe)))).isdisjoint(_rows_in_memory(loader, len(own))):
        return True
    return _share(loader, validation, probe) if drawn == "val" else _is_from(loader, probe)


def _inputs(batch: Any) -> Any:
    return batch[0] if isinstance(batch, (tuple, list)) and len(batch) == 2 else batch


def _leaves(inputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _rows(found: list[Tensor], leaves: int, indices: Iterable[int] | None = None) -> Iterator[bytes]:
    """Digests of the rows of as many leaves as the probe's inputs have; none where they are others."""
    if len(found) < leaves or any(not leaf.ndim or len(leaf) != len(found[0]) for leaf in found):
        return iter(())
    return _digests(found[:leaves], range(len(found[0])) if indices is None else indices)


def _digests(leaves: list[Tensor], indices: Iterable[int]) -> Iterator[bytes]:
    """One digest a row. Floats are compared as float32 and integers as int64, whichever width they came in."""
    arrays = [_array(leaf) for leaf in leaves]
    kinds = [np.dtype({"f": np.float32, "c": np.complex64}.get(array.dtype.kind, np.int64)) for array in arrays]
    for index in indices:
        row = b"".join(array[index].astype(kind).tobytes() for array, kind in zip(arrays, kinds, strict=True))
        yield hashlib.blake2b(row, digest_size=16).digest()


def _array(leaf: Tensor) -> Array:
    plain = leaf.detach().cpu().reshape(len(leaf), -1)
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())  # which NumPy does not know


def _rows_in_memory(loader: Any, leaves: int) -> Iterator[bytes]:
    """The inputs that a loader gives, as far as its data lie in memory as tensors."""
    by_base: dict[int, tuple[Any, set[int]]] = {}
    for base, index in _origins(loader.dataset, given_indices(loader)):
        by_base.setdefault(id(base), (base, set()))[1].add(index)
    for base, indices in by_base.values():
        tensors = _tensors(base)
        if 0 < sum(tensor.nbytes for tensor in tensors) <= MAX_BYTES:
            yield from _rows(tensors, leaves, indices)


def _tensors(dataset: Any) -> list[Tensor]:
    """The inputs of a data set in memory, first axis over its samples; none where it is another kind."""
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors[: max(1, len(dataset.tensors) - 1)])
    if not isinstance(dataset, (list, tuple)) or not dataset:
        return []
    firsts = [sample[0] if isinstance(sample, (list, tuple)) and sample else sample for sample in dataset]
    if not all(isinstance(first, Tensor) and first.shape == firsts[0].shape for first in firsts):
        return []
    return [torch.stack(firsts)] if len(firsts) * firsts[0].nbytes <= MAX_BYTES else []


def _origins(dataset: Any, indices: Iterable[int]) -> Iterator[tuple[Any, int]]:
    """For each index the data set that holds the sample, below subsets and concatenations, and its index there."""
    for given in indices:
        base, index = dataset, int(given)
        while (below := _below(base, index)) is not None:
            base, index = below
        yield base, index


def _below(dataset: Any, index: int) -> tuple[Any, int] | None:
    """The data set that a subset or a concatenation takes the sample from, and its index there."""
    if isinstance(dataset, Subset):
        return dataset.dataset, int(dataset.indices[index])
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0)
    return None


def _share(loader: Any, other: Any, probe: Probe) -> bool:
    """Whether a sample of the probe, drawn from the other loader, is one that ``loader`` gives."""
    indices = (probe.identity or {}).get("indices", [])
    ours = {(id(base), index) for base, index in _origins(other.dataset, indices)}
    theirs = ((id(base), index) for base, index in _origins(loader.dataset, given_indices(loader)))
    return any(origin in ours for origin in theirs)


def _is_from(loader: Any, probe: Probe) -> bool:
    """Whether the probe is what the loader's data set holds at the indices that its identity names."""
    identity = probe.identity or {}
    indices, kind = identity.get("indices"), type(loader.dataset).__qualname__
    if identity.get("dataset") != kind or not isinstance(indices, list) or len(indices) != len(probe):
        return False
    try:
        batch = collated(loader, indices)
    except Exception:  # noqa: BLE001  # whatever a user's data set says of indices that are another one's
        return False
    leaves, own = _leaves(_inputs(batch)), _leaves(probe.inputs)
    return len(leaves) == len(own) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(leaves, own, strict=True)
    )
