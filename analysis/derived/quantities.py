"""Quantities by name: a stored scalar, ``eigenvalue_i`` (λ_i/N), or ``NAME_energy_k``, over the snapshots of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError

from ..text import plain, subscript
from ..trajectory import Floats, Run, Trajectory

#: What grows with the number of probe points, and is no comparison across it.
GROWING = {
    "trace", "frobenius", "noise_floor", "eigen_residual", "target_rayleigh", "residual_rayleigh", "stability_bound",
    "kernel_radius_from_initial", "jacobian_change",
}  # fmt: skip


def quantity(run: Run, name: str) -> Floats:
    """A named quantity over the snapshots of a run, (S,), NaN where the probe was not measured.

    Raises:
        AnalysisError: the archive does not hold it.
    """
    values = np.array(_stored(run, name))
    values[~run.measured] = np.nan
    return values


def _stored(run: Run, name: str) -> Floats:
    stem, _, last = name.rpartition("_")
    if stem == "eigenvalue" and last.isdigit():
        values = run.values("eigenvalues", why=name)
        if not 1 <= int(last) <= values.shape[1]:
            raise AnalysisError(
                f"the quantity {name!r}", expected=f"a mode from 1 to {values.shape[1]}", got=last, where=run.path
            )
        return np.asarray(values[:, int(last) - 1] / run.count)
    if last.isdigit() and stem in run.dataset and "energy_k" in run.dataset[stem].dims:
        grid = [int(k) for k in run.values("energy_k", why=name)]
        if int(last) not in grid:
            raise AnalysisError(f"the quantity {name!r}", expected=f"k in {grid}", got=last, where=run.path)
        return run.values(stem, why=name)[:, grid.index(int(last))]
    values = run.values(name, why="the comparison")
    if values.ndim != 1 or len(values) != len(run):
        raise AnalysisError(
            f"the quantity {name!r}", expected="one number per snapshot", got=f"shape {values.shape}", where=run.path
        )
    return values


def title_of(name: str) -> str:
    """How a quantity is called in tables and figures."""
    stem, _, last = name.rpartition("_")
    if stem == "eigenvalue":
        return f"λ{subscript(int(last))} / N"
    known = _long_names().get(name)
    return known or name.replace("_", " ")


def _long_names() -> Mapping[str, str]:
    return {
        "probe_loss": "loss on the probe",
        "kernel_distance_from_initial": "kernel distance from start",
        "relative_kernel_change": "relative change of the kernel",
    }


def check_across_sizes(trajectory: Trajectory, names: list[str]) -> None:
    """Refuse what grows with N where the runs' probes differ in size.

    Raises:
        AnalysisError: naming the quantity and what to compare instead.
    """
    counts = {run.count for run in trajectory}
    if len(counts) > 1 and (growing := sorted(GROWING.intersection(names))):
        raise AnalysisError(
            f"{growing[0]!r} grows with the number of probe points",
            got=f"N = {sorted(counts)}",
            remedy="Compare eigenvalue_1, eigenvalue_2, …, which are λ_i/N, or numbers without a unit.",
        )


def key_of(run: Run, key: str) -> Any:
    """What a run's metadata hold under ``key``, or its provenance under a dotted path such as ``run.seed``.

    Raises:
        AnalysisError: neither holds it; what there is is named.
    """
    metadata = run.provenance.get("metadata", {})
    if key in metadata:
        return metadata[key]
    found: Any = {**run.provenance, "settings": run.settings}
    for part in key.split("."):
        if isinstance(found, Mapping) and part in found and part != "private":
            found = found[part]
        elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise AnalysisError(
                f"grouping by {key!r}",
                expected="a key of every run's metadata, or a path into run, parameters or settings",
                got=f"{plain(run.name)} has {', '.join(map(plain, metadata)) or 'no metadata'}",
                remedy="Give the tracker metadata={...}.",
            )
    return found


def nearest(energy_k: tuple[int, ...], wanted: int) -> int | None:
    """The k of the archive's grid nearest to ``wanted`` in log k."""
    return min(energy_k, key=lambda k: abs(np.log(k / wanted))) if energy_k else None
