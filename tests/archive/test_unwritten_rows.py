"""A row that was not measured takes no space, however often the file is joined."""

import h5py
import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter
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
