"""References: the earlier states that a measurement is compared with, and how a checkpoint keeps them.

A run that is resumed goes on comparing with its first and its last measured state, and with the network as it was at step
0. A checkpoint holds them as plain values and tensors, which ``torch.load(weights_only=True)`` reads. Numbers come back bit
for bit; the eigensystem of a stored kernel is not stored but solved again, because its vectors are twice the size of the
kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import State
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import EigenSystem, eigensystem


@dataclass(frozen=True, kw_only=True)
class References:
    """What one measurement of a probe is compared with; whatever is not known is None.

    Attributes:
        start: the network's state at step 0.
        initial: the probe's state at step 0 of the same run.
        previous: the last state measured whole.
        lagged: the state Δ updates before this one, where it was the last one measured, whole or light.
        lag: Δ, updates between the run's first two states of the probe.
        layers: those of the first measurement; every later one has values for the same.
        path: step → the network's state, of the states of a triple before this one.
    """

    start: NetworkState | None = None
    initial: State | None = None
    previous: State | None = None
    lagged: State | None = None
    lag: int | None = None
    layers: Sequence[str] | None = None
    path: Mapping[int, NetworkState] = field(default_factory=dict)

    def placed(self, where: Any) -> References:
        """The same with the arrays of N² numbers of every state where another array lives."""
        states = {name: getattr(self, name) for name in ("initial", "previous", "lagged")}
        moved = {name: state.placed(where) for name, state in states.items() if state is not None}
        return dataclasses.replace(self, **moved)


class RunReferences:
    """The references of every probe of a run, kept as far as something is compared with them.

    Args:
        specifications: of every probe.
    """

    def __init__(self, specifications: Iterable[ProbeSpec]) -> None:
        wanted = {need for specification in specifications for need in specification.wanted}
        self._since_start = any(need.since_start for need in wanted)
        self._since_previous = any(need.name in ("previous", "lagged") for need in wanted)
        self._along_triples = any(need.name == "edge_mode" for need in wanted)
        self._start: NetworkState | None = None
        self._path: dict[int, NetworkState] = {}
        self._initial: dict[str, State] = {}
        self._previous: dict[str, State] = {}
        self._light: dict[str, State] = {}  # the light state with a kernel that came after it
        self._lags: dict[str, int] = {}
        self._layers: dict[str, list[str]] = {}

    def begin(self, module: nn.Module) -> None:
        """Keep θ_0, which ``module`` holds now, where something is measured since then."""
        if self._start is None and self._since_start:
            self._start = NetworkState.of(module)

    def pass_by(self, module: nn.Module, step: int, *, begins: bool) -> None:
        """Keep θ_t of the first two states of a triple, where something is measured of all three; and let go of them after it.

        Args:
            module: the network in this state.
            step: t.
            begins: whether a triple may begin with it.
        """
        if not self._along_triples:
            return
        goes_on = [*self._path] == [step - 1]
        kept = self._path if goes_on else {}
        self._path = {**kept, step: NetworkState.of(module)} if goes_on or begins else {}

    def of(self, probe: str, step: int) -> References:
        """What the measurement of a probe at that step is compared with."""
        previous, latest = self._previous.get(probe), self._light.get(probe, self._previous.get(probe))
        # A run that goes on measures the state that it ended with again: it is not the one before.
        previous, latest = (None if s is None or s.settings.get("step") == step else s for s in (previous, latest))
        gap = None if latest is None else step - int(latest.settings["step"])
        lag = self._lags.get(probe, gap)
        return References(
            start=self._start,
            initial=self._initial.get(probe),
            previous=previous,
            lagged=latest if gap == lag else None,
            lag=lag,
            layers=self._layers.get(probe),
            path=self._path,
        )

    def keep(self, probe: str, step: int, state: State, *, light: bool = False) -> None:
        """Compare what follows with ``state``, which was measured at that step; with a light one only at the run's lag."""
        self._layers.setdefault(probe, list(state.settings["layers"]))
        if "lag" in state.settings:
            self._lags.setdefault(probe, int(state.settings["lag"]))
        state = state.by_itself()  # here, where it is done once: the initial one is every later state's
        if light:
            if self._since_previous and state.kernel is not None:
                self._light[probe] = state
            return
        if step == 0:
            self._initial[probe] = state
        if self._since_previous:
            self._previous[probe] = state
            self._light.pop(probe, None)

    def state_dict(self) -> dict[str, Any]:
        """θ_0, the first and the last state of each probe, its lag and layers, and a triple's parameters, for a checkpoint."""
        return {
            "anchor": None if self._start is None else vars(self._start),
            "initial": {name: to_plain(state) for name, state in self._initial.items()},
            "previous": {name: to_plain(state) for name, state in self._previous.items()},
            "light": {name: to_plain(state) for name, state in self._light.items()},
            "lags": dict(self._lags),
            "layers": dict(self._layers),
            "path": [[step, vars(state)] for step, state in self._path.items()],
        }

    def load_state_dict(self, memory: Mapping[str, Any], device: torch.device, *, measures: bool) -> None:
        """Go on where :meth:`state_dict` was taken.

        Args:
            memory: what it gave, whatever else that holds.
            device: where θ_0 goes.
            measures: whether this process measures; one that only computes shares of kernels compares nothing.
        """
        known = memory.get("initial", {}) | memory.get("previous", {})
        self._layers = memory.get("layers") or {
            name: list(state["settings"]["layers"]) for name, state in known.items()
        }
        self._lags = dict(memory.get("lags", {}))
        if measures:
            start = memory.get("anchor")
            self._start = None if start is None else NetworkState(**start).to(device)
            path = {step: NetworkState(**state).to(device) for step, state in memory.get("path", [])}
            self._path = path if self._along_triples else {}
            self._initial = {name: from_plain(state) for name, state in memory.get("initial", {}).items()}
            self._previous = {name: from_plain(state) for name, state in memory.get("previous", {}).items()}
            self._light = {name: from_plain(state) for name, state in memory.get("light", {}).items()}


