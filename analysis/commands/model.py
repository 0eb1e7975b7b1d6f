"""What is measured from the command line: a model named as ``module:Class``, and how its kernel is looked at.

Importing the model runs its code, as ``python -m module`` would.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from kerneltrack import observables
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Instrument, choose
from kerneltrack.probe import Probe
from kerneltrack.training import ProbeLoss


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


def instrument_for(probe: Path, loss: str | None, how: Mapping[str, Any]) -> Instrument:
    """The instrument that measures every default observable on a saved probe, as the tracker does.

    Args:
        probe: saved with ``Probe.save``.
        loss: its name, or None.
        how: arguments of :class:`kerneltrack.measurement.instrument.Instrument`: eigenpairs, top_k, memory_budget; and
            output and gauge, which :func:`settled` looks at.
    """
    return Instrument(
        probe=Probe.load(probe),
        observables=observables.select("default"),
        loss=None if loss is None else ProbeLoss.of(loss),  # type: ignore[arg-type]  # checked by ProbeLoss.of
        **{name: value for name, value in how.items() if name not in ("output", "gauge")},
    )


def settled(instrument: Instrument, module: nn.Module, how: Mapping[str, Any]) -> tuple[Instrument, str]:
    """The instrument with the kernel that the tracker would choose, and what was left open, for :func:`say`; "" for nothing.

    Args:
        instrument: of :func:`instrument_for`.
        module: the network, in eval mode.
        how: output and gauge; "auto" where one is missing.

    Raises:
        TrackerError: a kernel that says nothing under the loss, or a gauge that it does not have.
    """
    output, gauge = how.get("output", "auto"), how.get("gauge", "auto")
    points, outputs = len(instrument.probe), instrument.width(module)
    found = choose(output, gauge, instrument.loss, points=points, outputs=outputs)
    return replace(instrument, output=found.output, gauge=found.gauge), found.reason


def say(reason: str) -> None:
    """One line on standard error, where there is something to say: after what may fail, whose one line is the error."""
    if reason:
        Console(stderr=True).print(f"kerneltrack: {reason}", highlight=False, markup=False, soft_wrap=True)
