"""Archives are written and read where the system lacks a call, or refuses it for this file.

Oracle: the snapshots that went in. Each archive module sees an ``os`` without the names that the system lacks, as its
Python does not have them either; a refusal is the system's own error number.
"""

from __future__ import annotations

import errno
import itertools
import os

import pytest

from kerneltrack.archive import (
    ArchiveWarning,
    ArchiveWriter,
    check,
    checking,
    durable,
    lock,
    merge,
    open_archive,
    pieces,
    publish,
    spool,
)
from kerneltrack.errors import ArchiveError, UnsafeArchiveError

MACOS = ("posix_fallocate", "posix_fadvise")
WINDOWS = (*MACOS, "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "pread", "pwrite")


class Lacking:
    """The module ``os`` without some of its names, and perhaps with another name of the system."""

    def __init__(self, names, name=os.name):
        self.names, self.name = names, name

    def __getattr__(self, name):
        if name in self.names:
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)


def without(monkeypatch, names):
    for module in (durable, lock, pieces):
        monkeypatch.setattr(module, "os", Lacking(names))


def refusing(monkeypatch, call, code):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refused)


def written(path, make, rows=20):
    given = [make.snapshot(step) for step in range(rows)]
    with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
        for snapshot in given:
            writer.append(snapshot)
    return given


def expect(path, given, make):
    with open_archive(path) as archive:
        assert all(itertools.starmap(make.same, zip(archive, given, strict=True)))


@pytest.mark.parametrize("names", [MACOS, WINDOWS], ids=["macos", "windows"])
def test_a_call_that_the_system_lacks(tmp_path, make, monkeypatch, names):
    without(monkeypatch, names)
    path = tmp_path / "run.h5"
    given = written(path, make)
    with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=19) as writer:
        given.append(make.snapshot(20))
        writer.append(given[-1])
        part = next(path.with_name("run.h5.parts").glob("*-1.h5"))
        image = part.read_bytes()
    part.parent.mkdir()
    part.write_bytes(image)
    assert merge(path) == 1
    publish(path, tmp_path / "public.h5", licence="CC-BY-4.0", authors="A", contact="a@example.org")
    for name in ("run.h5", "public.h5"):
        expect(tmp_path / name, given, make)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_reserve(tmp_path, make, monkeypatch, code):
    """EOPNOTSUPP from NFSv3 and musl, EINVAL from ZFS, ENOSYS from old kernels."""
    refusing(monkeypatch, "posix_fallocate", code)
    expect(tmp_path / "run.h5", written(tmp_path / "run.h5", make), make)


def test_a_file_system_that_cannot_flush_a_folder(tmp_path, make, monkeypatch):
    """EINVAL from network and FUSE file systems, for folders only."""

    def flush(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", flush)
    expect(tmp_path / "run.h5", written(tmp_path / "run.h5", make), make)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_full_or_broken_disk_is_still_told(tmp_path, make, monkeypatch, code):
    """Negative control: only "not offered" is passed over."""
    source = tmp_path / "run.h5"
    written(source, make, rows=2)
    refusing(monkeypatch, "posix_fallocate", code)
    with pytest.raises(ArchiveError, match=os.strerror(code)):
        publish(source, tmp_path / "public.h5", licence="CC-BY-4.0", authors="A", contact="a@example.org")
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_a_full_disk_is_told_by_the_write_where_nothing_can_be_reserved(tmp_path, make, monkeypatch):
    source = tmp_path / "run.h5"
    written(source, make, rows=2)
    without(monkeypatch, MACOS)
    refusing(monkeypatch, "pwrite", errno.ENOSPC)
    with pytest.raises(ArchiveError, match="No space left"):
        publish(source, tmp_path / "public.h5", licence="CC-BY-4.0", authors="A", contact="a@example.org")
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_links_are_refused_without_the_flag_too(tmp_path, make, monkeypatch):
    """Oracle: the refusal where the flag is there."""
    written(tmp_path / "run.h5", make, rows=2)
    folder = tmp_path / "run.h5.parts"
    folder.mkdir()
    (folder / "000000002-1.h5").symlink_to(tmp_path / "run.h5")
    for names in ((), WINDOWS):
        without(monkeypatch, names)
        with pytest.raises(UnsafeArchiveError, match="not a regular file"):
            open_archive(tmp_path / "run.h5")


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("import sys; sys.modules['resource'] = None", "no limits on memory and time"),
        ("import resource; del resource.RLIMIT_AS", "does not keep RLIMIT_AS"),
        ("import resource; resource.setrlimit = lambda *_: int('x')", "does not keep RLIMIT_CPU"),
    ],
    ids=["windows", "none on memory", "macos"],
)
def test_check_says_which_limits_the_system_does_not_keep(tmp_path, make, monkeypatch, system, said):
    """A good archive stays in order: what is missing is a note, not a problem."""
    path = tmp_path / "run.h5"
    written(path, make, rows=2)
    monkeypatch.setattr(checking, "_CHILD", f"{system}; {checking._CHILD}")
    found = check(path)
    assert {problem.severity for problem in found} == {"note"}
    assert any(said in problem.text for problem in found)


def test_no_namespace_in_proc(monkeypatch):
    """A container may hide it: the process is then told by host, boot and number."""

    def hidden(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(lock, "os", Lacking(()))
    monkeypatch.setattr(lock.os, "readlink", hidden, raising=False)
    assert lock.Owner.this_process().namespace == ""
    assert lock.Owner.this_process().pid == os.getpid()


def test_windows_is_told_what_is_not_supported_there(tmp_path, make, monkeypatch):
    """Writing warns, for a new archive and one that goes on; reading, checking and publishing are silent, as elsewhere."""
    given = written(tmp_path / "run.h5", make, rows=2)
    for module in (durable, lock, pieces, spool):
        monkeypatch.setattr(module, "os", Lacking(WINDOWS, "nt"))
    with pytest.warns(ArchiveWarning, match="on Windows writing is not supported"):
        ArchiveWriter(tmp_path / "other.h5", probes=[make.probe]).close()
    with pytest.warns(ArchiveWarning, match="Linux and macOS"):
        ArchiveWriter.resume(tmp_path / "run.h5", probes=[make.probe], resumed_from_step=1).close()
    publish(tmp_path / "run.h5", tmp_path / "public.h5", licence="CC-BY-4.0", authors="A", contact="a@example.org")
    expect(tmp_path / "run.h5", given, make)
    expect(tmp_path / "public.h5", given, make)


def test_no_signal_is_sent_on_windows(monkeypatch):
    """There ``os.kill(pid, 0)`` is Ctrl-C. A stranger's lock may name any process."""
    sent = []
    system = Lacking(WINDOWS, "nt")
    system.kill = lambda *words: sent.append(words)
    monkeypatch.setattr(lock, "os", system)
    monkeypatch.setattr(lock, "_facts", lambda pid: [])
    assert not lock._is_gone(4321, "17")
    assert sent == []
    system.name = "posix"
    assert not lock._is_gone(4321, "17")  # negative control: elsewhere it asks
    assert sent == [(4321, 0)]
