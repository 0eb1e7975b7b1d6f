"""What a tracker tells while it works: a row's scalars, a line at the start and one at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.console import Console

from kerneltrack.formatting import format_bytes
from kerneltrack.measurement import Forecast, SnapshotCost
from kerneltrack.schedule import OnLearningRateChange, Schedule
from kerneltrack.snapshot import Snapshot
from kerneltrack.training import ProbeLoss

#: Seconds after which a kernel that is still being computed shows how far it is.
PATIENCE = 5.0


def scalars(snapshot: Snapshot) -> dict[str, float]:
    """The finite scalars of a row: ``ntk/<name>``, or ``ntk/<probe>/<name>`` with several probes."""
    return {
        "/".join(["ntk", *([probe] if len(snapshot.probes) > 1 else []), name]): float(value)
        for probe, values in snapshot.probes.items()
        for name, value in values.items()
        if getattr(value, "ndim", 0) == 0 and math.isfinite(float(value))
    }


def before(cost: SnapshotCost, schedules: Mapping[str, Schedule]) -> str:
    """What a snapshot costs, said once, before the first update."""
    when = " and ".join(dict.fromkeys(str(schedule) for schedule in schedules.values()))
    peak = "" if cost.peak_bytes is None else f", {format_bytes(cost.peak_bytes)} of memory at its peak"
    line = f"one snapshot: {cost.seconds:.2f} s (the first){peak}, {format_bytes(cost.disk_bytes)} on disk; {when}"
    if cost.states is None:
        return line
    more = _around_steps(schedules.values())
    if not cost.light:
        return f"{line}: about {cost.states} in all, {cost.states * cost.seconds:.0f} s{more}"
    light = f"{cost.light} of them light (the kernel without its eigenpairs, outputs and scalars)"
    return f"{line}: about {cost.states} in all, {light}, at most {cost.states * cost.seconds:.0f} s{more}"


def _around_steps(schedules: Iterable[Schedule]) -> str:
    """What nobody can count beforehand: the states around steps of the learning rate."""
    found = [e for schedule in schedules for e in schedule.elements if isinstance(e, OnLearningRateChange)]
    states = max((len(element.after) for element in found), default=0)
    return f", and {states} around each step of the learning rate" if states else ""


def expensive(forecast: Forecast, goal: float = 0.05) -> str:
    """What measuring will take of the run, and what would make it less, each with its effect."""
    remedies = [f"{name} would make it about {_percent(share)}" for name, share in forecast.worth_naming.items()]
    found = ", ".join([*remedies, f"max_overhead={goal:g} keeps {_percent(goal)} with fewer snapshots"])
    return f"measuring takes about {_percent(forecast.share)} of this run; {found}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def after(rows: int, archive: object, seconds: float, total: float) -> str:
    """What was measured, and its share of the run."""
    share = 100 * seconds / max(total, 1e-9)
    return f"{rows} snapshots in {archive} ({seconds:.1f} s, {share:.1f} % of the run)"


def unseen_shift(loss: ProbeLoss | None) -> str:
    """What a callable loss that ignores one function added to all outputs makes of the numbers."""
    return (
        f"loss {'' if loss is None else loss.name} ignores one function added to all outputs, and every number but it and ρ "
        'depends on that function: gauge="softmax" takes it off'
    )


def say(line: str) -> None:
    """One line on standard error."""
    Console(stderr=True).print(f"kerneltrack: {line}", highlight=False, markup=False, soft_wrap=True)
