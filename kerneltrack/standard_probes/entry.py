"""StandardProbe: one entry of the catalogue, as it stands in its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Reader = Literal["digits", "grid", "idx"]


@dataclass(frozen=True, kw_only=True)
class StandardProbe:
    """Which samples of which data set, and what their bytes must be.

    Attributes:
        name: of the probe, such as "digits-256".
        dataset: the data set's name.
        split: of the data set, or "" where it has none.
        reader: how a copy is read: "digits" from scikit-learn, "idx" files below a folder, "grid" from nothing.
        indices: of the samples in the split, ascending; empty for a grid.
        shape: of the whole split's inputs, (samples, …); of a grid (rows, columns).
        files: of "idx": the names of the file of images and that of labels, without ``.gz``.
        folders: of "idx": where other libraries put the files below ``root``.
        source: where a copy comes from.
        fingerprint: of the probe that :func:`kerneltrack.standard_probes.read` gives, "sha256:…"; "" in a draft.
    """

    name: str
    dataset: str
    reader: Reader
    split: str = ""
    indices: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    source: str = ""
    fingerprint: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Where the samples come from, as archives keep it."""
        known: dict[str, Any] = {"standard": self.name, "dataset": self.dataset}
        known |= {"split": self.split} if self.split else {}
        return known | ({"indices": list(self.indices)} if self.indices else {})

    def with_fingerprint(self, fingerprint: str) -> StandardProbe:
        """The entry of a draft whose samples were read from a real copy."""
        return replace(self, fingerprint=fingerprint)

    def to_json(self) -> str:
        """The text of the entry's file."""
        return json.dumps(asdict(self), indent=None) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StandardProbe:
        """Read :meth:`to_json`."""
        raw = json.loads(text)
        lists = {field.name: tuple(raw[field.name]) for field in fields(cls) if isinstance(raw[field.name], list)}
        return cls(**{**raw, **lists})
