"""Forecast: the share of a run that measuring will take, and what would make it smaller."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kerneltrack.measurement.pace import Pace
from kerneltrack.measurement.pieces import Pieces
from kerneltrack.snapshot import Snapshot

#: A share of the run that nobody minds.
AFFORDABLE = 0.05
#: A remedy is named where it takes at least this part off the share.
WORTH_NAMING = 0.2
#: Updates, the first one left out, whose median is taken: of one or two, a slow one is half.
FEWEST_UPDATES = 3
#: Updates that are remembered: a share is told early in a run.
ENOUGH_UPDATES = 101


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What measuring will take of a run that goes on as it began.

    Attributes:
        share: of its wall time.
        remedies: argument, as it would be written → the share with it.
    """

    share: float
    remedies: Mapping[str, float]

    @property
    def is_affordable(self) -> bool:
        """Whether nothing need be said."""
        return self.share <= AFFORDABLE

    @property
    def worth_naming(self) -> dict[str, float]:
        """The remedies that help.

        ``eigenpairs="leading"`` leaves out every number that needs all modes: it is named only where it makes the run affordable
        and nothing else does.
        """
        helps = {name: share for name, share in self.remedies.items() if share <= (1 - WORTH_NAMING) * self.share}
        gentle = {name: share for name, share in helps.items() if not name.startswith("eigenpairs")}
        if any(share <= AFFORDABLE for share in gentle.values()):
            return gentle
        return {name: share for name, share in helps.items() if name in gentle or share <= AFFORDABLE}


@dataclass(frozen=True, kw_only=True)
class WholeState:
    """What a whole state takes.

    Attributes:
        seconds: of the one that took the least time.
        pieces: by probe.
    """

    seconds: float
    pieces: Mapping[str, Pieces]

    @classmethod
    def cheaper(cls, known: WholeState | None, row: Snapshot, pieces: Mapping[str, Pieces]) -> WholeState | None:
        """The same where the row took no less: the first state of a run is checked more than the others."""
        if row.status != "ok" or pieces.keys() != row.probes.keys():
            return known
        if known is not None and known.seconds <= row.snapshot_seconds:
            return known
        return cls(seconds=row.snapshot_seconds, pieces=pieces)


class UpdateTime:
    """Seconds of an update, from what a run's clock says at each.

    The first update sets things up and is left out. The median of the others is taken: the next few may be slow too, and so is one
    in which an epoch ends.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._began = False  # whether the first one is done
        self._each: list[float] = []

    def see(self, step: int, seconds: float) -> None:
        """The run is at this step after so many seconds without measuring."""
        if self._last is not None and step > self._last[0]:
            if self._began and len(self._each) < ENOUGH_UPDATES:
                self._each.append(max(seconds - self._last[1], 0.0) / (step - self._last[0]))
            self._began = True
        self._last = step, seconds

    @property
    def each(self) -> float | None:
        """Seconds; None before there are ``FEWEST_UPDATES`` to take the median of."""
        return statistics.median(self._each) if len(self._each) >= FEWEST_UPDATES else None


def forecast(
    state: WholeState, pace: Pace, update: float, trace_share: Callable[[str], float | None], light: float = 0.0
) -> Forecast | None:
    """What measuring will take of the run; None where its end is unknown.

    Args:
        state: what a whole one takes.
        pace: how many there will be.
        update: seconds of one.
        trace_share: probe → operations of its trace kernel over those of its own; asked for where it matters.
        light: seconds of a light state, where one was measured: what a triple's third state is asked for is in no whole one.
    """
    kernel = sum(pieces.seconds["kernel"] for pieces in state.pieces.values())

    beside = max(light - kernel, 0.0)

    def share(saved: float, kernel: float) -> float | None:
        return pace.share(max(state.seconds - saved, 0.0), kernel + beside, update)

    now = share(0.0, kernel)
    if now is None or now <= AFFORDABLE:
        return None if now is None else Forecast(share=now, remedies={})
    remedies = {}
    traces = {name: trace_share(name) for name in state.pieces}
    if any(traces.values()):
        saved = sum(state.pieces[name].saved_by_trace(ratio) for name, ratio in traces.items() if ratio is not None)
        remedies['output="trace"'] = share(saved, kernel * max(ratio or 0.0 for ratio in traces.values()))
    if leading := sum(pieces.saved_by_leading() for pieces in state.pieces.values()):
        remedies['eigenpairs="leading"'] = share(leading, kernel)
    return Forecast(share=now, remedies={name: found for name, found in remedies.items() if found is not None})
