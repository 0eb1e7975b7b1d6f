"""A row that was not measured takes no space, however often the file is joined, and does not keep others from being read."""

import tracemalloc

import h5py
import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter, open_archive, safety
from kerneltrack.errors import UnsafeArchiveError
from kerneltrack.snapshot import ProbeRecord, Snapshot

N = 200


@pytest.mark.parametrize("rows", [3, 20])
def test_kernels_are_stored_only_where_they_were_measured(tmp_path, rows):
    """Oracle: the file's own chunk table, read with h5py. The first and the last snapshot have a kernel."""
    record = ProbeRecord(name="train", fingerprint="sha256:" + "0" * 64, count=N)
    kernel = np.ones((N, N, 1, 1), dtype=np.float32)
    with ArchiveWriter(tmp_path / "run.h5", probes=[record]) as writer:
        for step in range(rows):
            values = {"eigenvalues": np.ones(N)} | ({"kernel": kernel} if step in (0, rows - 1) else {})
            writer.append(Snapshot(step=step, probes={"train": values}))
    with h5py.File(tmp_path / "run.h5") as file:
        stored = file["probes/train/kernel"]
        assert stored.shape[0] == rows
        assert stored.id.get_num_chunks() == 2
        assert np.isnan(stored[1]).all()
        assert (stored[rows - 1] == 1).all()


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A kernel of 8 MB at both ends of a run of forty rows, as the tracker keeps it: 320 MB where it is dense."""
    path = tmp_path_factory.mktemp("sparse") / "run.h5"
    record = ProbeRecord(name="train", fingerprint="sha256:" + "0" * 64, count=1000)
    with ArchiveWriter(path, probes=[record]) as writer:
        for step in range(40):
            kernel = {"kernel": kernel_of(step)} if step in (0, 39) else {}
            writer.append(Snapshot(step=step, probes={"train": {"trace": np.float64(1), **kernel}}))
    return path


def kernel_of(step):
    return np.random.default_rng(step).random((1000, 1000, 1, 1))


def test_a_kernel_that_is_mostly_unwritten_is_read(sparse):
    """Oracle: the two kernels that went in."""
    with open_archive(sparse) as archive:
        read = archive.to_xarray().kernel.values
    assert read.nbytes > safety.MAX_AT_ONCE_BYTES + sparse.stat().st_size
    assert np.array_equal(read[0], kernel_of(0))
    assert np.array_equal(read[39], kernel_of(39))
    assert np.isnan(read[1:39]).all()


def test_a_corner_of_every_kernel_takes_a_corner_of_the_memory(sparse):
    """Oracle: the kernels that went in, and the peak of what Python allocates."""
    with open_archive(sparse) as archive:
        kernel = archive.to_xarray().kernel
        tracemalloc.start()
        read = kernel[:, :5, [7, 3]].values
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(kernel[39, 4].values, kernel_of(39)[4])
        assert np.array_equal(kernel[[39, 0], 4:6, 2].values, [kernel_of(39)[4:6, 2], kernel_of(0)[4:6, 2]])
    assert peak < 4 * kernel_of(0).nbytes
    assert np.array_equal(read[39], kernel_of(39)[:5, [7, 3]])
    assert np.isnan(read[1:39]).all()


@pytest.mark.parametrize(("rows", "refused"), [(2_000, False), (700_000, True)])
def test_beyond_four_gibibytes_it_is_a_claim_again(tmp_path, rows, refused):
    """Negative control: one row that is really there does not admit any number of rows that are not.

    A row is 8 kB; so that the test is quick, the one row is asked for that many times.
    """
    path = tmp_path / "run.h5"
    record = ProbeRecord(name="train", fingerprint="sha256:" + "0" * 64, count=1000)
    with ArchiveWriter(path, probes=[record]) as writer:
        writer.append(Snapshot(step=0, probes={"train": {"eigenvalues": np.ones(1000)}}))
    with open_archive(path) as archive:
        select = np.zeros(rows, int)
        if refused:
            with pytest.raises(UnsafeArchiveError, match=f"at most {safety.MAX_SPARSE_BYTES} bytes.*fewer rows"):
                archive.column("probes/train/eigenvalues", select)
        else:
            assert archive.column("probes/train/eigenvalues", select).shape == (rows, 1000)


@pytest.fixture(scope="module")
def rows_without(tmp_path_factory):
    """Two hundred rows that hold one number each."""
    path = tmp_path_factory.mktemp("without") / "run.h5"
    with ArchiveWriter(path, probes=[ProbeRecord(name="train", fingerprint="sha256:0", count=1000)]) as writer:
        for step in range(200):
            writer.append(Snapshot(step=step, probes={"train": {"trace": np.float64(1)}}))
    return path


@pytest.mark.parametrize("trick", ["nothing is written", "a smaller row is written", "deflated", "a hole"])
def test_a_row_that_is_only_claimed_does_not_count(tmp_path, rows_without, trick):
    """Negative control: 200 rows of 8 MB of which no whole row lies on the disk are refused, whatever the file says."""
    path = tmp_path / "run.h5"
    path.write_bytes(rows_without.read_bytes())
    with h5py.File(path, "r+") as file:
        options = {"compression": "gzip"} if trick == "deflated" else {}
        chunk = (1, 1 << 10) if trick == "a smaller row is written" else (1, 1 << 20)
        data = file.create_dataset("probes/train/eigenvalues", (200, 1 << 20), "f8", chunks=chunk, **options)
        data.attrs["dimensions"] = "snapshot mode"
        if trick in ("deflated", "a hole"):
            data[0] = 1
        if trick == "a smaller row is written":
            data[0, :1024] = 1
        where = data.id.get_chunk_info(0).byte_offset if trick == "a hole" else 0
    if trick == "a hole":
        punch(path, where, 8 << 20)
        assert 512 * path.stat().st_blocks < path.stat().st_size / 4
    with open_archive(path) as archive, pytest.raises(UnsafeArchiveError, match="more would be read at once"):
        archive.column("probes/train/eigenvalues")


def punch(path, where, size):
    """Write the file anew with a hole in it."""
    data = path.read_bytes()
    path.unlink()
    with path.open("wb") as file:
        file.write(data[:where])
        file.seek(where + size)
        file.write(data[where + size :])
        file.truncate(len(data))
