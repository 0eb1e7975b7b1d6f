"""Probe: the fixed inputs and targets on which the kernel is measured, and their fingerprint.

A probe is never the training batch: batch noise would sit in every curve, and two runs could not be compared. The
fingerprint is a SHA-256 over the bytes of inputs and targets, so augmentation in a dataset's ``__getitem__`` or another
normalisation shows.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerneltrack.conventions import fingerprint
from kerneltrack.errors import ProbeError, explaining_what_is_missing
from kerneltrack.snapshot import Array, Json, ProbeRecord, TargetEncoding
from kerneltrack.standard_probes import read, standard_probe

with explaining_what_is_missing():
    import torch
    from torch import Tensor
    from torch.utils import _pytree as pytree
    from torch.utils.data import SubsetRandomSampler

    from kerneltrack.undisturbed import held_generators, preserved_generators, preserved_rng

Split = Callable[[Any], tuple[Any, Any]]


class Probe:
    """N fixed inputs, and targets to align with.

    Args:
        inputs: a tensor (N, …) or a pytree of tensors (tuple, list, mapping), first axis N everywhere.
        targets: real (N,) or (N, O); or integer classes (N,), one-hot for alignment; or None.
        name: the name of its group in the archive: letters, digits, ``_``, ``-``.
        identity: where the samples come from (dataset, split, indices, transform): plain JSON values, stored as given.

    Raises:
        ProbeError: empty, of unequal lengths, not finite, or not tensors.
    """

    def __init__(
        self, inputs: Any, targets: Any = None, *, name: str = "probe", identity: Mapping[str, Json] | None = None
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            raise ProbeError("Probe(name=…)", expected="1 to 64 letters, digits, '_' or '-'", got=repr(name))
        self.name = name
        self.inputs = pytree.tree_map(lambda leaf: _tensor(leaf, f"inputs of probe {name!r}"), opened(inputs))
        self.targets = None if targets is None else _tensor(targets, f"targets of probe {name!r}")
        self.identity = None if identity is None else dict(identity)
        self._count = _checked_count(name, self._leaves(), self.targets)
        self.fingerprint = _fingerprint(self._leaves(), self.targets)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        shapes = ", ".join(f"{key or 'inputs'}{tuple(leaf.shape)}" for key, leaf in self._leaves().items())
        targets = "no targets" if self.targets is None else f"targets{tuple(self.targets.shape)}"
        return f"Probe({self.name!r}: {shapes}, {targets}, {self.fingerprint[:18]}…)"

    @classmethod
    def from_dataloader(
        cls, loader: Any, n: int, *, seed: int = 0, split: Split | None = None, name: str = "probe"
    ) -> Probe:
        """Take n samples of ``loader.dataset``, at indices drawn with a seed of its own, joined by ``collate_fn``.

        The loader itself is never iterated: that would move its generator, and so the training. The global generators,
        and those that the dataset holds, are put back too, in case it draws from them. A loader that gives a subset
        (``SubsetRandomSampler``) gives the probe of that subset.

        Args:
            loader: a DataLoader over a dataset with ``__len__`` and ``__getitem__``.
            n: how many samples; all of them where there are fewer.
            seed: of the indices; it is not the run's seed.
            split: batch → (inputs, targets). Without it a batch must be a pair (x, y), or a single tensor.
            name: the probe's name.

        Raises:
            ProbeError: for an iterable dataset, no automatic batching, or a batch that cannot be split into inputs and targets.
        """
        dataset = loader.dataset
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ProbeError("probe size n", expected="an integer of at least 1", got=repr(n))
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise ProbeError(
                f"a probe cannot be drawn from {type(dataset).__name__}, which has no length and no indices",
                remedy="Give the tracker a Probe(inputs, targets) of your own.",
            )
        if getattr(loader, "batch_size", 1) is None and getattr(loader, "batch_sampler", None) is None:
            raise ProbeError(
                "a probe cannot be drawn from a loader with batch_size=None: its dataset yields whole batches",
                remedy="Give the tracker a Probe(inputs, targets) of your own.",
            )
        among = given_indices(loader)
        drawn = np.random.default_rng(seed).choice(len(among), size=min(n, len(among)), replace=False)
        indices = sorted(among[int(i)] for i in drawn)
        batch = collated(loader, indices)
        inputs, targets = _split(batch, split)
        identity = {"dataset": type(dataset).__qualname__, "seed": seed, "indices": indices}
        return cls(inputs, targets, name=name, identity=identity)

    @classmethod
    def of_batch(cls, batch: Any, *, split: Split | None = None, name: str = "batch") -> Probe:
        """The samples of one batch of a training, as :meth:`from_dataloader` takes them apart.

        Raises:
            ProbeError: a batch that cannot be split into inputs and targets.
        """
        inputs, targets = _split(batch, split)
        return cls(inputs, targets, name=name)

    @classmethod
    def standard(
        cls,
        which: str,
        *,
        root: str | Path | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        name: str = "probe",
    ) -> Probe:
        """A probe that other laboratories have too: the same samples of a known data set, checked byte by byte.

        Args:
            which: its name, such as "digits-256" or "grid-16x16"; ``kerneltrack.standard_probes.catalogue()`` names all.
            root: the folder of your own copy of the data set, where it needs one.
            transform: applied to the inputs (N, …) after they were checked. The identity keeps its name, and the probe is
                comparable with those of the same bytes only.
            name: of the probe's group in the archive.

        Raises:
            ProbeError: no such probe, no copy of its data, or a copy with other bytes.
        """
        entry = standard_probe(which)
        probe = cls(*read(entry, root), name=name, identity=entry.identity)
        if probe.fingerprint != entry.fingerprint:
            raise ProbeError(
                f"this copy of {entry.dataset} is another one: standard probe {which!r}",
                expected=entry.fingerprint,
                got=probe.fingerprint,
                where=None if root is None else str(root),
                remedy=f"Take an unchanged copy: {entry.source}.",
            )
        if transform is None:
            return probe
        called = getattr(transform, "__qualname__", type(transform).__qualname__)
        return cls(transform(probe.inputs), probe.targets, name=name, identity={**entry.identity, "transform": called})

    def save(self, path: str | Path) -> None:
        """Write ``.npz`` arrays: inputs (or inputs/<key>), targets, name, identity as JSON text. Never pickle."""
        arrays = {f"inputs/{key}" if key else "inputs": leaf.numpy() for key, leaf in self._leaves().items()}
        if self.targets is not None:
            arrays["targets"] = self.targets.numpy()
        header = json.dumps({"name": self.name, "identity": self.identity})
        arrays["header"] = np.frombuffer(header.encode(), dtype=np.uint8)
        np.savez(Path(path), allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read what :meth:`save` wrote, or any ``.npz`` with the same names. Nothing in it is executed.

        Raises:
            ProbeError: the file is missing, is not such an ``.npz``, or holds pickled objects.
        """
        try:
            if (found := Path(path)).exists() and not found.is_file():
                raise ValueError("a folder, pipe or device")  # a pipe without a writer would be waited for
            loaded = np.load(found, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("one array without a name")
            with loaded as archive:
                arrays = {key: archive[key] for key in archive.files}
            header = json.loads(bytes(arrays.pop("header", np.frombuffer(b"{}", np.uint8))))
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ProbeError(
                f"cannot read a probe from {path}",
                expected="an .npz with inputs (or inputs/<key>) and targets",
                got="another kind of file"
                if "allow_pickle" in str(error)
                else str(error),  # NumPy says how to be unsafe
                remedy="Probe.save(path) writes one; pickled arrays are never read.",
            ) from error
        leaves = {key.removeprefix("inputs/"): leaf for key, leaf in arrays.items() if key.startswith("inputs/")}
        inputs = arrays["inputs"] if "inputs" in arrays else _from_keys(leaves, path)
        return cls(inputs, arrays.get("targets"), name=header.get("name", "probe"), identity=header.get("identity"))

    def named(self, name: str) -> Probe:
        """The same probe under another name."""
        return Probe(self.inputs, self.targets, name=name, identity=self.identity)

    def aligned_targets(self, outputs: int) -> Array | None:
        """Targets as they are aligned against, (N, O) float64: real as they are, classes one-hot over O outputs.

        Raises:
            ProbeError: the targets do not fit a network with ``outputs`` outputs.
        """
        if self.targets is None:
            return None
        if self.target_encoding == "one-hot":
            targets = self.targets.to(torch.int64).numpy()
            if outputs == 1 or targets.max() >= outputs or targets.min() < 0:
                raise ProbeError(
                    f"integer targets of probe {self.name!r}",
                    expected=f"classes from 0 to {outputs - 1}",
                    got=f"classes from {targets.min()} to {targets.max()}",
                    remedy="Pass real-valued targets as floats; classes need one output each.",
                )
            one_hot: Array = np.eye(outputs, dtype=np.float64)[targets]
            return one_hot
        real: Array = self.targets.to(torch.float64).numpy().reshape(len(self), -1)
        if real.shape[1] != outputs:
            raise ProbeError(
                f"targets of probe {self.name!r}",
                expected=f"shape ({len(self)}, {outputs}), as the network's outputs",
                got=tuple(self.targets.shape),
                remedy="Reshape the targets, or pass forward= to choose the outputs.",
            )
        return real

    @property
    def target_encoding(self) -> TargetEncoding:
        """How targets are aligned against: "one-hot" (integer classes (N,)), "real", or "none"."""
        if self.targets is None:
            return "none"
        return "real" if self.targets.is_floating_point() or self.targets.ndim > 1 else "one-hot"

    def record(self, outputs: int | None = None, *, keep_inputs: bool = False) -> ProbeRecord:
        """The torch-free record that an archive takes.

        Args:
            outputs: O of the network, which one-hot targets need; None: real targets' own width, or the largest class.
            keep_inputs: store the inputs in the archive as well. They may be private, so the default leaves them out.
        """
        if outputs is None and self.targets is not None:
            one_hot = self.target_encoding == "one-hot"
            outputs = int(self.targets.max()) + 1 if one_hot else self.targets.reshape(len(self), -1).shape[1]
        leaves = self._leaves()
        return ProbeRecord(
            name=self.name,
            fingerprint=self.fingerprint,
            count=len(self),
            targets=None if outputs is None else self.aligned_targets(outputs),
            target_encoding=self.target_encoding,
            input_shapes={key: (_dtype_name(leaf), tuple(leaf.shape)) for key, leaf in leaves.items()},
            inputs={key: leaf.numpy() for key, leaf in leaves.items()} if keep_inputs else None,
            identity=self.identity,
        )

    def _leaves(self) -> dict[str, Tensor]:
        """Input leaves by key; "" for a single tensor."""
        if isinstance(self.inputs, Tensor):
            return {"": self.inputs}
        paths, _ = pytree.tree_flatten_with_path(self.inputs)
        return {"/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): leaf for path, leaf in paths}


def given_indices(loader: Any) -> Sequence[int]:
    """The indices of its dataset that a loader gives: a subset's where its sampler says one, else all."""
    batches: object = getattr(
        loader, "batch_sampler", None
    )  # one that was given knows the samples, the loader does not
    sampler: object = getattr(batches, "sampler", None) or getattr(loader, "sampler", None)
    if isinstance(sampler, SubsetRandomSampler):
        return [int(i) for i in sampler.indices]
    return range(len(loader.dataset))


def collated(loader: Any, indices: Iterable[int]) -> Any:
    """Samples of a loader's dataset as one batch. The process's generators, and those that the dataset holds, are put back."""
    with preserved_rng(), preserved_generators(*held_generators((loader.dataset, loader.collate_fn))):
        return loader.collate_fn([loader.dataset[int(i)] for i in indices])


def opened(batch: Any) -> Any:
    """``batch`` with every mapping that torch's pytree takes for a leaf (UserDict, BatchEncoding) as a dict, at any depth."""

    def as_dict(leaf: Any) -> Any:
        return {key: opened(value) for key, value in leaf.items()} if isinstance(leaf, Mapping) else leaf

    return pytree.tree_map(as_dict, batch)


def _tensor(value: Any, what: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProbeError(
            what,
            expected="tensors or arrays",
            got=type(value).__name__,
            remedy="Give the tensors of an object as a dict or tuple, and put it together in forward=; of a graph give the "
            "nodes' indices (docs/how-to/graphs.md).",
        ) from error
    return tensor.detach().to("cpu", copy=True).contiguous()


def _checked_count(name: str, leaves: Mapping[str, Tensor], targets: Tensor | None) -> int:
    everything = {f"inputs {key}".strip(): leaf for key, leaf in leaves.items()}
    if targets is not None:
        everything["targets"] = targets
    if not leaves:
        raise ProbeError(f"probe {name!r} has no inputs", expected="at least one tensor")
    lengths = {key: (leaf.shape[0] if leaf.ndim else None) for key, leaf in everything.items()}
    count = next(iter(lengths.values()))
    if count is None or any(length != count for length in lengths.values()):
        raise ProbeError(f"probe {name!r}", expected="the same first axis N everywhere", got=lengths)
    if count == 0:
        raise ProbeError(f"probe {name!r} is empty", expected="at least one sample")
    for key, leaf in everything.items():
        bad = int((~torch.isfinite(leaf)).sum()) if leaf.is_floating_point() or leaf.is_complex() else 0
        if bad:
            raise ProbeError(
                f"{key} of probe {name!r}",
                expected="finite numbers",
                got=f"{bad} of {leaf.numel()} NaN or infinite",
                remedy="Remove or impute those samples first.",
            )
    if targets is not None and targets.ndim > 2:
        raise ProbeError(f"targets of probe {name!r}", expected="shape (N,) or (N, O)", got=tuple(targets.shape))
    return int(count)


def _fingerprint(leaves: Mapping[str, Tensor], targets: Tensor | None) -> str:
    everything = {f"inputs/{key}": leaf for key, leaf in leaves.items()}
    if targets is not None:
        everything["targets"] = targets
    return fingerprint((key, _dtype_name(leaf), tuple(leaf.shape), _bytes(leaf)) for key, leaf in everything.items())


def _bytes(leaf: Tensor) -> bytes:
    # view(uint8) reaches the bytes of every dtype, bfloat16 included, which NumPy does not know.
    return bytes(leaf.reshape(-1).view(torch.uint8).numpy().tobytes()) if leaf.numel() else b""


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _split(batch: Any, split: Split | None) -> tuple[Any, Any]:
    if split is not None:
        found = split(batch)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise ProbeError(
                "split",
                expected="a callable batch -> (inputs, targets)",
                got=f"{type(found).__name__}" + (f" of length {len(found)}" if hasattr(found, "__len__") else ""),
                remedy="Return a pair; targets may be None.",
            )
        return found[0], found[1]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Tensor):
        return batch, None
    kind = type(batch).__name__ + (f" of length {len(batch)}" if isinstance(batch, (tuple, list, dict)) else "")
    raise ProbeError(
        "a batch that is not a pair (x, y)",
        got=kind,
        remedy="Pass split=, a callable batch -> (inputs, targets), or a Probe(inputs, targets).",
    )


def _from_keys(leaves: Mapping[str, Array], path: object) -> Any:
    """Rebuild nested dicts (and tuples, where all keys count 0, 1, 2, …) from "a/b" keys."""
    if not leaves:
        raise ProbeError(f"cannot read a probe from {path}", expected="an array 'inputs' or arrays 'inputs/<key>'")
    tree: dict[str, Any] = {}
    for key, leaf in leaves.items():
        *parents, last = key.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return _tuples(tree)


def _tuples(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    children = {key: _tuples(child) for key, child in node.items()}
    if all(key.isdigit() for key in children) and {int(key) for key in children} == set(range(len(children))):
        return tuple(children[str(i)] for i in range(len(children)))
    return children
