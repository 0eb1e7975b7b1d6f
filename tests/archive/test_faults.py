"""Whatever the operating system refuses, nothing acknowledged is lost and the next append works.

Oracle: the list of snapshots whose append returned. The faults are put into every call that changes a file, one at a
time; a real file-size limit shows that HDF5 and the kernel behave as the injected faults do.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import types
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from kerneltrack.archive import ArchiveWarning, ArchiveWriter, check, merge, open_archive, publish
from kerneltrack.errors import ArchiveError

CALLS = ("open", "pwrite", "ftruncate", "posix_fallocate", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
NOBODY = 65534
FAILURES = {"full disk": errno.ENOSPC, "no permission": errno.EACCES, "broken disk": errno.EIO}


class Faults:
    """Let the n-th changing call of this process fail, and count them; of many writes in a row every 60th counts."""

    def __init__(self, monkeypatch, ending=None):
        self.count, self.fail_at, self.code, self.writes = 0, -1, errno.EIO, 0
        self.ending = ending
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, call):
        def counted(*arguments, **options):
            self.writes = self.writes + 1 if call.__name__ == "pwrite" else 0
            if (call.__name__ != "open" or arguments[1] & os.O_CREAT) and self.writes % 60 in (0, 1):
                self.count += 1
                self.last = call.__name__
                if self.count == self.fail_at and self.ending:
                    raise self.ending
                if self.count == self.fail_at:
                    raise OSError(self.code, os.strerror(self.code))
            return call(*arguments, **options)

        return counted

    def at(self, number, code):
        self.count, self.fail_at, self.code = 0, number, code


def outcome(action):
    """What an action's error says; "" if it did what it should."""
    try:
        action()
    except ArchiveError as error:
        return str(error)
    return ""


def steps_of(path):
    with open_archive(path) as archive:
        return archive.steps.tolist()


@pytest.mark.parametrize(
    ("before", "failure", "stride"),
    [
        (1, "full disk", 1),
        (7, "broken disk", 7),
        pytest.param(1, "no permission", 1, marks=pytest.mark.nightly),
        pytest.param(1, "broken disk", 1, marks=pytest.mark.nightly),
        pytest.param(7, "full disk", 1, marks=pytest.mark.nightly),
    ],
)
def test_every_call_of_an_append_may_fail(tmp_path, make, monkeypatch, before, failure, stride):
    """`before` rows are there already; the seventh's successor also joins them into the main file."""
    faults = Faults(monkeypatch)
    number, failed = 0, True
    while failed:
        number += stride
        path = tmp_path / f"{number}.h5"
        faults.at(-1, 0)
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            for step in range(before):
                writer.append(make.snapshot(step))
            acknowledged = list(range(before))
            faults.at(number, FAILURES[failure])
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", ArchiveWarning)
                said = outcome(lambda writer=writer: writer.append(make.snapshot(100)))
            if said:
                assert "cannot be stored" in said
                assert os.strerror(FAILURES[failure]) in said
            else:
                acknowledged.append(100)
            failed = faults.count >= number
            faults.at(-1, 0)
            assert set(steps_of(path)) >= set(acknowledged)
            writer.append(make.snapshot(101))
            assert [step for step in steps_of(path) if step != 100] == [*range(before), 101]
            assert bool(warned) == (failed and 100 in acknowledged)
        assert set(steps_of(path)) >= {*acknowledged, 101}
        with open_archive(path) as archive:
            assert all(make.same(snapshot, make.snapshot(snapshot.step)) for snapshot in archive)
    assert number > 6 if before == 1 else number > 18


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("stage", ["create", "close", "resume"])
def test_every_call_of_creating_closing_and_resuming_may_fail(tmp_path, make, monkeypatch, stage, stride):
    """What failed is done again; where the lock could not be given back, this very process still holds it."""
    faults = Faults(monkeypatch)
    number, failed = 0, True
    while failed:
        number += stride
        path = tmp_path / f"{number}.h5"

        def attempt(name, action, number=number):
            nonlocal failed
            faults.at(number if stage == name else -1, errno.ENOSPC)
            made = []
            said = outcome(lambda: made.append(action()))
            failed = faults.count >= number if stage == name else failed
            faults.at(-1, 0)
            assert not said or "No space left" in said
            return made[0] if made else None

        def create(replace, path=path):
            return ArchiveWriter(
                path, probes=[make.probe], provenance=make.run, if_exists="replace" if replace else "raise"
            )

        def resume(path=path):
            return ArchiveWriter.resume(path, probes=[make.probe], resumed_from_step=2)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ArchiveWarning)
            writer = attempt("create", lambda: create(False)) or create(True)
            for step in range(3):
                writer.append(make.snapshot(step))
            attempt("close", writer.close)
            lock = path.with_name(path.name + ".parts") / "writer.lock"
            if lock.exists():
                (lock / "owner.json").unlink()
            writer = attempt("resume", resume)
            if writer is None:
                writer = resume()
            writer.append(make.snapshot(3))
            writer.close()
        assert steps_of(path) == [0, 1, 2, 3]
    assert number > 6


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt], ids=["full disk", "interrupt"])
@pytest.mark.parametrize("command", ["ArchiveWriter", "publish"])
def test_no_empty_folder_is_left_where_nothing_could_be_made(tmp_path, make, monkeypatch, command, ending):
    """Whichever call fails, and when somebody interrupts. Oracle: a walk through what is there afterwards."""
    with ArchiveWriter(tmp_path / "run.h5", probes=[make.probe]) as writer:
        writer.append(make.snapshot(0))
    faults = Faults(monkeypatch, ending)
    for number in range(1, 60):
        target = tmp_path / str(number) / "new" / "x.h5"
        faults.at(number, errno.ENOSPC)
        try:
            if command == "publish":
                publish(writer.path, target, licence="CC0-1.0", authors="A", contact="a@example.org")
            else:
                ArchiveWriter(target, probes=[make.probe]).close()
        except (ArchiveError, KeyboardInterrupt):
            cleaning = faults.last == "rmdir"  # the last thing of all: the folder itself does not go
            faults.at(-1, 0)
            empty = [home for home, folders, files in os.walk(tmp_path) if not folders and not files]
            assert cleaning or not empty, number
        else:
            break
    assert faults.count < number
    assert number > 8  # so many were tried


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from kerneltrack.archive import ArchiveWriter, check, merge, open_archive, publish
from tests.archive import conftest
folder, number = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
write, calls, loud = os.pwrite, [], []
def interrupting(*given):
    calls.append(1)
    if loud and len(calls) == number:
        os.kill(os.getpid(), signal.SIGINT)
    return write(*given)
