"""A model named on the command line as ``module:Class``; importing it runs its code, as ``python -m module`` would."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from kerneltrack.errors import TrackerError


def model_class(name: str) -> Any:
    """The class that ``module:Class`` names, looked for in the working directory first.

    Raises:
        TrackerError: the name has no colon, the module cannot be imported, or holds no such class.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise TrackerError("--model", expected="module:Class", got=name, remedy="For example mypackage.nets:MLP.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TrackerError(f"--model {name} cannot be imported", got=str(error)) from error
    return found
