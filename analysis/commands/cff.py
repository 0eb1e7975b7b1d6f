"""CITATION.cff of a published archive: how one cites a data set, in the Citation File Format 1.2.0."""

from __future__ import annotations

from datetime import UTC, datetime

from kerneltrack.archive import Archive

from ..text import quoted
from .card import is_identifier, title


def citation(archive: Archive, digest: str) -> str:
    """The text of the file; every value that is a text of the archive is quoted.

    Args:
        archive: the published copy, with its licence, authors and contact.
        digest: the SHA-256 of the copy.
    """
    attrs = archive.attrs
    licence, contact = str(attrs["license"]), str(attrs["creator_email"])
    authors = str(attrs["creator_name"]).split("; ")
    lines = [
        "cff-version: 1.2.0",
        "message: If you use these measurements, please cite them as below, and the software that made them.",
        "type: dataset",
        f"title: {quoted(title(archive))}",
        "authors:",
        *(f"  - name: {quoted(author)}" for author in authors),
        "contact:",
        f"  - name: {quoted(authors[0])}",
        f"    email: {quoted(contact)}",
        f"date-released: {datetime.now(UTC).date()}",
        *([f"license: {licence}"] if is_identifier(licence) else [f"# The licence is {quoted(licence)}."]),
        "# The identifier that a repository gives: replace NUMBER, and take the sign # away.",
        "# doi: 10.5281/zenodo.NUMBER",
        "identifiers:",
        "  - type: other",
        f"    value: {quoted('urn:uuid:' + str(attrs['archive_id']))}",
        "    description: the archive_id of the file",
        "  - type: other",
        f"    value: {quoted('sha256:' + digest)}",
        "    description: the checksum of the file",
        "references:",
        "  - type: software",
        "    title: kerneltrack",
        f"    notes: {quoted('written by ' + str(attrs['source']))}",
        "    authors:",
        "      - name: The kerneltrack developers",
    ]
    return "\n".join(lines) + "\n"
