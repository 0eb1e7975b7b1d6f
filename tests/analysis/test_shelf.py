"""Very many archives are read with few files open. Oracles: the archive itself, kept open, and /proc/self/fd."""

import gc
import os
import pickle
import random
import resource
import shutil
import threading

import h5py
import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.comparison.comparison import compare
from kerneltrack.archive import Archive, Shelved, open_archive, shelf
from kerneltrack.errors import ArchiveError

MANY = 24
#: How many files a comparison of very many may hold.
FEW = 16


def descriptors():
    return sorted(map(int, os.listdir("/proc/self/fd")))


@pytest.fixture(scope="module")
def paths(synthetic, truth, tmp_path_factory):
    """Copies of one archive, each with values of its own."""
    folder = tmp_path_factory.mktemp("many")
    rows = list(synthetic.snapshots(truth))[:3]
    first = synthetic.write(folder / "run-0.h5", rows, synthetic.record(truth))
    found = [first, *(folder / f"run-{number}.h5" for number in range(1, MANY))]
    for number, path in enumerate(found[1:], 1):
        shutil.copy(first, path)
        with h5py.File(path, "r+") as file:
            for name in ("trace", "eigenvalues"):
                file[f"probes/train/{name}"][...] += number
    return found


@pytest.fixture
def few_files():
    """Room for the open ones and six more descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors()[-1] + 1 + FEW + 6, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_many_are_loaded_and_compared_with_few_files(paths, few_files):
    before = len(descriptors())
    runs = load(paths)
    found = compare(runs, quantities=["eigenvalue_1", "trace"])
    assert len(descriptors()) <= before + FEW
    base = compare(runs[:2], quantities=["eigenvalue_1", "trace"]).values
    for name, scale in (("trace", 1), ("eigenvalue_1", 1 / runs[0].count)):
        expected = base[name][:, :1] + np.arange(MANY) * scale
        np.testing.assert_allclose(found.values[name], expected, rtol=1e-12)  # a rounding of the sum
    del runs, found
    assert len(descriptors()) <= before  # what others left open may be collected meanwhile


@pytest.mark.parametrize(("kept", "reads"), [(0, 16), (2**13, 60)], ids=["opened again", "kept"])
def test_what_is_read_again_is_what_was_there(paths, monkeypatch, kept, reads):
    """Columns × kinds of selections, in an order in which the archives close one another."""
    monkeypatch.setattr(shelf, "OPEN", 2)
    monkeypatch.setattr(shelf, "KEPT", kept)
    shelved = [Shelved(open_archive(path)) for path in paths[:4]]
    names = [name for name in shelved[0].columns if name.startswith("probes/")]
    asked = [(i, name, select) for i in range(4) for name in names for select in (slice(None), 1, -1, np.array([2, 0]))]
    asked = random.Random(0).sample(asked, reads)
    with open_archive(paths[0]) as a, open_archive(paths[1]) as b, open_archive(paths[2]) as c:
        for number, name, select in asked:
            found = shelved[number].column(name, select)
            if number < 3:
                expected = (a, b, c)[number].column(name, select)
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
                assert found.tobytes() == expected.tobytes()
                found[...] = 0  # whoever has it may write into it
            assert sum(one._archive is not None for one in shelved) <= 2


def test_an_archive_that_is_another_one_now_is_told(paths, synthetic, truth, tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "OPEN", 1)
    monkeypatch.setattr(shelf, "KEPT", 0)
    path = tmp_path / "run.h5"
    shutil.copy(paths[0], path)
    run, _ = load([path, paths[1]])
    path.unlink()
    with pytest.raises(ArchiveError, match="there is no such archive"):
        run.values("trace")
    synthetic.write(path, list(synthetic.snapshots(truth))[:3], synthetic.record(truth))
    with pytest.raises(ArchiveError, match="no longer the archive"):
        run.values("trace")


def test_pickled_it_reads_the_same(paths):
    shelved = Shelved(open_archive(paths[3]))
    again = pickle.loads(pickle.dumps(shelved))
    assert again.column("probes/train/trace").tolist() == shelved.column("probes/train/trace").tolist()
    assert len(again) == len(shelved) == 3


def test_no_thread_closes_what_another_reads(paths, monkeypatch):
    """One thread has come to its read when another opens an archive. Oracle: the numbers that stand there."""
    monkeypatch.setattr(shelf, "OPEN", 1)
    monkeypatch.setattr(shelf, "KEPT", 0)
    shelved = [Shelved(open_archive(path)) for path in paths[:3]]
    base = shelved[0].column("probes/train/trace")
    column, reads, done, found = Archive.column, threading.Event(), threading.Event(), []

    def slow(archive, path, *words):
        if path == "probes/train/trace" and threading.current_thread() is not threading.main_thread():
            reads.set()
            done.wait(0.3)  # so long the other one has time
        return column(archive, path, *words)

    monkeypatch.setattr(Archive, "column", slow)
    thread = threading.Thread(target=lambda: found.append(shelved[1].column("probes/train/trace")))
    thread.start()
    reads.wait()
    assert shelved[2].column("probes/train/trace").tolist() == pytest.approx((base + 2).tolist(), rel=1e-12)
    done.set()
    thread.join()
    assert found[0].tolist() == pytest.approx((base + 1).tolist(), rel=1e-12)


def test_what_nobody_refers_to_is_given_back_at_once(paths):
    gc.collect()
    before = len(descriptors())
    gc.disable()
    try:
        shelved = [Shelved(open_archive(path)) for path in paths[:3]]
        assert len(descriptors()) == before + 3
        del shelved
        assert len(descriptors()) == before
    finally:
        gc.enable()
