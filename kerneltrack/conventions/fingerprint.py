"""The fingerprint of a probe's bytes: two probes with one fingerprint have the same inputs and targets, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def fingerprint(entries: Iterable[tuple[str, str, tuple[int, ...], bytes]]) -> str:
    """The text "sha256:…" of (key, dtype, shape, bytes in C order), inputs as ``inputs/<key>`` and then ``targets``."""
    digest = hashlib.sha256()
    for key, dtype, shape, data in sorted(entries, key=lambda entry: entry[0]):
        digest.update(f"{key}\0{dtype}\0{shape}\0".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"
