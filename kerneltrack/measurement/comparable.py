"""Comparable: what may be set beside an earlier state when other parameters train than did then.

A layer that freezes, thaws, comes or goes changes what the kernel is of. Its distance to the kernel of other parameters
is no distance that training went: it is withheld, with what has changed. What belongs to the parameters that trained at
step 0 (their distance, the network linearised there) goes on as long as all of them are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kerneltrack.ntk import listed
from kerneltrack.observables import Observable, State
from kerneltrack.snapshot import Array

#: What compares two kernels needs one of these of an earlier state, and carries no function from one to the other.
_OF_KERNELS, _OF_FUNCTIONS = (
    frozenset({"spectrum", "matrix", "eigenvectors", "kernel"}),
    frozenset({"outputs", "targets"}),
)

#: Roundings of f that two evaluations of one network may differ by, on another device too.
_ROUNDINGS = 1e3


def of_other_parameters(entries: Iterable[Observable], state: State) -> dict[str, str]:
    """What would compare kernels of different parameters, by name, and why it is not to be measured."""
    found: dict[str, str] = {}
    initial = kernel_changed(state.settings, state.initial, "at step 0")
    changed = {
        "initial": initial,
        "previous": kernel_changed(state.settings, state.previous, "one snapshot ago"),
        "lagged": kernel_changed(state.settings, state.lagged, f"{state.settings.get('lag')} updates ago"),
    }
    for entry in entries:
        why = next((why for need, why in changed.items() if why and need in entry.needs), "")
        if why and entry.needs & _OF_KERNELS and not entry.needs & _OF_FUNCTIONS:
            found[entry.name] = why
    return found | ({"initial_basis": initial} if initial else {})


def kernel_changed(settings: Mapping[str, Any], other: State | None, when: str) -> str:
    """How the parameters that the kernel is of differ from those of another state; "" where they do not or it is unknown."""
    then = None if other is None else other.settings.get("parameters")
    now = settings.get("parameters")
    if then is None or now is None or set(then) == set(now):
        return ""
    lost, added = [n for n in then if n not in set(now)], [n for n in now if n not in set(then)]
    parts = [f"without {listed(lost)}"] * bool(lost) + [f"with {listed(added)}"] * bool(added)
    return f"the kernel is of other parameters than {when} ({', '.join(parts)})"


def withheld(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """``values``, those with one of the names as NaN."""
    return {**values, **{name: np.full(np.shape(values[name]), np.nan)[()] for name in names if name in values}}


def is_another_function(outputs: Array, then: Array, dtype: str) -> bool:
    """Whether outputs at the parameters of an earlier moment are not those of that moment.

    Then something else has moved (a frozen parameter, a module, the forward itself), and the network cannot be
    linearised where it was.
    """
    epsilon = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype.rpartition(".")[2], 2.0**-23)
    return not np.linalg.norm(outputs - then) <= _ROUNDINGS * epsilon * np.linalg.norm(then)