os.pwrite = interrupting
def interrupted(action):
    calls.clear(), loud.append(1)
    try:
        action()
    except KeyboardInterrupt:
        loud.clear()
        return 1
    loud.clear()
    return 0
writer, taken, times = ArchiveWriter(folder / "run.h5", probes=[conftest.PROBE]), 0, 0
for step in range(20):
    if interrupted(lambda: writer.append(conftest.snapshot(step))):
        times += 1
times += interrupted(writer.close)
writer.close()
assert not [found for found in check(folder / "run.h5") if found.severity == "problem"]
with open_archive(folder / "run.h5") as archive:
    steps = archive.steps.tolist()
    assert set(steps) <= set(range(20)) and len(steps) >= 20 - times, steps
number = 1
told = dict(licence="CC0-1.0", authors="A", contact="a@example.org")
gone = interrupted(lambda: publish(folder / "run.h5", folder / "new" / "p.h5", **told))
assert gone == 1 and not (folder / "new").exists(), gone
publish(folder / "run.h5", folder / "new" / "p.h5", **told)
print("times", times)
"""


@pytest.mark.parametrize("number", [1, pytest.param(4, marks=pytest.mark.nightly)])
def test_an_interrupt_in_the_midst_of_a_write(tmp_path, number):
    """A real SIGINT within HDF5's calls to us, in a process of its own: raised there it would end in a crash.

    Oracle: the rows that are there afterwards, and the exit code.
    """
    code = textwrap.dedent(INTERRUPTED)
    call = [sys.executable, "-c", code, str(tmp_path), str(number)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[1]) > 0


def test_a_full_disk_for_real(tmp_path):
    """The kernel's own limit on a file's size, in a process of its own: the join fails, the appends go on."""
    script = """
        import resource, sys, warnings
        import numpy as np
        from kerneltrack.archive import ArchiveWarning, ArchiveWriter, open_archive
        from kerneltrack.errors import ArchiveError
        from kerneltrack.snapshot import ProbeRecord, Snapshot
        path = sys.argv[1]
        probe = ProbeRecord(name="p", fingerprint="sha256:0", count=100)
        def snapshot(step, size):
            return Snapshot(step=step, probes={"p": {"eigenvalues": np.full(20000, float(step))}})
        writer = ArchiveWriter(path, probes=[probe])
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for step in range(20):
                writer.append(snapshot(step, 1))
        assert {str(w.category.__name__) for w in warned} == {"ArchiveWarning"}, warned
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            writer.append(snapshot(20, 1))
        except ArchiveError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        writer.append(snapshot(21, 1))
        writer.close()
        archive = open_archive(path)
        assert archive.steps.tolist() == [*range(20), 21]
        assert all((s.probes["p"]["eigenvalues"] == s.step).all() for s in archive)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(tmp_path / "run.h5")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be stored: got File too large" in done.stdout


