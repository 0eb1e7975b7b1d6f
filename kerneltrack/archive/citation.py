"""What a reader needs to cite a published archive: its licence, its authors, and where to write to them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kerneltrack.errors import ArchiveError

#: Something at a domain, as mail goes to; what is more exact refuses addresses that exist.
_ADDRESS = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def cited(licence: str, authors: str | Sequence[str], contact: str) -> dict[str, str]:
    """The root attributes of a published copy.

    Raises:
        ArchiveError: no licence of the SPDX list (or ``LicenseRef-…``), no name, or no e-mail address.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        known = str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression as error:
        raise ArchiveError(
            "the licence",
            expected="an SPDX identifier",
            got=repr(licence),
            remedy="For example CC-BY-4.0 or CC0-1.0; another one is called LicenseRef-NAME.",
        ) from error
    names = [name.strip() for name in ([authors] if isinstance(authors, str) else authors)]
    if not names or not all(names):
        raise ArchiveError("the authors", expected="their names", got=repr(authors), remedy="Name at least one.")
    if not _ADDRESS.fullmatch(contact.strip()):
        raise ArchiveError(
            "the contact",
            expected="an e-mail address",
            got=repr(contact),
            remedy="Give one that will be read, such as curie@example.org.",
        )
    return {"license": known, "creator_name": "; ".join(names), "creator_email": contact.strip()}
