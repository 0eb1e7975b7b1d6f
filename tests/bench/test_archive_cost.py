"""The page of the archive's costs is made of a run; how large archives open is counted in bytes, not in seconds."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kerneltrack.archive import check, open_archive

ROWS = 10_000


@pytest.fixture(scope="module")
def cost():
    spec = importlib.util.spec_from_file_location("archive_cost", Path(__file__).with_name("archive_cost.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for itself there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_ten_thousand_snapshots_open_by_their_columns_alone(cost, tmp_path, monkeypatch):
    """Oracle: the bytes that are asked of the file. Opening needs a few numbers of each row, a snapshot its own row."""
    from kerneltrack.archive.durable import Stream

    path, samples, vectors = tmp_path / "run.h5", 40, 4
    cost.prepare(path, ROWS, samples, vectors)
    read = []
    original = Stream.readinto
    monkeypatch.setattr(Stream, "readinto", lambda self, buffer: read.append(len(buffer)) or original(self, buffer))
    with open_archive(path) as archive:
        assert len(archive) == ROWS
        opened = sum(read)
        assert opened < ROWS * (8 + 16 + 4 + 8) + 200_000  # snapshot, snapshot_id, segment, step; then metadata
        for number in (0, 4321, ROWS - 1):
            before = sum(read)
            found = archive[number]
            assert found.step == number
            np.testing.assert_array_equal(found.probes["train"]["eigenvalues"], np.linspace(samples, 0, samples))
            assert sum(read) - before < 25 * 65_536 + 200_000  # at most one chunk of 64 KiB of each of 23 columns
    assert path.stat().st_size > 5 * opened


def test_what_is_written_in_bulk_is_an_archive(cost, tmp_path):
    cost.prepare(tmp_path / "run.h5", 20, 10, 2)
    assert check(tmp_path / "run.h5") == []


def test_the_page_says_what_was_measured(cost, tmp_path):
    """Every setting has its line, and the verdict is the ratio of the medians above it."""
    text = cost.page(tmp_path, appends=3, there=(1, 3), runs=(10,), large=(20, 10, 2))
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(("| 1 |", "| 3 |"))]
    assert [(row[0].strip(), row[1].strip()) for row in table] == [
        ("1", "without"),
        ("1", "with"),
        ("3", "without"),
        ("3", "with"),
    ]
    assert all(float(row[5]) > 1 for row in table)  # kB written: a part at least
    assert "20 snapshots of 10 probe rows" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "floor"]