#: What a state knows of others is theirs to keep; what products told of it nobody asks again.
REFERENCES = ("initial", "previous", "lagged", "update", "estimates", "laplace", "edge_mode")


def to_plain(state: State) -> dict[str, Any]:
    """``state`` by itself, as plain values and CPU tensors."""
    others: dict[str, Any] = dict.fromkeys(REFERENCES)
    alone = dataclasses.replace(state, **others)
    state = alone.in_numpy
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in REFERENCES}
    pairs: EigenSystem = fields.pop("eigensystem")
    solved_again = pairs.complete and state.kernel is not None
    fields["eigensystem"] = None if solved_again else dataclasses.asdict(pairs)
    return {name: _plain(value) for name, value in fields.items()}


def from_plain(plain: Mapping[str, Any]) -> State:
    """The state that :func:`to_plain` was given."""
    fields = {name: _numpy(value) for name, value in plain.items()}
    pairs = fields.pop("eigensystem")
    # Kernels of half-precision networks are sums in float32.
    dtype = torch.float64 if str(fields["settings"].get("dtype", "float64")).endswith("float64") else torch.float32
    solved = eigensystem(torch.from_numpy(fields["kernel"]).to(dtype)) if pairs is None else EigenSystem(**pairs)
    return State(eigensystem=solved, **{**fields, "learning_rates": tuple(fields["learning_rates"])})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(_narrow(value))
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _narrow(array: Array) -> Array:
    """float64 as float32 where that loses nothing: most numbers come from a float32 network."""
    if array.dtype != np.float64:
        return array.copy()
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow, array, equal_nan=True) else array.copy()


def _numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        array = value.cpu().numpy()
        return array.astype(np.float64) if array.dtype == np.float32 else array
    if isinstance(value, Mapping):
        return {key: _numpy(entry) for key, entry in value.items()}
    return [_numpy(entry) for entry in value] if isinstance(value, list) else value
