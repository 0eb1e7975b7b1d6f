"""A model that the command line names as ``module:Class``.

Importing the model runs its code, as ``python -m module`` would.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from torch import nn

from kerneltrack.errors import TrackerError

#: How what an option names is written, what it has to be, and an example.
_MODEL = "Class", "a class, or a function that builds a module", "For example mypackage.nets:MLP."
_FUNCTION = "function", "a function", "For example mypackage.nets:build."


@dataclass(frozen=True)
class Factory:
    """A function that builds a module: without arguments, or of a checkpoint's hyper-parameters where it takes one argument.

    Attributes:
        function: it.
    """

    function: Callable[..., Any]

    def given(self, values: Mapping[str, Any]) -> Callable[[], Any]:
        """The function with what it takes."""
        try:
            inspect.signature(self.function).bind()
        except TypeError:
            return partial(self.function, dict(values))
        except ValueError:  # a function of C may not say what it takes
            pass
        return self.function

    def __call__(self) -> Any:
        return self.given({})()


def builder(model: str | None, factory: str | None) -> Any:
    """What builds the module: the class or function of ``--model``, or the :class:`Factory` of ``--factory``.

    Raises:
        TrackerError: both or neither are given, or what is named cannot be imported.
    """
    if (model is None) == (factory is None):
        raise TrackerError(
            "--model or --factory",
            expected="one of them",
            got="neither" if model is None else "both",
            remedy="--model module:Class of a LightningModule, or --factory module:function that builds any module.",
        )
    return imported(model, "--model") if model is not None else Factory(imported(str(factory), "--factory"))


def imported(name: str, option: str) -> Any:
    """The class or function that ``module:name`` names; the working directory comes first.

    Args:
        name: as it was given.
        option: behind which; ``--model`` is of classes too.

    Raises:
        TrackerError: the name has no colon, the module cannot be imported, or what it names cannot be called.
    """
    kind, noun, example = _MODEL if option == "--model" else _FUNCTION
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise TrackerError(option, expected=f"module:{kind}", got=name, remedy=example)
    found = _looked_up(module, attribute, f"{option} {name}")
    if isinstance(found, nn.Module) or not callable(found):
        got = f"an object of type {type(found).__name__}"
        raise TrackerError(f"{option} {name}", expected=noun, got=got, remedy=example)
    return found


def _looked_up(module: str, attribute: str, asked: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise TrackerError(
            f"{asked} cannot be imported",
            got=str(error),
            remedy="It is looked for in the working directory, then where Python looks.",
        ) from error
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
    made = build.function if isinstance(build, Factory) else build
    return str(getattr(made, "__qualname__", type(made).__qualname__))


def say(reason: str) -> None:
    """One line on standard error, where there is something to say: after what may fail, whose one line is the error."""
    if reason:
        Console(stderr=True).print(f"kerneltrack: {reason}", highlight=False, markup=False, soft_wrap=True)
