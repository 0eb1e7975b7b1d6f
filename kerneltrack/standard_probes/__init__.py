"""Probes that laboratories have in common: which samples of a known data set, and the fingerprint of their bytes. No data.

Two runs on one standard probe are comparable wherever they were made. The samples come from the reader's own copy of the data
set, and a copy with other bytes is refused. No torch: an archive's probe is recognised where torch is not installed.
"""

from __future__ import annotations

from .catalogue import catalogue, standard_name, standard_probe
from .entry import StandardProbe
from .reading import read

__all__ = ["StandardProbe", "catalogue", "read", "standard_name", "standard_probe"]
