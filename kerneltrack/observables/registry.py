"""The registry: which observables there are, what they need, and what they give on a state."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import to_numpy
from kerneltrack.observables import (
    activations,
    alignment,
    bayesian,
    classes,
    conjugate,
    decay,
    dynamics,
    estimates,
    layers,
    laziness,
    ledger,
    logistic,
    modes,
    motion,
    optimizer,
    oscillation,
    regression,
    sharpness,
    spectral,
    subspaces,
    target_alignment,
    training_mode,
    weighted,
    weights,
)
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.need import NEEDS
from kerneltrack.observables.observable import Observable
from kerneltrack.observables.optimizer import SPECTRUM_OF as OPTIMIZERS_KERNEL
from kerneltrack.observables.state import Array, State
from kerneltrack.observables.superseded import SUPERSEDED
from kerneltrack.schema import RESERVED

_CHAPTERS = (
    spectral, alignment, target_alignment, modes, motion, subspaces, layers, conjugate, classes, dynamics, sharpness, oscillation,
    training_mode, optimizer, laziness, weighted, weights, activations, regression, logistic, decay, ledger, estimates,
    bayesian,
)  # fmt: skip
_REGISTERED: dict[str, Observable] = {entry.name: entry for chapter in _CHAPTERS for entry in chapter.OBSERVABLES}

#: What an observable may extend over: the dimensions of a probe that belong to its points, outputs, modes and layers.
_DIMENSIONS = frozenset(
    {
        "sample",
        "sample_2",
        "output",
        "output_2",
        "kernel_output",
        "kernel_output_2",
        "mode",
        "coefficient",
        "energy_k",
        "layer",
    }
)


class Values(dict[str, "float | Array"]):
    """Observables by name; what could not be computed is NaN, and ``reasons`` says why.

    Attributes:
        reasons: name to one clause, for every NaN that stands for "not measured".
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}


def catalogue() -> Mapping[str, Observable]:
    """Every observable by name, the built-in ones first, then the registered ones in order."""
    return MappingProxyType(_REGISTERED)


def register(entry: Observable) -> Observable:
    """Add a user's own observable; every tracker, archive and export of this process knows it from now on.

    Registering the same object again changes nothing.

    Raises:
        ObservableError: the name is taken, is reserved by the archive's format, or is not a lower-case identifier of at
            most 64 characters; or a dimension is unknown.
    """
    if _REGISTERED.get(entry.name) is entry:
        return entry
    taken = {*_REGISTERED, *RESERVED, *SUPERSEDED, "default", "all"}
    if entry.name in taken:
        raise ObservableError("the name of an observable is taken", got=entry.name, remedy="Choose another name.")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", entry.name):
        raise ObservableError(
            "the name of an observable", expected="lower-case letters, digits and _, at most 64", got=repr(entry.name)
        )
    if unknown := [dim for dim in entry.dims if dim not in _DIMENSIONS]:
        raise ObservableError("a dimension of an observable", expected=f"one of {sorted(_DIMENSIONS)}", got=unknown)
    _REGISTERED[entry.name] = entry
    return entry


def select(names: str | Iterable[str]) -> tuple[Observable, ...]:
    """The chosen observables in the order of the catalogue, each once.

    Args:
        names: one name or several; "default" and "all" stand for sets and may be mixed with names. "all" leaves out the
            spectra of every kernel beside the archive's own but one: the one that is named beside it, else the optimizer's.

    Raises:
        ObservableError: a name that the catalogue does not know (the nearest ones are named), or names of the spectra of two
            kernels beside the archive's own.
    """
    asked = [names] if isinstance(names, str) else list(names)
    beside = _kernel_beside(asked)
    chosen: set[str] = set()
    for name in asked:
        if name == "all":
            chosen |= {entry.name for entry in _REGISTERED.values() if entry.spectrum_of in ("", beside)}
        elif name == "default":
            chosen |= {entry.name for entry in _REGISTERED.values() if entry.default}
        elif name in _REGISTERED:
            chosen.add(name)
        else:
            raise _unknown(name)
    return tuple(entry for entry in _REGISTERED.values() if entry.name in chosen)


