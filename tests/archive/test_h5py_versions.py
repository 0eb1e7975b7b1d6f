"""Every h5py that setup.cfg admits writes an archive, not only the one that is installed.

Oracle: the snapshots that went in, bit for bit, and the file's own rows read with h5py alone. The second test does what
h5py below 3.16 does. With another h5py, which needs neither torch nor the analysis:

    pip install h5py==3.11.0 scipy pytest && PYTHONPATH=. python -m pytest tests/archive/test_h5py_versions.py
"""

from __future__ import annotations

import configparser
import gc
import itertools
import re
from pathlib import Path

import h5py
import numpy as np

from kerneltrack.archive import ArchiveWriter, check, merge, open_archive

ROWS = 40


def written(path, make):
    """Forty rows, a resume, five rows more, a killed writer's parts, and their merge; the snapshots that went in."""
    given = [make.snapshot(step) for step in range(ROWS + 6)]
    with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
        for snapshot in given[:ROWS]:
            writer.append(snapshot)
    with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=ROWS - 1) as writer:
        for snapshot in given[ROWS:]:
            writer.append(snapshot)
        part = max(path.with_name(f"{path.name}.parts").glob("*.h5"))
        image = part.read_bytes()
    folder = path.with_name(f"{path.name}.parts")
    folder.mkdir()
    (folder / part.name).write_bytes(image)
    assert merge(path) == 1
    return given


def expect(path, given, make):
    with open_archive(path) as archive:
        assert all(itertools.starmap(make.same, zip(archive, given, strict=True)))
    with h5py.File(path) as file:
        assert file["step"][:].tolist() == [snapshot.step for snapshot in given]
        stored = file["probes/train/eigenvalues"][:]
    assert np.array_equal(stored, [snapshot.probes["train"]["eigenvalues"] for snapshot in given])
    assert [problem for problem in check(path) if problem.severity == "problem"] == []


def test_an_archive_is_written_resumed_and_merged(tmp_path, make):
    expect(tmp_path / "run.h5", written(tmp_path / "run.h5", make), make)


def test_no_part_is_made_through_an_image_of_an_open_file(tmp_path, make, monkeypatch):
    """h5py below 3.16 raises this: its HDF5 gives the image of an open file a checksum that is not its own."""

    def refused(*_):
        raise ValueError("Not a file id (not a file id)")

    monkeypatch.setattr(h5py.h5f, "open_file_image", refused)
    expect(tmp_path / "run.h5", written(tmp_path / "run.h5", make), make)


def test_a_part_leaves_no_file_open(tmp_path, make):
    """A file in memory that stays open is a leak of its size for each append. Oracle: HDF5's own count."""
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        gc.collect()
        before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_ALL)
        for step in range(3):
            writer.append(make.snapshot(step))
        assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_ALL) == before


def test_the_bound_is_what_this_was_run_with():
    """setup.cfg admits nothing older than what the first test was seen to pass with, and this h5py is admitted."""
    options = configparser.ConfigParser()
    options.read(Path(__file__).parents[2] / "setup.cfg")
    bound = re.search(r"^h5py>=([\d.]+)$", options["options"]["install_requires"], re.M)[1]
    numbers = [tuple(map(int, re.findall(r"\d+", text)[:3])) for text in (bound, h5py.version.version)]
    assert numbers[0] >= (3, 11)
    assert numbers[0] <= numbers[1]
