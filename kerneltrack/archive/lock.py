"""One writer to an archive: a lock that names its owner, so that a dead owner's lock can be told from a living one's.

The lock is a folder with one file in it, moved into place by one ``rename``: it appears whole or not at all, on every
file system, network ones included, and no file-locking service is asked.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from kerneltrack.errors import ArchiveError

LOCK = "writer.lock"
_OWNER = "owner.json"


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
        namespace = os.readlink("/proc/self/ns/pid") if boot else ""
        return cls(socket.gethostname(), boot, namespace, os.getpid(), _start_time(os.getpid()), uuid.uuid4().hex)

    def is_dead(self) -> bool:
        """Whether the process is certainly gone; on another host, boot or process namespace nobody can tell."""
        here = Owner.this_process()
        if not self.boot or (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return False
        return _start_time(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def acquire(folder: Path) -> tuple[Owner, Owner | None]:
    """Take the lock in ``folder``; return this owner, and the dead one whose lock was broken, if any.

    Raises:
        ArchiveError: a process that may be alive holds it.
    """
    me, broken = Owner.this_process(), None
    staging = folder / f".lock-{me.token}"
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


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left of their attempts to take or give back the lock."""
    for name in os.listdir(folder):
        if name.startswith(".lock-"):
            try:
                left = Owner(**json.loads((folder / name / _OWNER).read_text()))
            except (OSError, ValueError, TypeError):
                continue
            if left.is_dead():
                _discard(folder / name)


def owner(folder: Path) -> Owner | None:
    """Who holds the lock in ``folder``, if anybody does.

    Raises:
        ArchiveError: the lock is there but does not say whose it is.
    """
    try:
        with open(folder / LOCK / _OWNER, "rb") as file:
            return Owner(**json.loads(file.read(4096)))
    except FileNotFoundError:
        if not os.path.lexists(folder / LOCK):
            return None
        raise _unreadable(folder) from None
    except (ValueError, TypeError, NotADirectoryError) as error:
        raise _unreadable(folder) from error


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
    aside = folder / f".lock-{uuid.uuid4().hex}"
    try:
        os.rename(folder / LOCK, aside)
    except FileNotFoundError:
        return False
    moved = json.loads((aside / _OWNER).read_text())
    if moved != asdict(dead):
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


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's clock ticks; "" if it is gone, a zombie, or the system does not say."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]
