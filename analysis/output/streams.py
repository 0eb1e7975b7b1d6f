"""Standard output and error as they come: of any encoding, and closed early by their reader.

A letter that the stream's encoding does not have is replaced. When the reader of a pipe has gone (``| head -1``), what is
still to come is dropped and the command ends with the exit code that it would have had.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from kerneltrack.errors import OutputError


@contextmanager
def patient() -> Iterator[None]:
    """Make the process's standard streams patient for the length of a block.

    Raises:
        OSError: standard output cannot be written: the disk is full.
    """
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Patient(stream)) if stream else stream for stream in kept)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()  # here, where a failure gets its message, not when the interpreter ends
        sys.stdout, sys.stderr = kept


def emit(data: bytes) -> None:
    """Bytes to standard output, as they are, behind what was printed before.

    Raises:
        OutputError: there is no standard output, or it takes text only.
        OSError: it cannot be written: the disk is full.
    """
    if sys.stdout is None:
        raise OutputError("there is no standard output")
    stream: Any = sys.stdout if isinstance(sys.stdout, _Patient) else _Patient(sys.stdout)
    stream.emit(data)


class _Patient:
    """A text stream that replaces what its encoding lacks, and drops what is no longer read."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._written(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self._written(text.encode(encoding, "replace").decode(encoding))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def emit(self, data: bytes) -> None:
        if not hasattr(self._stream, "buffer"):
            raise OutputError("standard output takes text only here", remedy="Give the name of a file.")
        try:
            self._stream.flush()
            self._stream.buffer.write(data)
            self._stream.buffer.flush()
        except OSError as error:
            self._drop(error)

    def _written(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def _drop(self, error: OSError) -> None:
        """Send what is buffered, and all that follows, nowhere: the interpreter flushes once more when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
