"""What a notebook shows of a run and of several: a small table each. It is told of a run by those who know what one is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..text import count, number

#: Last values that are shown, where they are stored.
LAST = ("probe_loss", "stability_ratio", "kernel_target_alignment", "kernel_distance_from_initial", "effective_rank")
#: Runs that are shown one by one.
ROWS = 20


def run_html(run: Any) -> str:
    """The run's facts and its last values."""
    from kerneltrack.archive import html_table

    rows: list[tuple[str, str]] = [
        ("probe", run.probe),
        ("snapshots", count(len(run))),
        ("steps", _steps(run)),
        ("output, loss", f"{run.settings.get('output')}, {run.settings.get('loss')}"),
    ]
    measured = np.flatnonzero(run.measured)
    for name in (name for name in LAST if measured.size and run.has(name)):
        rows.append((f"{name} at the end", number(float(run.values(name)[measured[-1]]), 4)))
    return html_table(run.name, (), rows)


def trajectory_html(trajectory: Any) -> str:
    """A row per run, with the metadata that not all have alike."""
    from kerneltrack.archive import html_table

    shown = trajectory.runs[:ROWS]
    found = [run.provenance.get("metadata", {}) for run in shown]
    keys = [
        key for key in dict.fromkeys(k for each in found for k in each) if len({str(e.get(key)) for e in found}) > 1
    ]
    rows = [
        [run.name, *(each.get(key, "") for key in keys), count(len(run)), _steps(run)]
        for run, each in zip(shown, found, strict=True)
    ]
    rows += [[f"and {count(len(trajectory) - ROWS)} more"]] if len(trajectory) > ROWS else []
    return html_table(f"{count(len(trajectory))} runs", ["run", *keys, "snapshots", "steps"], rows)


def _steps(run: Any) -> str:
    return f"{count(int(run.steps[0]))} to {count(int(run.steps[-1]))}"
