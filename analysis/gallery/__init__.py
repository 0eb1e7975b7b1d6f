"""The built-in figures, one file per question. Importing this package registers them, in the order of the report."""

from __future__ import annotations

import importlib

for _name in ("pictures", "functions", "alignment", "spectrum", "decay", "freeze", "motion", "classes"):
    importlib.import_module(f".{_name}", __name__)
