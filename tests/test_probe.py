"""Probes against bytes hashed by hand, round trips through a file, and every refusal."""

import hashlib
import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from kerneltrack.errors import ProbeError
from kerneltrack.probe import Probe

X, Y = torch.arange(12, dtype=torch.float32).reshape(4, 3), torch.tensor([[0.5], [1.0], [-1.0], [2.0]])


def test_fingerprint_is_the_sha256_of_names_dtypes_shapes_and_bytes():
    """Oracle: the same bytes, hashed here with hashlib and NumPy alone."""
    expected = hashlib.sha256()
    for key, array in (("inputs/", X.numpy()), ("targets", Y.numpy())):
        expected.update(f"{key}\0float32\0{array.shape}\0".encode() + array.tobytes())
    assert Probe(X, Y).fingerprint == f"sha256:{expected.hexdigest()}"


@pytest.mark.parametrize(
    "other",
    [
        Probe(X + 1e-6, Y),
        Probe(X.double(), Y),
        Probe(X.reshape(4, 3, 1), Y),
        Probe(X, Y.neg()),
        Probe(X),
        Probe({"a": X}, Y),
    ],
)
def test_fingerprint_sees_every_difference(other):
    assert other.fingerprint != Probe(X, Y).fingerprint


def test_fingerprint_does_not_see_strides_or_names():
    assert Probe(X.T.contiguous().T, Y, name="other").fingerprint == Probe(X, Y).fingerprint


@pytest.mark.parametrize("inputs", [X, (X, X + 1), {"ids": torch.arange(4), "mask": {"a": X, "b": X > 3}}])
def test_a_probe_survives_its_file(tmp_path, inputs):
    probe = Probe(inputs, Y, name="val", identity={"dataset": "d", "indices": [1, 2]})
    probe.save(tmp_path / "probe.npz")
    read = Probe.load(tmp_path / "probe.npz")
    assert (read.fingerprint, read.name, read.identity, len(read)) == (probe.fingerprint, "val", probe.identity, 4)
    assert type(read.inputs) is type(inputs)


def test_a_pickled_file_is_never_opened(tmp_path):
    """Oracle: a pickle whose loading would leave a mark on the disk."""
    mark = tmp_path / "mark"

    class Bomb:
        def __reduce__(self):
            return (mark.touch, ())

    np.savez(tmp_path / "evil.npz", inputs=np.array([Bomb()], dtype=object))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("evil.npz", "evil.pkl", "missing.npz"):
        with pytest.raises(ProbeError, match="cannot read a probe"):
            Probe.load(tmp_path / name)
    assert not mark.exists()


class Noisy(Dataset):
    """Draws from every global generator, as augmentation does."""

    def __len__(self):
        return 50

    def __getitem__(self, i):
        noise = torch.rand(1) + random.random() + np.random.rand()
        return torch.tensor([float(i)]) + 0 * noise.float(), torch.tensor(i % 3)


def generators(loader):
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        loader.generator.get_state().tolist(),
    )


def test_from_dataloader_moves_no_generator_and_repeats():
    loader = DataLoader(Noisy(), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(1))
    before = generators(loader)
    probe = Probe.from_dataloader(loader, 8, seed=3)
    assert generators(loader) == before
    torch.manual_seed(99)
    assert Probe.from_dataloader(loader, 8, seed=3).fingerprint == probe.fingerprint
    assert Probe.from_dataloader(loader, 8, seed=4).fingerprint != probe.fingerprint
    assert probe.inputs[:, 0].int().tolist() == probe.identity["indices"]
    assert len(Probe.from_dataloader(loader, 500)) == 50


def test_a_loader_of_given_batches_gives_the_probe_of_their_samples():
    """Oracle: the loader that torch makes of the same samples by itself. It has a batch_size; this one has None."""
    subset = SubsetRandomSampler([4, 7, 9, 30, 41, 2])
    for sampler in (subset, RandomSampler(Noisy())):
        own = DataLoader(Noisy(), batch_size=3, sampler=sampler)
        given = DataLoader(Noisy(), batch_sampler=BatchSampler(sampler, 3, drop_last=False))
        found, expected = (Probe.from_dataloader(loader, 5, seed=3) for loader in (given, own))
        assert found.identity["indices"] == expected.identity["indices"]
        assert (found.inputs[:, 0].int() == expected.inputs[:, 0].int()).all()


