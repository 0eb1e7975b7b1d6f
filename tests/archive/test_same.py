"""tests/archive/same.py tells archives apart. Oracle: one archive written twice, and changed by h5py in one known place."""

import h5py
import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter
from tests.archive.golden import probes, snapshot
from tests.archive.same import differences


def write(path):
    with ArchiveWriter(path, probes=probes()) as writer:
        for step in range(3):
            writer.append(snapshot(step))
    return path


@pytest.fixture
def two(tmp_path):
    return write(tmp_path / "a.h5"), write(tmp_path / "b.h5")


def test_two_archives_of_the_same_rows_are_the_same(two):
    assert differences(*two) == []


def test_what_differs_from_run_to_run_is_left_out(two):
    """Negative control of the tests below: the two files are not the same bytes, and each has its own identifier."""
    with h5py.File(two[0]) as a, h5py.File(two[1]) as b:
        assert a.attrs["archive_id"] != b.attrs["archive_id"]
    with h5py.File(two[1], "r+") as file:
        file["wall_time"][...] += 1
    assert differences(*two) == []


def least_bit(dataset):
    values = dataset[()]
    values.reshape(-1).view(np.uint8)[0] ^= 1
    dataset[...] = values


CHANGES = {
    "one bit of a number": lambda file: least_bit(file["probes/train/eigenvalues"]),
    "an attribute's value": lambda file: file["probes/train/eigenvalues"].attrs.__setitem__("long_name", "other"),
    "an attribute more": lambda file: file["probes/train"].attrs.__setitem__("more", 1),
    "an attribute less": lambda file: file["probes/train/eigenvalues"].attrs.__delitem__("long_name"),
    "a dataset less": lambda file: file["probes/train"].__delitem__("trace"),
    "a dataset more": lambda file: file.create_dataset("probes/val/more", data=np.zeros(2)),
    "the clock's dtype": lambda file: (
        file.__delitem__("wall_time"),
        file.create_dataset("wall_time", data=np.zeros(3, "f4")),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_found(two, name):
    with h5py.File(two[1], "r+") as file:
        CHANGES[name](file)
    assert differences(*two)
