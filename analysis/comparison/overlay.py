"""Overlay: the courses of many runs laid over each other, each at its own snapshots, with what runs are told apart by.

Nothing is interpolated, and no run waits for another: a course is what one archive holds. Means are of runs that share a
value of a key, at the steps at which every one of them was measured. Controls are courses too, and are in no mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import (
    across_sizes,
    check_one_clock,
    flow_time,
    key_of,
    learning_rate_changes,
    quantity,
    representative_rows,
    title_of,
)
from ..output import distinct
from ..text import BAND_RUNS, plain
from ..trajectory import Floats, Ints, Run, Trajectory
from ..withheld import gauge_note
from .comparison import defaults

#: Numbers that one page carries: with six digits each they are about 12 MB of text.
NUMBERS = 1_400_000
#: Quantities that one page carries, the defaults first.
QUANTITIES = 24
#: Modes whose eigenvalues are drawn beside the first.
_MODES = (2, 5, 10)


@dataclass(frozen=True, eq=False)
class Course:
    """One run.

    Attributes:
        name: unique among the runs.
        of: the place of the run whose control this is; -1 where the run is none, or that one is not here.
        is_control: whether it was given as a control, or says that it is one, or a placebo.
        steps: (S,) of the snapshots that are drawn.
        clock: (S,) flow time at these, or empty where the runs have no common one.
        values: quantity → (S,), NaN where there is none.
        changes: steps of the changes of the learning rate.
        metadata: as the archive has them.
        snapshots: how many there are, drawn or not.
    """

    name: str
    of: int
    is_control: bool
    steps: Ints
    clock: Floats
    values: Mapping[str, Floats]
    changes: tuple[int, ...]
    metadata: Mapping[str, Any]
    snapshots: int


@dataclass(frozen=True, eq=False)
class Key:
    """What runs are told apart by.

    Attributes:
        name: of the metadata, or a path into the provenance.
        values: different ones, for reading: numbers in their order, others as they appear.
        of: for each course the place of its value.
        ordered: whether the values are numbers.
    """

    name: str
    values: tuple[str, ...]
    of: tuple[int, ...]
    ordered: bool


@dataclass(frozen=True, eq=False)
class Overlay:
    """Many runs.

    Attributes:
        courses: the runs, then their controls.
        quantities: names of what is drawn, in the order of the page.
        first: how many of them are the comparison's defaults.
        keys: in the order of the metadata; none where the runs differ in nothing.
        left_out: names of quantities that every run holds and the page has no room for.
        every: a course of more snapshots is drawn at this many at most.
        notes: what a reader must know.
    """

    courses: tuple[Course, ...]
    quantities: tuple[str, ...]
    first: int
    keys: tuple[Key, ...]
    left_out: tuple[str, ...]
    every: int
    notes: tuple[str, ...]

    def key(self, name: str | None) -> Key:
        """The key of that name; of None the one that the page opens with, and where there is none one value for all."""
        found = next((key for key in self.keys if key.name == name), None)
        return found or (opening(self) if name is None else _one_value(len(self.courses)))


def overlay(runs: Trajectory, controls: Sequence[Run] = (), *, group: str | None = None) -> Overlay:
    """Lay runs over each other.

    Args:
        runs: two or more; controls among them are known by what they say of themselves.
        controls: further ones, beside the runs.
        group: the first key; one of the metadata, or a path such as ``run.seed``.

    Raises:
        AnalysisError: one run, a run without a measurement, mixed probes or reductions, nothing in common, or a run without
            the key.
    """
    if len(runs) + len(controls) < 2:
        raise AnalysisError(
            "a page of many runs", expected="two archives or more", got=len(runs), remedy="Give further archives."
        )
    several = Trajectory((*runs, *controls))
    notes = (*several.comparable(), *filter(None, (gauge_note(several[0]),)))
    for run in several:
        if not run.measured.any():
            raise AnalysisError(
                "no snapshot of this probe holds a measurement",
                where=run.path or None,
                remedy="Leave this archive out, or give --probe.",
            )
    first, others = _quantities(Trajectory(tuple(run for run in runs if not _origin(run)) or several.runs))
    names = (*first, *others)[:QUANTITIES]
    every = max(NUMBERS // (len(several) * (len(names) + 2)), 16)
    clocks = _clocks(several)
    labels = distinct([plain(run.name) for run in several])
    place = {run.archive_id: i for i, run in enumerate(several) if run.archive_id}
    courses = tuple(
        _course(run, label, place.get(_origin(run), -1), i >= len(runs), names, every, clocks)
        for i, (run, label) in enumerate(zip(several, labels, strict=True))
    )
    left_out = (*first, *others)[QUANTITIES:]
    return Overlay(courses, names, len(first), _keys(several, group), left_out, every, notes)


def _origin(run: Run) -> str:
    """The archive_id of the run that this one is a control or a placebo of; "" where it says nothing."""
    return run.control_of or run.placebo_of


def _course(run: Run, label: str, of: int, given: bool, names: Sequence[str], every: int, clocks: bool) -> Course:
    rows = np.array(representative_rows(run, every))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    return Course(
        label,
        of,
        given or bool(_origin(run)),
        run.steps[rows],
        flow_time(run)[rows] if clocks else np.zeros(0),
        {name: _of(run, name)[rows] for name in names},
        tuple(change.step for change in learning_rate_changes(run)[0]) if run.has("learning_rate") else (),
        dict(run.provenance.get("metadata", {})),
        len(run),
    )


def _of(run: Run, name: str) -> Floats:
    """The quantity, NaN throughout where a control does not hold it."""
    try:
        return quantity(run, name)
    except AnalysisError:
        return np.full(len(run), np.nan)


def _clocks(runs: Trajectory) -> bool:
    """Whether all runs have one flow time."""
    try:
        check_one_clock(runs)
    except AnalysisError:
        return False
    return all(run.has("learning_rate") for run in runs)


def _quantities(runs: Trajectory) -> tuple[list[str], list[str]]:
    """The comparison's defaults, and the other numbers that every run holds; those that may be compared across sizes."""
    first = defaults(runs)
    sizes = {run.count for run in runs}
    modes = min(int(run.dataset.sizes.get("mode", 0)) for run in runs)
    wanted = [f"eigenvalue_{i}" for i in _MODES if i <= modes]
    wanted += [name for name in runs[0].scalars if not name.endswith("_null") and all(run.has(name) for run in runs)]
    other = [across_sizes(name) if len(sizes) > 1 else name for name in wanted]
    others = [name for name in dict.fromkeys(other) if name and name not in first]
    if not first and not others:
        raise AnalysisError(
            "the runs hold no number in common",
            got=", ".join(run.name for run in runs),
            remedy="Give --each for a page of each run.",
        )
    return first, others


