"""Files that survive: a name either holds all of its bytes, on the disk, or what it held before.

Every change that the archive makes to a file system goes through the few functions here, in the order temporary file,
``fsync``, ``os.replace``, ``fsync`` of the folder. Only then are the bytes reported safe.

Systems differ in what they offer: macOS has no ``posix_fallocate``, NFSv3 and musl refuse it, Windows has no flags
against links and pipes. What only makes a write safer earlier is left out there; what a reader needs is done otherwise.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}")
#: How systems say that they do not offer a call for this file. A full disk, a missing right and a broken disk are none.
_NOT_OFFERED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV, errno.ENOTTY})


class Stream:
    """A file descriptor as the random-access file object that HDF5 writes to.

    HDF5 cannot close a file whose driver fails, and takes the process down when it ends; so a failed write is kept in
    ``error``, whatever failed, and the rest of the file is discarded until HDF5 is out of the way.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.position = 0
        self.end = 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.end}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        size = self.end - self.position if size < 0 else size
        data = _read_at(self.descriptor, size, self.position)
        self.position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer)
        data = self.read(view.nbytes)
        view.cast("B")[: len(data)] = data
        return len(data)

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < view.nbytes:
            try:
                done += _write_at(self.descriptor, view[done:], self.position + done)
            except BaseException as error:  # noqa: BLE001  # raised by staged, when HDF5 is out of the way
                self.error = error
        self.position += view.nbytes
        self.end = max(self.end, self.position)
        return view.nbytes

    def truncate(self, size: int | None = None) -> int:
        self.end = self.position if size is None else size
        return self.end

    def flush(self) -> None:
        """Nothing is buffered here; durability is :func:`staged`'s business."""


@contextmanager
def staged(path: Path, *, workplace: Path, reserve: int = 0) -> Iterator[Stream]:
    """Write a file aside and put it in its place when it is whole and on the disk.

    Args:
        path: the name that the file gets in the end; what stood there is replaced.
        workplace: folder of the same file system in which the file is written.
        reserve: bytes to claim from the file system before the first one is written.

    Raises:
        OSError: the disk is full, the folder is read-only, …; ``path`` is as it was and the temporary file is gone.
    """
    temporary = workplace / f".tmp-{uuid.uuid4().hex}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_BINARY"), 0o666)
    try:
        try:
            _claim(descriptor, reserve)
            stream = Stream(descriptor)
            yield stream
            if stream.error is not None:
                raise stream.error
            os.ftruncate(descriptor, stream.end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put(path: Path, data: bytes, *, workplace: Path) -> None:
    """Put a file of these bytes at ``path``, durably."""
    with staged(path, workplace=workplace) as stream:
        stream.write(data)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that they are still there after a loss of power."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        try:
            sync_folder(folder.parent)
        except BaseException:
            if not os.listdir(folder):
                folder.rmdir()
            raise


@contextmanager
def uninterrupted(stream: Stream) -> Iterator[None]:
    """Ctrl-C waits for the end of the block, in which HDF5 writes to ``stream``: raised in there, it takes the process down.

    Nothing more is written then, so that the end is near. Other threads are not interrupted anyway.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    waiting: list[FrameType | None] = []

    def wait(number: int, frame: FrameType | None) -> None:
        waiting.append(frame)
        if handler is signal.default_int_handler:
            stream.error = KeyboardInterrupt()

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(signal.SIGINT, waiting[-1])


@contextmanager
def folders_for(path: Path, *, flush: bool = True) -> Iterator[None]:
    """Make the folders that a file needs; those that were made, and are empty, are gone again if the block fails.

    Args:
        path: of the file.
        flush: whether the folders are on the disk before the block begins.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        if flush:
            make_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not os.listdir(folder):
                folder.rmdir()
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system knows how: Windows opens no folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)


def open_to_read(path: Path) -> int:
    """A descriptor of a file that is no link; a pipe does not block.

    Raises:
        OSError: with ``errno.ELOOP`` for a link.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return os.open(path, os.O_RDONLY | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY"))


def _flag(name: str) -> int:
    """A flag of ``os.open``; nothing where the system does not have it."""
    return int(getattr(os, name, 0))


def _claim(descriptor: int, size: int) -> None:
    """Claim bytes from the file system, if it can: a full disk is then known before the first byte is written.

    Where it cannot, the write itself says that the disk is full, a little later.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def _read_at(descriptor: int, size: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.read(descriptor, size)


def _write_at(descriptor: int, data: memoryview, position: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, position)
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.write(descriptor, data)


def sweep(folder: Path) -> None:
    """Remove what dead writers left half-written; only for the holder of the archive's lock."""
    for name in os.listdir(folder):
        if TEMPORARY.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
