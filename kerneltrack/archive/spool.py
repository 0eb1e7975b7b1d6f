"""The folder in which an archive's newest rows wait as parts, held by one process, and how parts become fewer.

Parts are joined geometrically, so that in the long run a row is copied O(log n) times: eight equal parts join into
one, and the main file is rewritten, beside the old one, when the parts have reached its size. The rows of parts that this
process has stored, and not joined yet, are joined from memory, as many as fit into KEPT_BYTES.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kerneltrack.archive import durable, joining, lock
from kerneltrack.archive.header import Header
from kerneltrack.archive.kept import Kept
from kerneltrack.archive.pieces import Piece, Source, list_parts, part_name, parts_folder
from kerneltrack.errors import ArchiveError

FAN_IN = 8
SPARE_BYTES = 1 << 24  # what joining leaves free, so that appending goes on
KEPT_BYTES = 1 << 24  # of rows in memory; of larger ones, reading takes most of the time, not opening

_UNTRIED = (
    "archives are written on Linux and macOS; on Windows writing is not supported: it is not tested there, and rows may "
    "be lost when the machine stops. Reading and analysis are for every system; to train, use WSL for instance"
)


class ArchiveWarning(UserWarning):
    """Something about an archive that loses nothing but that its owner should know."""


class Spool:
    """The parts of one archive, locked for this process until :meth:`release`.

    Attributes:
        path: the main file.
        folder: where the parts lie.
        owner: who holds the lock: this process.
        broken: the owner of a lock that was broken because its process is gone.

    Raises:
        ArchiveError: another process holds the lock, or the folder is a link.
        OSError: the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, parts_folder(path)
        if self.folder.is_symlink():
            raise ArchiveError("the folder for the archive's parts is a link", where=str(self.folder))
        durable.make_folder(self.folder)
        if os.name == "nt":
            warnings.warn(_UNTRIED, ArchiveWarning, stacklevel=4)
        try:
            self.owner, self.broken = lock.acquire(self.folder)
        except BaseException:
            self._remove_folder()
            raise
        durable.sweep(self.folder)
        lock.sweep(self.folder, self.owner)
        self._parts: list[tuple[Path, int]] = []
        self._kept: dict[Path, Kept] = {}
        self._main_rows = 0
        self._join_again_at = self._rewrite_again_at = 0  # rows that must wait before a failed attempt is made again

    def create_main(self, header: Header) -> None:
        """Put an empty archive in place, and forget the parts of what stood there."""
        stale = list_parts(self.path)
        self._write_main(header, [])
        self._remove(stale)

    def adopt(self, found: Sequence[Piece]) -> None:
        """Go on from the pieces that are there: the main file, then parts."""
        self._main_rows = found[0].rows
        self._parts = [(piece.path, piece.rows) for piece in found[1:]]

    def put(self, image: bytes, first: int, count: int, kept: Kept | None = None) -> None:
        """Store a part durably: ``count`` rows, 0 or 1, from index ``first`` on; ``kept`` is what it holds, if known."""
        path = self.folder / part_name(first, count)
        durable.put(path, image, workplace=self.folder)
        self._parts = [*(part for part in self._parts if part[0] != path), (path, count)]
        self._kept.pop(path, None)
        if kept is not None and kept.held + sum(other.held for other in self._kept.values()) <= KEPT_BYTES:
            self._kept[path] = kept

    def tidy(self, header: Header) -> None:
        """Join what has become due. A failure loses nothing: it is a warning, and put off.

        Where the main file cannot be rewritten (it is large and the disk nearly full), equal parts still join, so that
        parts stay few however long the run goes on: a reader opens every one of them.
        """
        waiting = sum(count for _, count in self._parts)
        if waiting >= max(self._main_rows, FAN_IN, self._rewrite_again_at) and self.join_all(header):
            return
        if waiting < self._join_again_at:
            return
        while len(self._parts) >= FAN_IN and len({count for _, count in self._parts[-FAN_IN:]}) == 1:
            if not self._attempt(self._join_equal):
                self._join_again_at = waiting + FAN_IN
                return

    def join_all(self, header: Header) -> bool:
        """Join every part into the main file, if that can be done now; whether it was."""
        if not self._parts or self._attempt(lambda: self.join_now(header)):
            self._rewrite_again_at = self._join_again_at = 0
            return True
        self._rewrite_again_at = 2 * sum(count for _, count in self._parts)
        return False

    def rewrite(self, header: Header) -> bool:
        """Join every part into the main file, which says this header also where there is none; whether it was done."""
        return self._attempt(lambda: self.join_now(header))

    def release(self) -> None:
        """Give the lock back, and remove the folder if nothing is left in it."""
        lock.release(self.folder, self.owner)
        self._remove_folder()

    def _attempt(self, joining: Callable[[], None]) -> bool:
        try:
            joining()
        except OSError as error:
            warnings.warn(
                f"the parts of {self.path} cannot be joined now: {error}. Nothing is lost: the archive is read with "
                "its parts, and they are joined later, or by `kerneltrack merge`.",
                ArchiveWarning,
                stacklevel=5,
            )
            return False
        return True

    def _join_equal(self) -> None:
        joined = self._parts[-FAN_IN:]
        first, total = joined[0][0].name.partition("-")[0], sum(count for _, count in joined)
        target = self.folder / part_name(int(first), total)
        with self._opened(path for path, _ in joined) as found:
            header = joining.merged_header(found)
            with durable.staged(target, workplace=self.folder, reserve=self._room(found)) as stream:
                joining.join(stream, header, found)
        self._parts[-FAN_IN:] = [(target, total)]
        self._remove(path for path, _ in joined)

    def join_now(self, header: Header) -> None:
        """Join every part into the main file.

        Raises:
            OSError: it cannot be done now; nothing is lost.
        """
        joined = [path for path, _ in self._parts]
        with self._opened([self.path, *joined]) as found:
            self._write_main(header, found)
        self._parts = []
        self._remove(joined)

    def _write_main(self, header: Header, found: Sequence[Source]) -> None:
        with durable.staged(self.path, workplace=self.folder, reserve=self._room(found)) as stream:
            rows = joining.join(stream, header, found)
        self._main_rows = rows

    def _room(self, found: Sequence[Source]) -> int:
        """Bytes that the joined file may need, if there is room for them and for the appends to come."""
        needed = sum(piece.size for piece in found)
        free = shutil.disk_usage(self.folder).free
        if found and free < needed + SPARE_BYTES:
            raise ArchiveError(
                "there is too little room on the disk", expected=f"{needed + SPARE_BYTES} bytes", got=f"{free} bytes"
            )
        return needed

    @contextmanager
    def _opened(self, paths: Iterable[Path]) -> Iterator[list[Source]]:
        """What the files hold, for the length of a ``with``: from memory what is there, else from the open file."""
        with ExitStack() as stack:
            found: list[Source] = []
            for path in paths:
                if path in self._kept:
                    found.append(self._kept[path])
                    continue
                piece = Piece(path, trusted=True)
                stack.callback(piece.close)
                found.append(piece)
            yield found

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove files whose rows stand elsewhere by now."""
        for path in paths:
            self._kept.pop(path, None)
            path.unlink(missing_ok=True)

    def _remove_folder(self) -> None:
        if not os.listdir(self.folder):
            self.folder.rmdir()
