"""Quantities by name, over the snapshots of a run.

A stored scalar, ``eigenvalue_i`` (λ_i/N), ``NAME_energy_k``, or the mean and half-difference of a scalar over a pair of
consecutive states, ``NAME_pair_mean`` and ``NAME_pair_half_difference``, in the row of the pair's first state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import SUPERSEDED, catalogue
from kerneltrack.schema import RESERVED

from ..text import plain, subscript
from ..trajectory import Floats, Run, Trajectory

#: What probes of different size may be compared by as it is: on more points of one data set it varies within what the choice
#: of the points does. Of the package's other numbers none may but those of ``NULLED``: they grow with N or depend on it.
FREE = frozenset({
    "probe_loss", "network_error", "kernel_distance_from_initial", "relative_kernel_change", "kernel_angle_from_initial",
    "kernel_distance_from_previous", "kernel_angular_velocity", "cka_with_initial_unbiased", "class_diagonal", "class_within",
    "class_between", "linearization_error", "linearization_cosine", "anchored_linearization_error", "parameter_distance",
    "conjugate_kernel_share", "conjugate_kernel_share_with_bias", "network_accuracy",
    "conjugate_kernel_distance_from_initial", "optimizer_kernel_distance",
})  # fmt: skip
#: What has a null that depends on N, and the null: a stored number, or k/M of a random direction. Comparable above it.
NULLED: Mapping[str, str] = {
    **{
        name: f"{name}_null"
        for name in (
            "kernel_target_alignment", "kernel_target_alignment_centred", "kernel_target_alignment_flattened",
            "kernel_target_alignment_centred_flattened", "conjugate_kernel_target_alignment", "optimizer_target_alignment",
            "cka_with_initial", "class_pair_r2", "class_three_level_share", "target_energy", "target_energy_centred",
        )
    },
    **{
        f"{name}_energy{end}": "k/M"
        for name, ends in {
            "output": ("", "_centred", "_out_of_sample"), "residual": ("", "_centred"), "displacement": ("", "_centred"),
            "target": ("_out_of_sample",),
        }.items()
        for end in ends
    },
}  # fmt: skip
_ABOVE = "_above_null"


#: Endings of what is said of a pair.
_OF_PAIRS = ("_pair_mean", "_pair_half_difference")


def quantity(run: Run, name: str) -> Floats:
    """A named quantity over the snapshots of a run, (S,), NaN where the probe was not measured.

    ``NAME_above_null`` is NAME less its null of the same snapshot: what permuted labels, or a random direction, would give.

    Raises:
        AnalysisError: the archive does not hold it, or it has no null.
    """
    values = np.array(_above_null(run, name.removesuffix(_ABOVE)) if name.endswith(_ABOVE) else _stored(run, name))
    values[~run.taken] = np.nan
    return values


def _above_null(run: Run, name: str) -> Floats:
    stem, k = _parts(name)
    null = NULLED.get(stem)
    if null is None:
        raise AnalysisError(
            f"the quantity {name + _ABOVE!r}", expected=f"one of {sorted(NULLED)}", got=f"{name!r}, which has no null"
        )
    if null == "k/M":
        return np.asarray(_stored(run, name) - int(k) / run.dimension)
    return np.asarray(_stored(run, name) - _stored(run, f"{null}_{k}" if k else null))


def _parts(name: str) -> tuple[str, str]:
    """A quantity's observable, and the k of an energy or "": ("target_energy", "20") of target_energy_20."""
    stem, _, last = name.rpartition("_")
    return (stem, last) if last.isdigit() and stem and not _is_ours(name) else (name, "")


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
    if name not in run.dataset and not _is_known(name):
        raise _no_such(run, name)
    values = run.values(name, why="the comparison")
    if values.ndim != 1 or len(values) != len(run):
        raise AnalysisError(
            f"the quantity {name!r}", expected="one number per snapshot", got=f"shape {values.shape}", where=run.path
        )
    return values


def _is_known(name: str) -> bool:
    """Whether some archive could hold it: then it is missing here, and can be measured."""
    return name in catalogue() or name in SUPERSEDED or name in RESERVED


def _no_such(run: Run, name: str) -> AnalysisError:
    import difflib

    held = [scalar for scalar in run.scalars if not scalar.endswith("_null")]
    near = difflib.get_close_matches(name, held, n=3) or [n for n in ("trace", "effective_rank") if n in held]
    return AnalysisError(
        f"the quantity {name!r}",
        expected=f"eigenvalue_1 (λ₁/N), target_energy_20, or a scalar of the archive, for instance {', '.join(near)}",
        got="no such quantity",
        where=run.path,
        remedy="`kerneltrack show ARCHIVE` lists what it holds.",
    )


def title_of(name: str) -> str:
    """How a quantity is called in tables and figures."""
    if name.endswith(_ABOVE):
        return f"{title_of(name.removesuffix(_ABOVE))} above its null"
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
    """Refuse what depends on N where the runs' probes differ in size.

    Raises:
        AnalysisError: naming the quantity and what to compare instead.
    """
    counts = sorted({run.count for run in trajectory})
    asked = {name.removesuffix(next(filter(name.endswith, _OF_PAIRS), "")) for name in names}
    for name in sorted(asked) if len(counts) > 1 else ():
        instead = across_sizes(name)
        if instead == name:
            continue
        if instead:
            raise AnalysisError(
                f"{name!r} has a null that depends on the number of probe points",
                got=f"N = {counts}",
                remedy=f"Compare {instead}, which is what it has beyond that.",
            )
        raise AnalysisError(
            f"{name!r} grows with the number of probe points, or depends on it otherwise",
            got=f"N = {counts}",
            remedy="Compare eigenvalue_1, eigenvalue_2, …, which are λ_i/N, or probes of one size.",
        )


def across_sizes(name: str) -> str:
    """What stands for a quantity where probes differ in size: itself, itself above its null, or "" where nothing does."""
    stem, _ = _parts(name)
    if name.endswith(_ABOVE) or stem in FREE or stem == "eigenvalue" or not _is_ours(stem):
        return name
    return name + _ABOVE if stem in NULLED else ""


def _is_ours(name: str) -> bool:
    """Whether it is an observable of the package; one that a user registered is the user's to judge."""
    from kerneltrack.observables import catalogue

    entry = catalogue().get(name)
    return entry is not None and getattr(entry.compute, "__module__", "kerneltrack.").startswith("kerneltrack.")


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