@contextmanager
def ordinary_user(folder):
    """Work in ``folder`` as somebody whom permissions bind: root becomes nobody for a while."""
    if os.geteuid():
        yield
        return
    os.chown(folder, NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_revoked_permission_for_real(make):
    """Of the parts' folder: the append fails. Of the archive's own folder: joining is put off, and nothing fails."""
    with tempfile.TemporaryDirectory() as name, ordinary_user(name):
        path = Path(name) / "deep" / "run.h5"
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            writer.append(make.snapshot(0))
            writer._spool.folder.chmod(0o500)
            with pytest.raises(ArchiveError, match="cannot be stored: got Permission denied"):
                writer.append(make.snapshot(1))
            assert steps_of(path) == [0]
            writer._spool.folder.chmod(0o700)
            path.parent.chmod(0o500)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", ArchiveWarning)
                for step in range(2, 10):
                    writer.append(make.snapshot(step))
            assert ["cannot be joined now: [Errno 13] Permission denied" in str(each.message) for each in warned] == [
                True
            ]
            assert steps_of(path) == [0, *range(2, 10)]
            path.parent.chmod(0o700)
        assert steps_of(path) == [0, *range(2, 10)]
        assert [p.name for p in path.parent.iterdir()] == ["run.h5"]


IN_A_SMALL_FILE_SYSTEM = """
    mount -t tmpfs -o size=3m none "$1" && exec "$2" -W error -c "$3" "$1/run.h5"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="this system lets nobody mount a file system of their own",
)
def test_a_file_system_that_is_full(tmp_path):
    """A tmpfs of three megabytes is filled up: appends are refused one by one, then taken again once there is room."""
    script = """
        import sys, warnings
        import numpy as np
        from pathlib import Path
        from kerneltrack.archive import ArchiveWarning, ArchiveWriter, check, open_archive
        from kerneltrack.errors import ArchiveError
        from kerneltrack.snapshot import ProbeRecord, Snapshot
        path, ballast = Path(sys.argv[1]), Path(sys.argv[1]).with_name("ballast")
        ballast.write_bytes(bytes(1 << 20))
        writer = ArchiveWriter(path, probes=[ProbeRecord(name="p", fingerprint="sha256:0", count=100)])
        kept, refused = [], []
        warnings.simplefilter("ignore", ArchiveWarning)
        for step in range(32):
            try:
                writer.append(Snapshot(step=step, probes={"p": {"eigenvalues": np.full(16000, float(step))}}))
                kept.append(step)
            except ArchiveError as error:
                assert "No space left on device" in str(error), error
                refused.append(step)
            if refused and step % 6 == 0:
                assert open_archive(path).steps.tolist() == kept
            if len(refused) == 5:
                ballast.unlink(missing_ok=True)
        writer.close()
        archive = open_archive(path)
        assert archive.steps.tolist() == kept
        assert all((s.probes["p"]["eigenvalues"] == s.step).all() for s in archive)
        assert not [p for p in check(path) if p.severity == "problem"]
        assert min(refused) < max(kept), (kept, refused)
        print(len(kept), len(refused))
    """
    arguments = ["sh", str(tmp_path), sys.executable, textwrap.dedent(script)]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", IN_A_SMALL_FILE_SYSTEM, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_parts_stay_few_while_the_main_file_cannot_be_rewritten(tmp_path, make, monkeypatch):
    """A reader opens every part. Oracle: at most seven of each size 1, 8, 64 wait, whatever the main file costs."""
    path, most = tmp_path / "run.h5", 0

    def refused(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ArchiveWarning)
        patched.setattr("kerneltrack.archive.spool.Spool.join_now", refused)
        writer = ArchiveWriter(path, probes=[make.probe])
        for step in range(90):
            writer.append(make.snapshot(step))
            most = max(most, len(list(path.with_name("run.h5.parts").glob("0*.h5"))))
    assert most <= 7 * 3 + 1
    assert 0 < len(warned) < 10
    assert steps_of(path) == list(range(90))
    writer.close()
    assert not path.with_name("run.h5.parts").exists()
    assert steps_of(path) == list(range(90))


@pytest.mark.parametrize(
    "setting", ["TRUE", *(pytest.param(s, marks=pytest.mark.nightly) for s in ("FALSE", "BEST_EFFORT"))]
)
def test_hdf5_file_locks_are_never_asked_for(tmp_path, setting):
    """A file system without locks cannot matter: with flock failing, everything works, whatever HDF5 is told."""
    script = """
        import fcntl, sys
        from kerneltrack.archive import ArchiveWriter, open_archive
        from kerneltrack.snapshot import Snapshot
        holder = None
        with ArchiveWriter(sys.argv[1], probes=[]) as writer:
            for step in range(20):
                holder = open(sys.argv[1], "rb")
                fcntl.flock(holder, fcntl.LOCK_EX)  # whoever asked for a lock now would be refused
                writer.append(Snapshot(step=step))
                assert len(open_archive(sys.argv[1])) == step + 1
        assert len(open_archive(sys.argv[1])) == 20
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run.h5")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HDF5_USE_FILE_LOCKING": setting},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_too_little_room_puts_joining_off(tmp_path, make, monkeypatch):
    """Oracle: the parts that wait, and a merge once there is room."""
    path = tmp_path / "run.h5"
    writer = ArchiveWriter(path, probes=[make.probe])
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: Room)
        for step in range(10):
            with pytest.warns(ArchiveWarning, match="room.*Nothing is lost") if step == 7 else nullcontext():
                writer.append(make.snapshot(step))
        with pytest.warns(ArchiveWarning, match="too little room"):
            writer.close()
    assert steps_of(path) == list(range(10))
    assert [str(note) for note in check(path)] == [f"{path}: note: 10 parts wait to be joined (`kerneltrack merge`)"]
    assert merge(path) == 10
    assert not path.with_name("run.h5.parts").exists()
    assert check(path) == []
    assert steps_of(path) == list(range(10))
    assert merge(path) == 0


