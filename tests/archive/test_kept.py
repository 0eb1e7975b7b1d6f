"""Rows that are joined from memory. Oracle: the same archive joined from its parts, byte for byte."""

import datetime
import itertools
import time
import uuid

import numpy as np
import pytest

from kerneltrack.archive import ArchiveWriter, open_archive, spool
from kerneltrack.archive import writer as writing
from kerneltrack.archive.pieces import Piece
from kerneltrack.snapshot import Snapshot
from tests.archive.golden import probes, snapshot

#: Two probes of which one is not in every row, a kernel in the first, further groups of parameters, failed rows.
ROWS = [
    *map(snapshot, range(9)),
    Snapshot(step=9, status="failed", message="λ_1 is not finite"),
    *map(snapshot, range(10, 26)),
]
SIZES = {"from files": 0, "some": 2000, "from memory": 1 << 24}


class NoTime:
    """Every archive is written at one moment, with the same identifiers."""

    @staticmethod
    def now(zone=None):
        return datetime.datetime(2026, 1, 1, tzinfo=zone)


def written(folder, monkeypatch, kept_bytes):
    """The bytes of every file after each append and in the end, by name, and how many parts were opened by whom joins."""
    opened, numbers = [], itertools.count()

    class Counted(Piece):
        def __init__(self, path, **options):
            opened.append(path.name)
            super().__init__(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(spool, "KEPT_BYTES", kept_bytes)
        patch.setattr(spool, "Piece", Counted)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(numbers)))
        patch.setattr(writing, "datetime", NoTime)
        patch.setattr(time, "time", lambda: 0.0)
        states = []
        folder.mkdir()
        writer = ArchiveWriter(folder / "run.h5", probes=probes())
        for row in ROWS:
            writer.append(row)
            assert len(writer._spool._kept) < spool.FAN_IN  # what is joined is let go
            found = sorted(path for path in folder.rglob("*.h5") if path.is_file())
            states.append({path.name: path.read_bytes() for path in found})
        writer.close()
        states.append({"run.h5": (folder / "run.h5").read_bytes()})
    return states, [name for name in opened if name.endswith("-1.h5")]


def test_every_file_on_the_way_is_the_one_that_files_give(tmp_path, monkeypatch):
    found = {name: written(tmp_path / name, monkeypatch, size) for name, size in SIZES.items()}
    states = {name: state for name, (state, _) in found.items()}
    assert states["from memory"] == states["some"] == states["from files"]
    assert any("-8.h5" in name for state in states["some"] for name in state)  # parts were joined to a part, too
    opened = {name: len(parts) for name, (_, parts) in found.items()}
    assert opened["from memory"] == 0 < opened["some"] < opened["from files"] == len(ROWS)


def test_what_the_caller_does_to_its_arrays_is_not_seen(tmp_path, make):
    """What append has taken is what it was then, whatever memory it is joined from."""
    loss, values = np.array(0.5), make.measurements(3)
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(3, training_loss=loss, probes={"train": values}))
        loss[...] = 7.0
        for value in values.values():
            value[...] = -1.0
    with open_archive(tmp_path / "run.h5") as archive:
        assert make.same(archive[0], make.snapshot(3, training_loss=0.5, probes={"train": make.measurements(3)}))


@pytest.mark.parametrize("given", ["a part that is gone", "a part that is damaged"])
def test_a_part_that_is_lost_behind_the_writer_is_not_lost_to_it(tmp_path, make, given):
    """Another program removes or damages a part while the run goes on: the row is still known, and joined."""
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        for step in range(3):
            writer.append(make.snapshot(step))
        (part,) = (tmp_path / "run.h5.parts").glob("*1-1.h5")
        part.unlink() if "gone" in given else part.write_bytes(b"nothing")
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2]
        assert make.same(archive[1], make.snapshot(1))