def test_from_dataloader_splits_other_batches():
    class Dicts(Noisy):
        def __getitem__(self, i):
            return {"x": torch.tensor([float(i)]), "label": i % 2, "id": i}

    loader = DataLoader(Dicts(), batch_size=5)
    with pytest.raises(ProbeError, match="split="):
        Probe.from_dataloader(loader, 5)
    probe = Probe.from_dataloader(loader, 5, split=lambda batch: ({"x": batch["x"]}, batch["label"]))
    assert probe.record(2).targets.shape == (5, 2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(1)])


@pytest.mark.parametrize(
    ("loader", "n", "match"),
    [
        (DataLoader(Stream()), 4, "no length and no indices"),
        (DataLoader(TensorDataset(X, Y), batch_size=None), 4, "batch_size=None"),
        (DataLoader(TensorDataset(X, Y)), 0, "at least 1"),
        (DataLoader(TensorDataset(X, Y, X)), 2, "not a pair"),
    ],
)
def test_from_dataloader_refuses(loader, n, match):
    with pytest.raises(ProbeError, match=match):
        Probe.from_dataloader(loader, n)


@pytest.mark.parametrize(
    ("inputs", "targets", "match"),
    [
        (torch.zeros(0, 3), None, "empty"),
        (torch.tensor(1.0), None, "first axis"),
        ((X, X[:2]), None, "first axis"),
        (X, Y[:3], "first axis"),
        (torch.tensor([[1.0], [float("nan")]]), None, "1 of 2 NaN or infinite"),
        (X, torch.tensor([1.0, 2.0, float("inf"), 0.0]), "targets.*1 of 4"),
        (X, torch.zeros(4, 2, 2), r"\(N,\) or \(N, O\)"),
        ("a string", None, "tensors or arrays"),
        ({}, None, "no inputs"),
    ],
)
def test_bad_probes_are_refused(inputs, targets, match):
    with pytest.raises(ProbeError, match=match):
        Probe(inputs, targets)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "a b", "x" * 65, 3])
def test_names_that_cannot_be_a_group_are_refused(name):
    with pytest.raises(ProbeError, match="letters, digits"):
        Probe(X, name=name)


def test_classes_become_one_hot_and_real_targets_stay():
    """Oracle: written out by hand."""
    labels = Probe(X, torch.tensor([2, 0, 1, 2]))
    assert labels.target_encoding == "one-hot"
    assert labels.aligned_targets(3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert labels.record().targets.shape == (4, 3)
    assert Probe(X, Y[:, 0]).aligned_targets(1).tolist() == Y.double().tolist()


@pytest.mark.parametrize(
    ("targets", "outputs"), [(torch.tensor([0, 1, 2, 3]), 3), (torch.tensor([0, 1, 0, 1]), 1), (Y, 2)]
)
def test_targets_that_do_not_fit_the_network_are_refused(targets, outputs):
    with pytest.raises(ProbeError, match="targets of probe"):
        Probe(X, targets).aligned_targets(outputs)


def test_record_leaves_inputs_out_unless_asked():
    assert Probe(X, Y).record().inputs is None
    assert np.array_equal(Probe(X, Y).record(keep_inputs=True).inputs[""], X.numpy())
    assert Probe({"a": X}, Y).record().input_shapes == {"a": ("float32", (4, 3))}


@pytest.mark.parametrize("kind", ["pipe", "folder", "text", "absent"])
def test_what_is_no_probe_is_told_at_once(tmp_path, kind):
    """A pipe that nobody writes would be waited for. NumPy's own advice, to load unsafely, is not passed on."""
    path = tmp_path / "probe.npz"
    {"pipe": os.mkfifo, "folder": os.mkdir, "text": lambda p: p.write_text("hello"), "absent": str}[kind](path)
    with pytest.raises(ProbeError, match="cannot read a probe") as caught:
        Probe.load(path)
    assert "allow_pickle" not in str(caught.value)
