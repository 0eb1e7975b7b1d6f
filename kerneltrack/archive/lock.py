"""One writer to an archive: a lock that names its owner, so that a dead owner's lock differs from a living one's.

The lock is a folder with one file in it, moved into place by one ``rename``: it appears whole or not at all, on every
file system, network ones included, and no file-locking service is asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from kerneltrack.archive.durable import open_to_read
from kerneltrack.errors import ArchiveError

LOCK = "writer.lock"
_OWNER = "owner.json"
_MAX_BYTES = 4096
_WORKPLACE = re.compile(r"\.lock-([0-9a-f]{16})-(\d{1,10})-(\d*)-[0-9a-f]{32}")


@dataclass(frozen=True)
class Owner:
    """A process, as far as another process can tell whether it lives: empty strings where the system does not say."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """The owner that this process is."""
        boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
        namespace = _link("/proc/self/ns/pid") if boot else ""
        return cls(socket.gethostname(), boot, namespace, os.getpid(), _start_time(os.getpid()), uuid.uuid4().hex)

    def is_dead(self) -> bool:
        """Whether the process is certainly gone; unknown on another host, boot or process namespace."""
        here = Owner.this_process()
        if not self.boot or (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return False
        return _is_gone(self.pid, self.started)

    def workplace(self) -> str:
        """A new name for a folder that only this process uses; it tells whose it is while nothing is in it yet."""
        return f".lock-{self._where()}-{self.pid}-{self.started}-{uuid.uuid4().hex}"

    def has_left(self, name: str) -> bool:
        """Whether a folder of that name was made by a process of this host and boot that is gone."""
        found = _WORKPLACE.fullmatch(name)
        return found is not None and found[1] == self._where() and _is_gone(int(found[2]), found[3])

    def _where(self) -> str:
        return hashlib.sha256(f"{self.host} {self.boot} {self.namespace}".encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def acquire(folder: Path) -> tuple[Owner, Owner | None]:
    """Take the lock in ``folder``; return this owner, and the dead one whose lock was broken, if any.

    Raises:
        ArchiveError: a process that may be alive holds it.
    """
    me, broken = Owner.this_process(), None
    staging = folder / me.workplace()
    staging.mkdir()
    (staging / _OWNER).write_text(json.dumps(asdict(me)))
    try:
        while not _rename(staging, folder / LOCK):
            holder = owner(folder)
            if holder is None:
                continue
            if not holder.is_dead():
                raise ArchiveError(
                    "another process is writing this archive",
                    got=str(holder),
                    where=str(folder),
                    remedy=f"If that process is gone, remove {folder / LOCK} and start again.",
                )
            if _break(folder, holder):
                broken = holder
    except BaseException:
        _discard(staging)
        raise
    return me, broken


def release(folder: Path, me: Owner) -> None:
    """Give the lock back, if it is still ours."""
    if owner(folder) == me:
        _break(folder, me)


def sweep(folder: Path, me: Owner) -> None:
    """Remove what processes that are gone left of their attempts to take or give back the lock."""
    for name in os.listdir(folder):
        if name.startswith(".lock-"):
            left = _stated(folder / name)
            if me.has_left(name) if left is None else left.is_dead():
                _discard(folder / name)


def owner(folder: Path) -> Owner | None:
    """The owner of the lock in ``folder``, if there is one.

    Raises:
        ArchiveError: the lock is there but does not say whose it is.
    """
    stated = _stated(folder / LOCK)
    if stated is None and os.path.lexists(folder / LOCK):
        stated = _stated(folder / LOCK)  # it may have come between the two looks
        if stated is None and os.path.lexists(folder / LOCK):
            raise _unreadable(folder)
    return stated


def _stated(lock: Path) -> Owner | None:
    """The owner that a lock names; None where it does not. A stranger's lock may hold anything, a pipe for instance."""
    try:
        descriptor = open_to_read(lock / _OWNER)
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        found = Owner(**json.loads(os.read(descriptor, _MAX_BYTES))) if regular else None
    except (ValueError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    if found is None:
        return None
    texts = (found.host, found.boot, found.namespace, found.started, found.token)
    return found if isinstance(found.pid, int) and all(isinstance(text, str) for text in texts) else None


def _unreadable(folder: Path) -> ArchiveError:
    return ArchiveError(
        "the archive is locked, but the lock does not say by whom",
        where=str(folder / LOCK),
        remedy="If no process writes this archive, remove the lock and start again.",
    )


def _rename(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    return True


def _break(folder: Path, dead: Owner) -> bool:
    """Move a dead owner's lock away; put it back if another process was quicker and the lock is already its own."""
    aside = folder / Owner.this_process().workplace()
    try:
        os.rename(folder / LOCK, aside)
    except FileNotFoundError:
        return False
    if _stated(aside) != dead:
        os.rename(aside, folder / LOCK)
        return False
    _discard(aside)
    return True


def _discard(lock: Path) -> None:
    (lock / _OWNER).unlink(missing_ok=True)
    lock.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's clock ticks; "" if it is gone, a zombie, or the system does not say."""
    fields = _facts(pid)
    return "" if not fields or _is_over(fields) else fields[19]


def _is_gone(pid: int, started: str) -> bool:
    """Whether no process of that number started then. Where /proc hides other users' processes, a signal tells."""
    if not started:
        return False
    fields = _facts(pid)
    return not _exists(pid) if not fields else _is_over(fields) or fields[19] != started


def _facts(pid: int) -> list[str]:
    """What /proc says of a process after its name, its state first; empty where it says nothing."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _is_over(fields: list[str]) -> bool:
    """Whether the process is a zombie: it has ended, and its parent has not asked how."""
    return fields[0] in "ZX"


def _exists(pid: int) -> bool:
    """Whether there is a process of that number, somebody else's too: to that one no signal may be sent (EPERM)."""
    if os.name == "nt":  # there the call would send Ctrl-C, or end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
