"""What is measured from the command line: a model named as ``module:Class``, and how its kernel is looked at.

Importing the model runs its code, as ``python -m module`` would.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerneltrack import observables
from kerneltrack.errors import TrackerError
from kerneltrack.measurement import Instrument
from kerneltrack.probe import Probe
from kerneltrack.training import ProbeLoss


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


def instrument_for(probe: Path, loss: str | None, how: Mapping[str, Any]) -> Instrument:
    """The instrument that measures every default observable on a saved probe, as the tracker does.

    Args:
        probe: saved with ``Probe.save``.
        loss: its name, or None.
        how: arguments of :class:`kerneltrack.measurement.instrument.Instrument`: output, eigenpairs, top_k, memory_budget.
    """
    return Instrument(
        probe=Probe.load(probe),
        observables=observables.select("default"),
        loss=None if loss is None else ProbeLoss.of(loss),  # type: ignore[arg-type]  # checked by ProbeLoss.of
        **how,
    )
