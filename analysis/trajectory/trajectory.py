"""Trajectory: what the archives of one or many runs say about a kernel in motion. Reads and checks; interprets nothing.

A :class:`Run` is one archive seen through one probe; a :class:`Trajectory` is a sequence of runs. Comparisons between runs ask
:meth:`Trajectory.comparable` first: kernels of different output reductions or on different probes are different quantities,
and no figure may put them side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from kerneltrack.errors import AnalysisError

from .notebook import trajectory_html
from .run import Run

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Trajectory(Sequence[Run]):
    """One or many runs, in the order given."""

    runs: tuple[Run, ...]

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Trajectory: ...
    def __getitem__(self, index: int | slice) -> Run | Trajectory:
        return Trajectory(self.runs[index]) if isinstance(index, slice) else self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __repr__(self) -> str:
        return f"<Trajectory of {len(self)} run{'s' * (len(self) != 1)}: {_names(self[:5])}{', …' * (len(self) > 5)}>"

    def _repr_html_(self) -> str:
        return trajectory_html(self)

    @property
    def only(self) -> Run:
        """The run, where there is exactly one.

        Raises:
            AnalysisError: there are several.
        """
        if len(self.runs) != 1:
            raise AnalysisError(
                "this analysis is of one run", expected="one archive", got=f"{len(self.runs)}: {_names(self)}"
            )
        return self.runs[0]

    @property
    def dataset(self) -> xr.Dataset:
        """The dataset of the only run."""
        return self.only.dataset

    def comparable(self) -> tuple[str, ...]:
        """Check that the runs measure the same quantity on the same probe, or on more points of the same data.

        Returns:
            Notes that a comparison must print: the same identity with other bytes, or another number of points of the
            same data, is compared, but not silently.

        Raises:
            AnalysisError: naming the runs and what differs.
        """
        for key in ("output", "loss", "parameters"):
            _same(self, f"settings[{key!r}]", [run.settings.get(key) for run in self], _remedy_of(key))
        _same(
            self,
            "gauges",
            [run.gauge for run in self],
            "Measure both in one gauge: NTKTracker(gauge='raw' | 'softmax').",
        )
        notes = _standard(self)
        first = self[0]
        for run in self.runs[1:]:
            if run.fingerprint == first.fingerprint:
                continue
            if run.count != first.count and _source(run) and _source(run) == _source(first):
                notes.append(
                    f"{run.name}: {run.count} points of the data of which {first.name} has {first.count}; eigenvalues "
                    "are compared as λ_i/N"
                )
                continue
            if run.identity is None or run.identity != first.identity:
                _same(self, "probe fingerprints", [r.fingerprint for r in self])
            notes.append(
                f"{run.name}: the probe says it is the same as that of {first.name}, but its bytes differ "
                f"({run.fingerprint[:15]}… against {first.fingerprint[:15]}…)"
            )
        return tuple(notes)


def _same(
    trajectory: Trajectory,
    what: str,
    values: Sequence[Any],
    remedy: str = "Compare runs that were measured on the same probe with the same settings.",
) -> None:
    if any(value != values[0] for value in values):
        listed = "; ".join(f"{run.name}: {value}" for run, value in zip(trajectory, values, strict=True))
        raise AnalysisError(f"runs with different {what} are not comparable", got=listed, remedy=remedy)


def _remedy_of(key: str) -> str:
    argument = {"parameters": "params"}.get(key, key)
    return f"Give the trackers one {argument}=, and one probe; saved checkpoints are measured again by `kerneltrack track`."


def _standard(trajectory: Trajectory) -> list[str]:
    """The standard probe that all runs have by its bytes, and what only is called one."""
    found = []
    for run in trajectory:
        claimed = (run.identity or {}).get("standard")
        if claimed is not None and claimed != run.standard_probe:
            changed = (run.identity or {}).get("transform")
            why = "its bytes are others" if changed is None else f"its inputs went through {changed}"
            found.append(f"{run.name}: the probe is called the standard probe {claimed}, and {why}")
    names = {run.standard_probe for run in trajectory}
    return (
        [f"all runs are on the standard probe {names.pop()}", *found] if len(names) == 1 and "" not in names else found
    )


def _source(run: Run) -> dict[str, Any]:
    """Where a probe's points come from, without which of them were drawn, and what that choice is called."""
    identity = run.identity or {}
    return (
        {k: v for k, v in identity.items() if k not in ("indices", "seed", "n", "standard")}
        if "dataset" in identity
        else {}
    )


def _names(trajectory: Trajectory) -> str:
    return ", ".join(run.name for run in trajectory)