class Room:
    free = 1000


@pytest.mark.parametrize(("missing", "joined"), [(1, False), (0, True)])
def test_joining_leaves_room_for_the_appends_to_come(tmp_path, make, monkeypatch, missing, joined):
    """Oracle: the pieces' own sizes and the 16 MiB that stay free. Fails where the room of the joined file alone will do."""
    path = tmp_path / "run.h5"
    writer = ArchiveWriter(path, probes=[make.probe])
    for step in range(3):
        writer.append(make.snapshot(step))
    needed = path.stat().st_size + sum(part.stat().st_size for part in path.with_name("run.h5.parts").glob("*.h5"))
    room = types.SimpleNamespace(free=needed + 2**24 - missing)
    monkeypatch.setattr("shutil.disk_usage", lambda _: room)
    with (
        nullcontext()
        if joined
        else pytest.warns(ArchiveWarning, match=f"too little room.*expected {needed + 2**24} bytes")
    ):
        writer.close()
    assert path.with_name("run.h5.parts").exists() is not joined
    assert steps_of(path) == [0, 1, 2]


def test_an_exception_in_user_code_keeps_what_was_appended(tmp_path, make):
    path = tmp_path / "run.h5"

    def train():
        with ArchiveWriter(path, probes=[make.probe]) as writer:
            writer.append(make.snapshot(0))
            raise ZeroDivisionError("in the user's code")

    with pytest.raises(ZeroDivisionError, match="user's code"):
        train()
    assert steps_of(path) == [0]


def test_a_forked_child_neither_appends_nor_closes(tmp_path, make):
    """DataLoader workers inherit the writer. Oracle: the child's exit status, and the parent's next append."""
    path = tmp_path / "run.h5"
    writer = ArchiveWriter(path, probes=[make.probe])
    writer.append(make.snapshot(0))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            writer.append(make.snapshot(1))
        except ArchiveError as error:
            status = 0 if "belongs to another process" in str(error) else 2
        writer.close()
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    writer.append(make.snapshot(2))
    writer.close()
    assert steps_of(path) == [0, 2]
