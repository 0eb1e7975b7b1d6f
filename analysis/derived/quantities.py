"""Quantities by name, over the snapshots of a run.

A stored scalar, ``eigenvalue_i`` (λ_i/N), ``NAME_energy_k``, or the mean and half-difference of a scalar over a pair of
consecutive states, ``NAME_pair_mean`` and ``NAME_pair_half_difference``, in the row of the pair's first state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import catalogue

from ..text import plain, subscript
from ..trajectory import Floats, Run, Trajectory

#: What grows with the number of probe points, and is no comparison across it.
GROWING = {
    "trace", "frobenius", "noise_floor", "eigen_residual", "target_rayleigh", "residual_rayleigh", "stability_bound",
    "kernel_radius_from_initial", "jacobian_change",
}  # fmt: skip


#: Endings of what is said of a pair.
_OF_PAIRS = ("_pair_mean", "_pair_half_difference")


def quantity(run: Run, name: str) -> Floats:
    """A named quantity over the snapshots of a run, (S,), NaN where the probe was not measured.

    Raises:
        AnalysisError: the archive does not hold it.
    """
    values = np.array(_stored(run, name))
    values[~run.taken] = np.nan
    return values


def pair_numbers(run: Run) -> dict[str, tuple[Floats, Floats]]:
    """Scalar → its mean and half-difference (Q,) over ``run.groups``; of every one that any group holds both of.

    What compares with the state before is left out: that is another number of updates ago for each state of a group.
    """
    known, over_gaps = catalogue(), {"previous", "lagged"}
    names = [n for n in run.scalars if len(run.groups) and not (n in known and known[n].needs & over_gaps)]
    found = {name: run.groups.mean_and_half_difference(run.values(name)) for name in names}
    return {name: both for name, both in found.items() if np.isfinite(both[0]).any()}


def _stored(run: Run, name: str) -> Floats:
    for ending in _OF_PAIRS:
        if name.endswith(ending) and name.removesuffix(ending) in run.dataset:
            _, mean, half = run.pairs(run.values(name.removesuffix(ending)))
            paired = np.full(len(run), np.nan)
            paired[run.groups.first] = mean if ending == "_pair_mean" else half
            return paired
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
    for ending in _OF_PAIRS:
        if name.endswith(ending):
            return f"{title_of(name.removesuffix(ending))}, {ending[1:].replace('_', ' ')}"
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
    asked = {name.removesuffix(next(filter(name.endswith, _OF_PAIRS), "")) for name in names}
    if len(counts) > 1 and (growing := sorted(GROWING & asked)):
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