def _keys(runs: Trajectory, group: str | None) -> tuple[Key, ...]:
    """The keys of the metadata that all runs hold and in which they differ, and the one that was asked for.

    A control that does not hold one has the value of its run.
    """
    held = [dict(run.provenance.get("metadata", {})) for run in runs]
    names = [name for name in held[0] if all(name in one or _origin(run) for one, run in zip(held, runs, strict=True))]
    if group is not None:
        names = [group, *(name for name in names if name != group)]
    found = [_key(runs, name) for name in names]
    return tuple(key for key in found if len(key.values) > 1 or key.name == group)


def _key(runs: Trajectory, name: str) -> Key:
    place = {run.archive_id: run for run in runs if run.archive_id}

    def value(run: Run) -> Any:
        try:
            return key_of(run, name)
        except AnalysisError:
            if place.get(_origin(run), run) is run:
                raise
            return key_of(place[_origin(run)], name)

    values = [value(run) for run in runs]
    ordered = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    texts = [plain(one) for one in (sorted(values) if ordered else values)]
    different = tuple(dict.fromkeys(texts))
    return Key(name, different, tuple(different.index(plain(one)) for one in values), ordered)


def _one_value(courses: int) -> Key:
    return Key("", ("all runs",), (0,) * courses, False)


def opening(found: Overlay) -> Key:
    """The key of the largest groups, a seed last: it repeats a setting, and one in which all runs differ tells no groups."""
    runs = [i for i, course in enumerate(found.courses) if not course.is_control]
    counts = {key: len({key.of[i] for i in runs}) for key in found.keys}
    several = [key for key, count in counts.items() if count <= len(runs) // 2]
    largest = sorted(several, key=lambda key: (key.name.rpartition(".")[2] == "seed", counts[key]))
    return largest[0] if largest else _one_value(len(found.courses))


def mean_course(found: Overlay, members: Sequence[int], name: str) -> tuple[Ints, Floats, Floats]:
    """(steps, mean, standard deviation) of a quantity over courses, at the steps at which every one has a number.

    Args:
        found: the runs.
        members: places of the courses; below six nothing is averaged, and the arrays are empty.
        name: the quantity.
    """
    if len(members) < BAND_RUNS:
        return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
    known = [_by_step(found.courses[i], name) for i in members]
    steps = np.array(sorted(set.intersection(*map(set, known))), dtype=np.int64)
    values = np.array([[one[int(step)] for step in steps] for one in known]).reshape(len(members), len(steps))
    return steps, values.mean(axis=0), values.std(axis=0, ddof=1)


def _by_step(course: Course, name: str) -> dict[int, float]:
    """A step's first number: a resumed run holds some of them twice."""
    found: dict[int, float] = {}
    for step, value in zip(course.steps, course.values[name], strict=True):
        if np.isfinite(value):
            found.setdefault(int(step), float(value))
    return found


def as_dict(found: Overlay, opens_with: Key) -> dict[str, Any]:
    """Plain JSON values for the page; NaN becomes None, and numbers have six digits."""
    return {
        "quantities": [{"name": n, "title": title_of(n), "log": _logarithmic(found, n)} for n in found.quantities],
        "first": found.first,
        "band": BAND_RUNS,
        "opens": opens_with.name,
        "keys": [{"name": k.name, "values": k.values, "of": k.of, "ordered": k.ordered} for k in found.keys],
        "runs": [
            {
                "name": c.name,
                "of": c.of,
                "control": c.is_control,
                "steps": c.steps.tolist(),
                "clock": _short(c.clock),
                "changes": c.changes,
                "values": [_short(c.values[name]) for name in found.quantities],
            }
            for c in found.courses
        ],
    }


def _short(values: Floats) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def _logarithmic(found: Overlay, name: str) -> bool:
    """Whether a quantity is positive and moves over more than a decade."""
    values = np.concatenate([course.values[name] for course in found.courses])
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() > 10 * known.min())
