"""Redaction: what of an archive's texts says who ran it and where. Used for the copies that are published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerneltrack import schema
from kerneltrack.archive import pieces, rows
from kerneltrack.archive.header import Header
from kerneltrack.archive.pieces import Piece
from kerneltrack.snapshot import Array, Json, Provenance

REMOVED = "<removed>"
#: Absolute paths of two parts or more, home folders, drives; not what follows a word (km/s) or a scheme (https://…).
_PATH = re.compile(
    r"(?<![\w/:.~>])(?:~\w*|/[\w.@+~-]+)(?:/[\w.@+~ -]*[\w.@+~-])+/?|\b[A-Za-z]:\\[^\s\"'<>|]+|\\\\\w[^\s\"'<>|]+"
)
_SHORTEST_NAME = 3  # a shorter user or host name would take other words with it


@dataclass(frozen=True)
class Redaction:
    """What must not be said: absolute paths, and the names of the host and the user as words of their own."""

    names: re.Pattern[str] | None

    @classmethod
    def of(cls, provenance: Provenance) -> Redaction:
        """The redaction that an archive's private provenance asks for."""
        given = (str(provenance.private.get(key) or "") for key in ("host", "user"))
        names = [re.escape(name) for name in given if len(name) >= _SHORTEST_NAME]
        return cls(re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)") if names else None)

    def text(self, text: str) -> str:
        """The text without paths and names."""
        without = _PATH.sub(REMOVED, text)
        return self.names.sub(REMOVED, without) if self.names else without

    def json(self, value: Json) -> Json:
        """A JSON value with every text in it redacted, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(item) for key, item in value.items()}
        return [self.json(item) for item in value] if isinstance(value, Sequence) else value

    def header(self, header: Header) -> tuple[Header, list[str]]:
        """A header without the private section and without private texts elsewhere, and where something was removed."""
        places: list[str] = []

        def told(place: str, value: Any) -> Any:
            clean = self.json(value)
            if clean != value:
                places.append(place)
            return clean

        attrs = {
            name: told(f"@{name}", value) if isinstance(value, str) else value for name, value in header.attrs.items()
        }
        provenance = replace(
            header.provenance,
            run=told("provenance/run", header.provenance.run),
            metadata=told("provenance/metadata", header.provenance.metadata),
            private={},
        )
        probes = {
            name: replace(
                record,
                identity=told(f"probes/{name}/identity", record.identity),
                settings=told(f"probes/{name}/settings", record.settings),
            )
            for name, record in header.probes.items()
        }
        return replace(header, attrs=attrs, provenance=provenance, probes=probes), places

    def messages(self, found: Sequence[Piece]) -> dict[str, dict[int, Array]]:
        """Rows whose message has to change, by column: the new message, and the row's new digest."""
        origin, place = pieces.row_map(found)
        changed: dict[str, dict[int, Array]] = {"message": {}, "content_sha256": {}}
        for row, (number, at) in enumerate(zip(origin.tolist(), place.tolist(), strict=True)):
            said = rows.untext(found[number].read("message", at, at + 1)[0])
            if self.text(said) != said:
                message = rows.text(self.text(said), schema.FIXED_SIZES["message_length"])
                changed["message"][row] = message
                changed["content_sha256"][row] = rows.digest({**found[number].row(at), "message": message})
        return changed
