"""The page of many runs: their courses laid over each other, drawn in the page from one block of numbers.

Without a script stands what matplotlib draws from the same numbers.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import catalogue

from ..comparison import Key, Overlay, as_dict, overlay, sweep, sweep_table
from ..derived import title_of
from ..figures import PAGE, overlay_figure
from ..text import Table, count, number, plain
from ..trajectory import Run, Trajectory, controls_of
from .face import text_face
from .inline_svg import InlineSvg, inline_svg
from .template import colours, environment, resource, value_text

#: From so many different numbers on runs are swept over a key: of fewer no slope is fitted.
_NUMBERS = 3
#: Quantities with a column in the table of runs.
_COLUMNS = 4


def render_many(runs: Trajectory, control: Run | None = None, *, group: str | None = None, reload: int = 0) -> str:
    """The page as text.

    Args:
        runs: two or more.
        control: a run that did not change the learning rate, besides those that lie beside the runs and say so.
        group: the key that courses are coloured by first; None: one of the metadata that several runs share.
        reload: seconds after which the page reads itself anew; 0: never.

    Raises:
        AnalysisError: the runs are not comparable, one holds no measurement, or has no such key.
    """
    controls = controls_of(runs) if control is None else (*controls_of(runs), control)
    found = overlay(runs, tuple(controls), group=group)
    key = found.key(group)
    thinned = found.every if any(course.snapshots > found.every for course in found.courses) else 0
    return (
        environment()
        .get_template("overlay.html.j2")
        .render(
            version=version("kerneltrack"),
            reload=reload,
            title=_title(found),
            headline=_headline(found, key),
            facts=_facts(found, runs),
            notes=found.notes,
            found=found,
            quantities=[(name, title_of(name)) for name in found.quantities],
            clock=all(course.clock.size for course in found.courses),
            drawing=_drawing(found, key),
            numbers=as_dict(found, key),
            thinned=thinned and count(thinned),
            sweeps=_sweeps(found, runs),
            runs_table=_runs_table(found),
            definitions=_definitions(found),
            provenance=[(plain(k), value_text(v)) for k, v in {"probe": runs[0].probe, **runs[0].settings}.items()],
            css=text_face() + resource("page.css", "plots.css"),
            colours=colours(),
            script=resource("plots.js", "save.js", "overlay.js", "tables.js", "reload.js"),
        )
    )


def _title(found: Overlay) -> str:
    """How many runs, and in what they differ."""
    runs = sum(not course.is_control for course in found.courses)
    apart = [_spread(key) for key in found.keys[:3]]
    return f"{count(runs)} run{'s' * (runs != 1)}" + (f": {', '.join(apart)}" if apart else "")


def _spread(key: Key) -> str:
    name = plain(key.name, 40)
    if len(key.values) <= 3:
        return f"{name} {', '.join(plain(value, 24) for value in key.values)}"
    return (
        f"{name} {key.values[0]} to {key.values[-1]}" if key.ordered else f"{count(len(key.values))} values of {name}"
    )


def _headline(found: Overlay, key: Key) -> str:
    first, last = (pick(int(pick(c.steps)) for c in found.courses) for pick in (min, max))
    colour = f", coloured by {plain(key.name, 40)}" if key.name else ""
    return f"The tangent kernels of {count(len(found.courses))} archives between steps {count(first)} and {count(last)}{colour}."


def _facts(found: Overlay, runs: Trajectory) -> list[tuple[str, str]]:
    controls = sum(course.is_control for course in found.courses)
    sizes = sorted({run.count for run in runs})
    return [
        ("runs", count(len(found.courses) - controls)),
        *([("controls", count(controls))] if controls else []),
        ("snapshots", count(sum(course.snapshots for course in found.courses))),
        ("probe points N", ", ".join(map(count, sizes))),
        ("output reduction", plain(runs[0].settings.get("output", "–"))),
        ("loss", plain(runs[0].settings.get("loss") or "none").replace("_", " ")),
    ]


def _drawing(found: Overlay, key: Key) -> InlineSvg:
    names = found.quantities[: max(found.first, 1)]
    with PAGE.drawing("the courses"):
        figure = overlay_figure(found, PAGE, key, names)
    return inline_svg(figure, "overlay", f"Courses of {', '.join(map(title_of, names))}")


def _sweeps(found: Overlay, runs: Trajectory) -> list[Table]:
    """The first quantities over each number of the metadata that takes several values, seeds apart, with slopes."""
    tables = []
    chosen = Trajectory(tuple(run for run, c in zip(runs, found.courses, strict=False) if not c.is_control))
    for key in found.keys:
        if not key.ordered or len(key.values) < _NUMBERS or len(key.values) == len(chosen) or "seed" in key.name:
            continue
        try:
            tables.append(sweep_table(sweep(chosen, key.name, list(found.quantities[: found.first]))))
        except AnalysisError:
            continue  # a value that is no number of any size, or nothing known at the last step: nothing is swept
    return tables


def _runs_table(found: Overlay) -> Table:
    """A row for each run: what it is told apart by, and its last values."""
    names = found.quantities[:_COLUMNS]
    heads = ["run", *(plain(key.name, 40) for key in found.keys), "snapshots", "last step", *map(title_of, names)]
    rows = [
        [
            f"{course.name} (control)" if course.is_control else course.name,
            *(key.values[key.of[i]] for key in found.keys),
            count(course.snapshots),
            count(int(course.steps[-1])),
            *(number(_last(course.values[name])) for name in names),
        ]
        for i, course in enumerate(found.courses)
    ]
    notes = ("Values are the last that each archive holds.",)
    return Table("Runs and their last values", heads, rows, notes)


def _last(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else float("nan")


def _definitions(found: Overlay) -> list[tuple[str, str, str, str]]:
    known = catalogue()
    stems = {name: name if name in known else name.rpartition("_")[0] for name in found.quantities}
    names = {"eigenvalue": "eigenvalues"}
    entries = [(name, known.get(names.get(stem, stem))) for name, stem in stems.items()]
    return [(name, e.formula, e.units, e.source) for name, e in entries if e is not None]
