"""One writer at a time; a dead one's lock is broken, a living one's never. Oracle: real processes, alive and dead."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest

from kerneltrack.archive import ArchiveWriter, check, lock, open_archive
from kerneltrack.errors import ArchiveError


def leave_a_lock(path, owner):
    """What a process of that owner leaves behind when it is killed."""
    folder = path.with_name(path.name + ".parts") / lock.LOCK
    folder.mkdir(parents=True)
    (folder / "owner.json").write_text(json.dumps(asdict(owner)))


@pytest.fixture
def path(tmp_path, make):
    path = tmp_path / "run.h5"
    with ArchiveWriter(path, probes=[make.probe], provenance=make.run) as writer:
        writer.append(make.snapshot(0))
    return path


@pytest.fixture
def dead():
    """The owner that a process was which is gone now."""
    pipe, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, json.dumps(asdict(lock.Owner.this_process())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    data = os.read(pipe, 4096)
    os.close(pipe)
    os.close(theirs)
    return lock.Owner(**json.loads(data))


def test_a_second_writer_is_refused_and_the_first_goes_on(path, make):
    with ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0) as writer:
        with pytest.raises(
            ArchiveError, match=rf"another process is writing.*process {os.getpid()} on .*remove .*lock"
        ):
            ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)
        with pytest.raises(ArchiveError, match="another process is writing"):
            ArchiveWriter(path, probes=[make.probe], if_exists="replace")
        assert any(f"process {os.getpid()}" in str(note) and note.severity == "note" for note in check(path))
        writer.append(make.snapshot(1))
    assert open_archive(path).steps.tolist() == [0, 1]


def test_a_dead_writers_lock_is_broken_and_that_is_recorded(path, make, dead):
    leave_a_lock(path, dead)
    assert dead.is_dead()
    assert [note.severity for note in check(path)] == ["note"]
    assert "is gone" in str(check(path)[0])
    ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0).close()
    with open_archive(path) as archive:
        assert f"the lock of a writer that is gone (process {dead.pid}) was broken" in archive.attrs["history"]
    assert not path.with_name("run.h5.parts").exists()


@pytest.mark.parametrize(
    "elsewhere", [{"host": "another"}, {"boot": "another"}, {"namespace": "another"}, {"boot": ""}]
)
def test_what_cannot_be_known_counts_as_alive(path, make, dead, elsewhere):
    leave_a_lock(path, replace(dead, **elsewhere))
    with pytest.raises(ArchiveError, match="another process is writing"):
        ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)


def test_a_new_process_with_an_old_number_is_not_the_owner(path, make):
    """The number is this living process's, the start time is not: the owner is gone."""
    leave_a_lock(path, replace(lock.Owner.this_process(), started="1"))
    ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0).close()


@pytest.mark.parametrize("whose", ["another user's", "our own", "nobody's"])
def test_a_process_that_proc_hides_is_alive_if_it_is(path, make, dead, monkeypatch, whose):
    """/proc mounted with hidepid shows nothing of other users' processes. Oracle: what kill(2) says of a real one.

    Negative control: of a process that is gone nothing is shown either, and its lock is broken.
    """
    read = lock._read
    monkeypatch.setattr(lock, "_read", lambda file: "" if str(file).endswith("/stat") else read(file))
    if whose == "nobody's":
        assert dead.is_dead()
        return
    owner = replace(dead, pid=1 if whose == "another user's" else os.getpid())
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.seteuid(65534)  # to root no signal is refused
        os._exit(3 if owner.is_dead() else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    leave_a_lock(path, owner)
    with pytest.raises(ArchiveError, match="another process is writing"):
        ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)


def test_a_lock_that_says_nothing_is_not_broken(path, make):
    leave_a_lock(path, lock.Owner.this_process())
    (path.with_name("run.h5.parts") / lock.LOCK / "owner.json").write_text("{}")
    with pytest.raises(ArchiveError, match="does not say by whom"):
        ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)
    assert "does not say by whom" in str(check(path)[0])


def test_an_empty_lock_is_what_a_killed_attempt_left(path, make):
    (path.with_name("run.h5.parts") / lock.LOCK).mkdir(parents=True)
    ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0).close()


def test_breaking_does_not_take_a_quicker_ones_lock(path, dead):
    """Two processes judge one lock dead; the slower one finds the quicker one's lock in its place."""
    leave_a_lock(path, lock.Owner.this_process())
    folder = path.with_name("run.h5.parts")
    assert not lock._break(folder, dead)
    assert lock.owner(folder).pid == os.getpid()


@pytest.mark.parametrize("left", ["", '{"host": "ha'], ids=["empty", "half"])
def test_what_a_killed_attempt_left_is_swept_away(path, make, left):
    """A process is killed between making its folder and saying whose it is. A living one's is left alone."""
    folder = path.with_name("run.h5.parts")
    folder.mkdir()
    mine = folder / lock.Owner.this_process().workplace()
    pipe, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, lock.Owner.this_process().workplace().encode())
        os._exit(0)
    os.waitpid(child, 0)
    gone = folder / os.read(pipe, 4096).decode()
    os.close(pipe)
    os.close(theirs)
    for each in (mine, gone):
        each.mkdir()
        (each / "owner.json").write_text(left)
    ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0).close()
    assert [p.name for p in folder.iterdir()] == [mine.name]


@pytest.mark.parametrize("kind", ["pipe", "link", "types", "nested", "folder"])
def test_a_strangers_lock_is_looked_at_without_harm(path, make, tmp_path, kind):
    """A pipe would block for ever, a link lead elsewhere, a process number of "../x" into another folder."""
    owner = path.with_name("run.h5.parts") / lock.LOCK / "owner.json"
    owner.parent.mkdir(parents=True)
    said = json.dumps(asdict(lock.Owner.this_process()))
    if kind == "pipe":
        os.mkfifo(owner)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text(said)
        owner.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        owner.mkdir()
    else:
        owner.write_text("[" * 4000 if kind == "nested" else said.replace(str(os.getpid()), '"../self"'))
    assert ["does not say by whom" in str(note) for note in check(path)] == [True]
    with pytest.raises(ArchiveError, match="does not say by whom"):
        ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=0)
    assert len(open_archive(path)) == 1
