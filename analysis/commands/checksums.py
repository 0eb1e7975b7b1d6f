"""SHA256SUMS, as ``sha256sum -c`` takes it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

#: What would end a line or hide in it; a line with such a name begins with a backslash, and the name has escapes.
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


def checksum(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums(digests: Mapping[str, str]) -> bytes:
    """One line a file, whose name is seen from the folder in which the file of sums stands: digest, two blanks, name.

    >>> sums({"run.h5": "ab"}).decode().splitlines()
    ['ab  run.h5']
    """
    return b"".join(_line(os.fsencode(name), digest.encode()) for name, digest in digests.items())


def _line(name: bytes, digest: bytes) -> bytes:
    escaped = name
    for character, escape in _ESCAPES.items():
        escaped = escaped.replace(character, escape)
    return (b"" if escaped == name else b"\\") + digest + b"  " + escaped + b"\n"
