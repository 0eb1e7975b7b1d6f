"""overview(): what is in an archive, as plain values and as tables: runs, probes, snapshots, last values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..text import Table, count, duration, finite_or_none, number, plain
from ..trajectory import Run, run_of
from ..withheld import gauge_note, misleading, mode_note, sample_note, seen

if TYPE_CHECKING:
    from kerneltrack.archive import Archive

#: Values of the last snapshot that are shown, where they are stored, in this order.
_LAST = (
    "stability_ratio", "stability_bound", "trace", "effective_rank", "condition_number", "kernel_target_alignment",
    "kernel_target_alignment_null", "kernel_distance_from_initial", "linearization_error", "kernel_flow_error",
    "anchored_linearization_error", "probe_loss",
)  # fmt: skip


def overview(archive: Archive, path: str) -> dict[str, Any]:
    """Plain JSON values; NaN becomes None."""
    runs = {name: run_of(archive, name, path) for name in archive.probes}
    provenance = archive.provenance
    return {
        "path": path,
        "format_version": str(archive.attrs.get("format_version", "")),
        "run_id": str(archive.attrs.get("run_id", "")),
        "snapshots": len(archive),
        "first_step": int(archive.steps[0]) if len(archive) else None,
        "last_step": int(archive.steps[-1]) if len(archive) else None,
        "segments": len(archive.segments),
        "metadata": dict(provenance.metadata),
        "versions": provenance.run.get("versions", {}),
        "probes": {name: _probe(run) for name, run in runs.items()},
    }


def tables(facts: Mapping[str, Any]) -> list[Table]:
    """The overview as tables: the run, then each probe with its last values."""
    steps = "–" if facts["first_step"] is None else f"{count(facts['first_step'])} to {count(facts['last_step'])}"
    rows = [
        ["run", facts["run_id"]],
        ["format", facts["format_version"]],
        ["snapshots", count(facts["snapshots"])],
        ["steps", steps],
        ["(re)starts", count(facts["segments"])],
    ]
    rows += [[str(key), str(value)] for key, value in facts["metadata"].items()]
    found = [Table(plain(facts["path"]), ["archive", ""], rows, text=frozenset({1}))]
    return found + [_probe_table(name, probe) for name, probe in facts["probes"].items()]


def _probe(run: Run) -> dict[str, Any]:
    rows = np.flatnonzero(run.measured)
    facts: dict[str, Any] = {
        "fingerprint": run.fingerprint,
        "standard_probe": run.standard_probe or None,
        "samples": _or_none(lambda: run.count),
        "outputs": _or_none(lambda: run.outputs),
        "in_training": seen(run),
        "output_reduction": run.settings.get("output"),
        "gauge": run.gauge,
        "loss": run.settings.get("loss"),
        "parameters": run.settings.get("parameter_count"),
        "stability_scope": run.settings.get("stability_scope"),
        "measured": len(rows),
        "light": int(np.sum(run.taken & ~run.measured)),
        "failed": int(np.sum(~run.taken)),
        "seconds": _seconds(run),
        "last_step": int(run.steps[rows[-1]]) if len(rows) else None,
        "last": {},
        "notes": [],
    }
    if not len(rows):
        return facts
    last: dict[str, float | None] = {}
    if "eigenvalues" in run.dataset:
        last["eigenvalue_1"] = finite_or_none(run.at("eigenvalues", int(rows[-1]))[0])
    last |= {name: finite_or_none(run.values(name)[rows[-1]]) for name in _LAST if name in run.dataset}
    for name in ("target_energy", "output_energy", "residual_energy"):
        if name in run.dataset and "energy_k" in run.dataset.coords:
            grid = [int(k) for k in run.values("energy_k")]
            last |= {
                f"{name}_{k}": finite_or_none(v)
                for k, v in zip(grid, run.at(name, int(rows[-1])), strict=True)
                if k in (5, 20, 100)
            }
    notes = [f"{name} is {words}." for name, words in misleading(run) if name in last]
    return {
        **facts,
        "last": last,
        "notes": [*notes, *filter(None, (gauge_note(run), mode_note(run), sample_note(run)))],
    }


def _probe_table(name: str, probe: Mapping[str, Any]) -> Table:
    rows = [
        *([["standard probe", probe["standard_probe"]]] if probe["standard_probe"] else []),
        ["points N", _count(probe["samples"])],
        ["outputs O", _count(probe["outputs"])],
        ["trained on", probe["in_training"]],
        ["output reduction", str(probe["output_reduction"])],
        ["gauge", plain(probe["gauge"])],
        ["loss", str(probe["loss"] or "none")],
        ["trainable parameters", _count(probe["parameters"])],
        [
            "snapshots measured",
            f"{count(probe['measured'])}"
            + (f", and {count(probe['light'])} light ones of pairs and triples" if probe["light"] else "")
            + (f" ({count(probe['failed'])} without a measurement)" if probe["failed"] else ""),
        ],
        ["time spent measuring", duration(probe["seconds"]) if probe["seconds"] is not None else "–"],
    ]
    rows += [[key, number(float("nan") if value is None else value, 5)] for key, value in probe["last"].items()]
    at = "" if probe["last_step"] is None else f", values at step {count(probe['last_step'])}"
    return Table(f"probe {plain(name)}{at}", ["", ""], rows, tuple(probe["notes"]))


def _seconds(run: Run) -> float | None:
    return (
        finite_or_none(np.nansum(run.values("snapshot_seconds"))) if "snapshot_seconds" in run.dataset.coords else None
    )


def _or_none(size: Any) -> int | None:
    from kerneltrack.errors import AnalysisError

    try:
        return int(size())
    except AnalysisError:  # an archive that holds neither targets nor outputs does not know its O
        return None


def _count(value: Any) -> str:
    return count(value) if isinstance(value, int) else "–"
