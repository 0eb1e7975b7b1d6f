"""An archive holds its files open for as long as somebody can read from it, and no longer. Oracle: /proc/self/fd."""

from __future__ import annotations

import collections
import gc
import os
import pickle

import h5py
import pytest

from kerneltrack.archive import ArchiveWriter, check, merge, open_archive, publish
from kerneltrack.errors import ArchiveError
from tests.tiers import one_in


@pytest.fixture
def path(tmp_path, make):
    """Two archives of which the first has parts beside it."""
    for name in ("other.h5", "run.h5"):
        with ArchiveWriter(tmp_path / name, probes=[make.probe], provenance=make.run) as writer:
            for step in range(3):
                writer.append(make.snapshot(step))
    return tmp_path / "run.h5"


def damaged(path):
    bad = path.with_name("bad.h5")
    bad.write_bytes(path.read_bytes()[:-200])
    return bad


def refused(archive, index):
    with pytest.raises((ArchiveError, IndexError)):
        archive[index]


def half_way(archive):
    for _ in archive:
        raise ZeroDivisionError


def gone(path):
    with pytest.raises(ArchiveError):
        open_archive(path)


def interrupted(path):
    with pytest.raises(ZeroDivisionError):
        half_way(open_archive(path))


USES = {
    "opened": open_archive,
    "closed twice": lambda path: [archive := open_archive(path), archive.close(), archive.close()],
    "all read": lambda path: list(open_archive(path)),
    "one read": lambda path: next(iter(open_archive(path))),
    "left in the middle": interrupted,
    "a row that is not there": lambda path: refused(open_archive(path), 99),
    "labelled": lambda path: open_archive(path).to_xarray(),
    "labelled and read": lambda path: open_archive(path).to_xarray().load(),
    "written elsewhere": lambda path: (
        open_archive(path).to_xarray().to_netcdf(path.with_name("x.nc"), engine="h5netcdf")
    ),
    "pickled": lambda path: pickle.loads(pickle.dumps(open_archive(path))),
    "absent": lambda path: gone(path.with_name("none.h5")),
    "damaged": lambda path: gone(damaged(path)),
    "checked": check,
    "merged": merge,
    "published": lambda path: publish(path, path.with_name("p.h5"), licence="CC0-1.0", authors="A", contact="a@b.org"),
}


@pytest.mark.parametrize("use", one_in(2, USES))
def test_no_descriptor_is_left(path, use):
    """Without the collector of circles: what nobody refers to is given back at once."""
    USES[use](path)  # the first use of a library may open files of its own
    for name in ("x.nc", "p.h5"):
        path.with_name(name).unlink(missing_ok=True)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        USES[use](path)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_while_it_is_used_it_is_open(path, make):
    """Negative control: a reader keeps what it saw, though the file's name goes to another one."""
    before = len(os.listdir("/proc/self/fd"))
    labelled = open_archive(path).to_xarray()
    ArchiveWriter(path, probes=[make.probe], if_exists="replace").close()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert labelled.eigenvalues.values.tolist() == [
        make.measurements(step)["eigenvalues"].tolist() for step in range(3)
    ]
    del labelled
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_opening_opens_each_dataset_once(path, monkeypatch):
    """It took up to four times, most of the time of an opening. Oracle: the calls of h5py's ways to open one, counted."""
    opened = collections.Counter()

    def counted(original):
        def look(group, name, *rest, **options):
            found = original(group, name, *rest, **options)
            if isinstance(found, h5py.h5d.DatasetID):
                opened[h5py.h5i.get_name(found)] += 1
            return found

        return look

    with monkeypatch.context() as counting:
        for module in (h5py.h5o, h5py.h5d):
            counting.setattr(module, "open", counted(module.open))
        open_archive(path).close()
    every = set()
    with h5py.File(path) as file:
        file.visititems(lambda name, item: every.add(b"/" + name.encode()) if isinstance(item, h5py.Dataset) else None)
    assert opened == dict.fromkeys(every, 1)
    assert len(every) > 30