def _kernel_beside(asked: Iterable[str]) -> str:
    """The one kernel beside the archive's own whose spectrum the names ask for; the optimizer's where they leave it open."""
    of = {name: _REGISTERED[name].spectrum_of for name in asked if name in _REGISTERED}
    kernels = sorted({kernel for kernel in of.values() if kernel})
    if len(kernels) > 1:
        named = {kernel: next(name for name, own in of.items() if own == kernel) for kernel in kernels}
        raise ObservableError(
            "spectra of more than two kernels in one archive",
            expected="those of the kernel itself, and of one beside it",
            got=" and ".join(f"{name!r} of {kernel}" for kernel, name in named.items()),
            where="observables=",
            remedy="Ask for one of them, and for the other in an archive of its own: a second tracker in the same run.",
        )
    return kernels[0] if kernels else OPTIMIZERS_KERNEL


def _unknown(name: object) -> ObservableError:
    if isinstance(name, str) and name in SUPERSEDED:
        after = SUPERSEDED[name]
        return ObservableError(
            "the observable is superseded",
            expected=" or ".join(after.by),
            got=repr(name),
            remedy=f"Ask for {after.by[0]!r}: {after.reason}.",
        )
    plain = (n for n in _REGISTERED if str(name) in n and not n.endswith("_null"))
    holding = sorted(plain, key=lambda n: (not _REGISTERED[n].default, len(n)))
    nearest = holding[:3] or difflib.get_close_matches(str(name), _REGISTERED, n=3) or ["default", "all"]
    return ObservableError(
        "unknown observable",
        expected=f"a name of the catalogue, for instance {', '.join(nearest)}",
        got=repr(name),
        remedy="kerneltrack.observables.catalogue() lists them all.",
    )


def needs(selected: Iterable[Observable]) -> frozenset[str]:
    """Everything that must be measured for the chosen observables."""
    return frozenset(need for entry in selected for need in entry.needs)


def compute(selected: Sequence[Observable], state: State, *, only: Collection[str] | None = None) -> Values:
    """The chosen observables on a state.

    What needs the update is computed in a second call, once the state has it; then ``only={"update"}`` leaves the
    others alone.

    Args:
        selected: what :func:`select` chose.
        state: what was measured.
        only: compute only the observables that need one of these.

    Returns:
        One entry per observable: a float, or an array over its ``dims``. NaN with a reason where it does not exist.
    """
    values = Values()
    with state.sharing():
        for entry in selected:
            if only is not None and not entry.needs & set(only):
                continue
            try:
                _check_needs(entry, state)
                value = entry.compute(state if entry.anywhere else state.in_numpy)
            except ObservableError as error:
                value = np.full(_shape(entry, state), np.nan)
                values.reasons[entry.name] = str(error)
            values[entry.name] = _shaped(entry, value, state)
    return values


def _check_needs(entry: Observable, state: State) -> None:
    if missing := sorted(name for name in entry.needs if not NEEDS[name].is_met(state)):
        raise ObservableError(f"not measured: {', '.join(missing)}")


def _shaped(entry: Observable, value: object, state: State) -> float | Array:
    array = to_numpy(value).astype(np.float64, copy=False)
    decay = _shape(entry, state)
    if array.shape != decay:
        raise ObservableError(
            f"the shape of observable {entry.name!r}", expected=f"{decay}, as dims {entry.dims} say", got=array.shape
        )
    return array if entry.dims else float(array)


def _shape(entry: Observable, state: State) -> tuple[int, ...]:
    return tuple(_SIZES[dim](state) for dim in entry.dims)


#: Dimension → how long it is in a state.
_SIZES: dict[str, Callable[[State], int]] = {
    "sample": lambda s: s.samples,
    "sample_2": lambda s: s.samples,
    "output": lambda s: s.network_outputs,
    "output_2": lambda s: s.network_outputs,
    "kernel_output": lambda s: s.kernel_outputs,
    "kernel_output_2": lambda s: 1 if s.reduction == "diagonal" else s.kernel_outputs,
    "mode": lambda s: len(s.eigensystem.values),
    "coefficient": lambda s: int(s.outputs.shape[1]) if s.reduction == "trace" else 1,
    "energy_k": lambda s: len(energy_k(len(s.eigensystem.values))),
    "layer": lambda s: len(s.settings.get("layers", s.layer_traces or ())),
}
