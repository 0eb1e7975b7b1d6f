"""Measured: the arguments that say what a row means, and what an archive says of them to a run that goes on with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from kerneltrack import schedule as schedules
from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import ScheduleError, TrackerError
from kerneltrack.measurement import Eigenpairs, OutputChoice
from kerneltrack.ntk import Method
from kerneltrack.probe import Probe
from kerneltrack.schedule import Schedule
from kerneltrack.training import NAMES, ProbeLoss


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured, on what and when: arguments of the tracker, checked."""

    probe: int | Probe | dict[str, Any]
    probe_seed: int
    schedule: Schedule | dict[str, Schedule]
    observables: tuple[str, ...]
    output: OutputChoice
    gauge: GaugeChoice
    top_k: int
    loss: ProbeLoss | None
    method: Method
    forward: Callable[[Any, Any], Any] | None
    params: Callable[[str], bool] | tuple[str, ...] | None
    memory_budget: int | str | None
    eigenpairs: Eigenpairs

    @property
    def kernel_options(self) -> dict[str, Any]:
        """The options of an instrument, but for what is yet to be chosen."""
        names = ("top_k", "loss", "method", "forward", "params", "memory_budget", "eigenpairs")
        return {name: getattr(self, name) for name in names}

    @property
    def callables(self) -> dict[str, Any]:
        """The user's functions that decide what a number is, by argument."""
        found = {"output": self.output, "forward": self.forward, "loss": self.loss and self.loss.mean}
        return {name: value for name, value in found.items() if callable(value)}

    def taken_over(self, archive: Mapping[str, Any], given: Set[str]) -> Measured:
        """The same, with the archive's value of every argument that was not given.

        Args:
            archive: of :func:`.continuing.archive_of`.
            given: names of the arguments that were.

        Raises:
            TrackerError: an argument that no archive can hold (a function, a probe of one's own) was not given.
        """
        found: dict[str, Any] = {}
        for argument, read in _READ.items():
            if argument not in given:
                try:
                    found |= read(archive)
                except _NotHeld as held:
                    raise TrackerError(
                        f"{argument}= is not given, and the archive that this run goes on with cannot hold it",
                        expected=f"that of the archive: {held}",
                        remedy=f"Pass the same {argument}= again.",
                    ) from held
        return replace(self, **found)


class _NotHeld(Exception):  # nothing failed: the message is what the archive says instead
    pass


def _first(archive: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the first probe; what is read of them is the same for every probe."""
    found: Mapping[str, Any] = next(iter(archive["settings"].values()))
    return found


def _plain(argument: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def read(archive: Mapping[str, Any]) -> dict[str, Any]:
        settings = _first(archive)
        return {argument: settings[argument]} if argument in settings else {}

    return read


def _output(archive: Mapping[str, Any]) -> dict[str, Any]:
    if _first(archive).get("output") == "callable":
        raise _NotHeld("a callable")
    return _plain("output")(archive)


def _gauge(archive: Mapping[str, Any]) -> dict[str, Any]:
    return {"gauge": _first(archive).get("gauge", "raw")}  # archives from before there was one are raw


def _forward(archive: Mapping[str, Any]) -> dict[str, Any]:
    name = _first(archive).get("forward")
    if name is not None:
        raise _NotHeld(repr(name))
    return {"forward": None}


def _loss(archive: Mapping[str, Any]) -> dict[str, Any]:
    name = _first(archive).get("loss")
    if name is not None and name not in NAMES:
        raise _NotHeld(repr(name))
    return {"loss": None if name is None else ProbeLoss.of(name)}


def _params(archive: Mapping[str, Any]) -> dict[str, Any]:
    names = _first(archive).get("parameters")
    # A predicate, not names: some of them may have frozen since.
    return {"params": frozenset(names).__contains__ if isinstance(names, (list, tuple)) else None}


def _top_k(archive: Mapping[str, Any]) -> dict[str, Any]:
    stored = [settings["top_k"] for settings in archive["settings"].values() if "top_k" in settings]
    return {"top_k": max(stored)} if stored else {}  # of each probe it is at most the number of its modes


def _observables(archive: Mapping[str, Any]) -> dict[str, Any]:
    names = archive["run"].get("observables")
    return {} if names is None else {"observables": tuple(names)}


def _schedule(archive: Mapping[str, Any]) -> dict[str, Any]:
    texts = archive["run"].get("schedule")
    if not isinstance(texts, Mapping):
        return {}
    try:
        found = {name: schedules.read(text) for name, text in texts.items()}
    except ScheduleError as error:
        raise _NotHeld(", ".join(texts.values())) from error
    return {"schedule": found if len(set(texts.values())) > 1 else next(iter(found.values()))}


def _draws(archive: Mapping[str, Any]) -> dict[str, Mapping[str, Any]] | None:
    """How each probe was drawn from a loader; None where one was not."""
    identities = archive["identity"]
    drawn = all(isinstance(found, Mapping) and {"seed", "indices"} <= found.keys() for found in identities.values())
    named = all(re.match("train|val", name, re.IGNORECASE) for name in identities)
    return dict(identities) if drawn and named else None


def _probe(archive: Mapping[str, Any]) -> dict[str, Any]:
    draws = _draws(archive)
    if draws is None:
        raise _NotHeld(", ".join(map(repr, archive["identity"])))
    counts = {name: len(draw["indices"]) for name, draw in draws.items()}
    return {"probe": counts["train"] if list(counts) == ["train"] else counts}


def _probe_seed(archive: Mapping[str, Any]) -> dict[str, Any]:
    draws = _draws(archive)
    return {"probe_seed": int(next(iter(draws.values()))["seed"])} if draws else {}


_READ: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "probe": _probe,
    "probe_seed": _probe_seed,
    "schedule": _schedule,
    "observables": _observables,
    "output": _output,
    "gauge": _gauge,
    "top_k": _top_k,
    "loss": _loss,
    "method": _plain("method"),
    "forward": _forward,
    "params": _params,
    "eigenpairs": _plain("eigenpairs"),
}
