"""A model that the command line names as ``module:Class``.

Importing the model runs its code, as ``python -m module`` would.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from rich.console import Console
from torch import nn

from kerneltrack.errors import TrackerError


def model_class(name: str) -> Any:
    """The class, or the function that builds a module, that ``module:Class`` names; the working directory comes first.

    Raises:
        TrackerError: the name has no colon, the module cannot be imported, or holds nothing of that name that builds one.
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
    if isinstance(found, nn.Module) or not callable(found):
        raise TrackerError(
            f"--model {name} builds no module",
            expected="a class, or a function without arguments",
            got=f"an object of type {type(found).__name__}",
            remedy="For example mypackage.nets:MLP.",
        )
    return found


def built(build: Any, name: str) -> nn.Module:
    """The module that ``build`` makes without arguments.

    Raises:
        TrackerError: something else.
    """
    module = build()
    if not isinstance(module, nn.Module):
        raise TrackerError(
            f"{name} builds no module",
            expected="a torch.nn.Module",
            got=f"an object of type {type(module).__name__}",
            remedy="Name a class of one, or a function that returns one.",
        )
    return module


def called(build: Any) -> str:
    """What a class or function is called; not everything that can be called has a name."""
    return str(getattr(build, "__qualname__", type(build).__qualname__))


def say(reason: str) -> None:
    """One line on standard error, where there is something to say: after what may fail, whose one line is the error."""
    if reason:
        Console(stderr=True).print(f"kerneltrack: {reason}", highlight=False, markup=False, soft_wrap=True)
