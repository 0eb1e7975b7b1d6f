"""Lightning has two import roots: ``pytorch_lightning`` and ``lightning.pytorch``, each with a ``Callback`` of its own.

A callback that derives from both is accepted everywhere, bare, in a list and from YAML. Importing the second root only
to subclass it would double the import time, so a root counts when it is loaded already; where none is, the first that
is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

from kerneltrack.errors import missing_package

ROOTS = ("pytorch_lightning", "lightning.pytorch")


def callback_bases() -> tuple[type, ...]:
    """The ``Callback`` class of each root that is loaded, or of the first root installed.

    Raises:
        MissingPackageError: neither is installed.
    """
    loaded = [root for root in ROOTS if root in sys.modules]
    names = loaded or [root for root in ROOTS if importlib.util.find_spec(root.partition(".")[0])][:1]
    if not names:
        raise missing_package(ModuleNotFoundError("no Lightning", name="pytorch_lightning"))
    return tuple(importlib.import_module(f"{name}.callbacks").Callback for name in names)
