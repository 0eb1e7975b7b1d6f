"""The report: one self-contained HTML page about one run, or about many that are laid over each other.

Everything on it is a stored number, a formula of the catalogue, or text from the archive, which is escaped: the
template engine escapes all of it, and nothing of an archive reaches a script or a style.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kerneltrack.errors import AnalysisError, OutputError

from ..derived import assess, assessment_table, judge
from ..figures import PAGE, Scene, registered
from ..lr_decay import (
    LrDecayEffects,
    change_table,
    factor_table,
    lr_decay_effects,
    sentence,
    trend_sentence,
    trend_table,
)
from ..output import HTML, distinct, is_stream, may_write, write
from ..text import Table, count, number, plain
from ..trajectory import PathLike, Run, Trajectory, controls_beside, load, placebos_beside
from ..withheld import gauge_note, misleading, mode_note, sample_note, seen
from .cards import cards_of, order_table
from .command import is_found, plot_command
from .face import text_face
from .findings import findings, headline
from .inline_svg import InlineSvg, inline_svg
from .many import render_many
from .motion import pairs_table
from .slider import Explorer, explorer
from .slider_curves import HEIGHT, WIDTH
from .template import colours, environment, resource, value_text

Archives = Trajectory | Run | PathLike | Iterable[PathLike]

#: What stands above the findings.
SUMMARY = "summary"

#: Sections of the page in order; figures say which one they stand in.
SECTIONS = (
    ("alignment", "Alignment", "How target, output and residual lie along the kernel's eigenfunctions."),
    (
        "spectrum",
        "Spectrum and stability",
        "How large the eigenvalues are, how they move, and where the edge of stability is.",
    ),
    (
        "learning rate",
        "Learning-rate changes",
        "What each change was followed by, what was predicted, and what the control did.",
    ),
    (
        "motion",
        "Loss, linearity, motion",
        "How well straight-line models describe training, and how far the kernel went.",
    ),
)


@dataclass(frozen=True)
class DrawnFigure:
    """A figure on the page."""

    name: str
    title: str
    caption: str
    drawing: InlineSvg
    command: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    lead: str
    figures: tuple[DrawnFigure, ...]


@dataclass(frozen=True)
class ChangeView:
    """A learning-rate change on the page."""

    sentence: str
    tables: tuple[Table, ...]


def write_report(
    archives: Archives,
    output: PathLike,
    *,
    control: Archives | None = None,
    probe: str | None = None,
    group: str | None = None,
    each: bool = False,
    reload: int = 0,
) -> tuple[Path, ...]:
    """Write the page of a run, or the one of many.

    Args:
        archives: a path, several paths, a run or a trajectory.
        output: the HTML file, replaced if it exists; its folder is made if need be. "-" is standard output.
        control: the run that did not change the learning rate: only with it anything is called an effect. None: what lies beside
            a run and says that it is its control.
        probe: which probe to look through where paths are given; None: each archive's first.
        group: of several runs: the key that they are coloured by first, of the metadata or a path such as ``run.seed``.
        each: whether several runs have a page each, FILE-RUN.html, and FILE-RUN-2.html where another run has that name.
        reload: seconds after which the open page reads itself anew, for a run that goes on; 0: never.

    Returns:
        The files that were written.

    Raises:
        AnalysisError: no measurement, a control that is not comparable, or runs that are not to each other.
        OutputError: neither .html nor .htm, or nothing may be written there.
        ArchiveError: an archive cannot be read.
        OSError: a file cannot be written.
    """
    trajectory, target = _trajectory(archives, probe), Path(output)
    beside = None if control is None else _trajectory(control, trajectory[0].probe).only
    targets = _targets(target, trajectory) if each else [target]
    for path in (target, *targets):
        may_write(path, HTML)  # all of them before the first page is written
    if len(trajectory) > 1 and not each:
        write(target, HTML, render_many(trajectory, beside, group=group, reload=reload).encode())
        return (target,)
    for run, path in zip(trajectory, targets, strict=True):
        page = render(run, beside, [other for other in trajectory if other is not run], reload=reload)
        write(path, HTML, page.encode())  # a browser that reloads meanwhile never sees half of it
    return tuple(targets)


def _targets(target: Path, trajectory: Trajectory) -> list[Path]:
    """A page for each run; archives of one name in two folders have two pages."""
    if len(trajectory) == 1:
        return [target]
    if is_stream(target):
        raise OutputError(
            f"{len(trajectory)} pages cannot go to one stream", where=str(target), remedy="Give the name of a file."
        )
    return [target.with_stem(f"{target.stem}-{name}") for name in distinct([run.name for run in trajectory])]


def _trajectory(archives: Archives, probe: str | None) -> Trajectory:
    if isinstance(archives, Run):
        return Trajectory((archives,))
    return archives if isinstance(archives, Trajectory) else load(archives, probe=probe)


def render(run: Run, control: Run | None = None, others: Sequence[Run] = (), *, reload: int = 0) -> str:
    """The page as text.

    Args:
        run: the run.
        control: the run that did not change the learning rate; None: what lies beside it and says so.
        others: runs that came along; those that differ in their seed only tell how the numbers vary with it.
        reload: seconds after which the page reads itself anew; 0: never.

    Raises:
        AnalysisError: nothing was measured, or the control is not comparable.
    """
    if not run.measured.any():
        raise AnalysisError("no snapshot of this probe holds a measurement", got=_failures(run), where=run.path or None)
    controls = controls_beside(run) if control is None else Trajectory((control,))
    control = controls[0] if controls else None
    notes = Trajectory((run, control)).comparable() if control is not None else ()
    gauge = gauge_note(run)
    effects, no_effects = _effects(run, controls)
    sections, absent = _sections(run, control)
    overview = [figure for section in sections if section.key == SUMMARY for figure in section.figures]
    absent += misleading(run)
    slider, no_slider = _explorer(run)
    if no_slider or (slider is not None and slider.no_pictures):
        absent.insert(0, ("Slider over eigenfunctions", no_slider or (slider.no_pictures if slider else "")))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            version=version("kerneltrack"),
            reload=reload,
            title=_title(run),
            headline=headline(run),
            run=run,
            control=control,
            facts=_facts(run),
            findings=(cards := cards_of(findings(run, effects))),
            surprise=order_table(cards),
            trust=assessment_table(assess(run, others)),
            sections=[section for section in sections if section.key != SUMMARY],
            overview=overview[0] if overview else None,
            explorer=slider,
            frames=[asdict(frame) for frame in slider.frames] if slider else [],
            panel_size=(WIDTH, HEIGHT),
            stages=_stages(run),
            pairs=pairs_table(run),
            changes=_changes(effects),
            trends=_trends(effects),
            no_effects=_here(no_effects, run),
            absent=_by_reason([(title, _here(reason, run)) for title, reason in absent]),
            failures=_failures(run),
            notes=(*notes, *filter(None, (gauge, mode_note(run), sample_note(run)))),
            definitions=_definitions(run),
            provenance=_provenance(run),
            source=plain(Path(run.path).name),
            css=text_face() + resource("page.css", "plots.css"),
            colours=colours(),
            script=resource("plots.js", "save.js", "page.js", "tables.js", "reload.js"),
        )
    )


def _title(run: Run) -> str:
    """What its author called the run; else the file's name, the network's class, the probe, and how far it was followed."""
    if "title" in (metadata := run.provenance.get("metadata", {})):
        return plain(metadata["title"])
    network = plain(run.provenance.get("run", {}).get("model", ""), 400).rpartition(".")[2]
    on = f"{network} on the probe “{run.probe}”" if network else f"the probe “{run.probe}”"
    return f"{run.name}: {on} up to step {count(run.steps[run.measured][-1])}"


def _effects(run: Run, controls: Trajectory) -> tuple[LrDecayEffects | None, str]:
    try:
        return lr_decay_effects(run, controls, placebos_beside(run)), ""
    except AnalysisError as error:
        return None, str(error)


def _sections(run: Run, control: Run | None) -> tuple[list[Section], list[tuple[str, str]]]:
    """Drawn sections, and (title, reason) of every figure that this archive cannot give."""
    scene = Scene(run, control, PAGE)
    drawn: dict[str, list[DrawnFigure]] = {key: [] for key, _, _ in SECTIONS}
    absent: list[tuple[str, str]] = []
    found = control is not None and is_found(run, control)
    for spec in registered().values():
        scene.used.clear()
        try:
            drawing = inline_svg(spec(scene), spec.name, f"{spec.title}. {spec.caption}")
        except AnalysisError as error:
            absent.append((spec.title, str(error)))
            continue
        command = plot_command(run, spec.name, control if "control" in scene.used else None, found=found)
        drawn.setdefault(spec.section, []).append(DrawnFigure(spec.name, spec.title, spec.caption, drawing, command))
    known = {key: (title, lead) for key, title, lead in SECTIONS}
    sections = [
        Section(key.replace(" ", "-"), *known.get(key, (key, "")), tuple(figures)) for key, figures in drawn.items()
    ]
    return sections, absent


def _by_reason(absent: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is not shown, grouped: titles that share a reason stand together. A figure's own name is not part of it."""
    grouped: dict[str, list[str]] = {}
    for title, reason in absent:
        grouped.setdefault(re.sub(r"^the figure '[a-z-]+' needs", "this needs", reason), []).append(title)
    return [("; ".join(titles), reason) for reason, titles in grouped.items()]


def _here(reason: str, run: Run) -> str:
    """A reason on a page about this file: without the path, which was that of an unfinished run, or of another machine."""
    return reason.replace(f" (in {run.path})", "")


def _explorer(run: Run) -> tuple[Explorer | None, str]:
    try:
        return explorer(run), ""
    except AnalysisError as error:
        return None, str(error)


def _changes(effects: LrDecayEffects | None) -> list[ChangeView]:
    if effects is None:
        return []
    return [
        ChangeView(sentence(change, effects.energy_k), (change_table(change, effects.energy_k), factor_table(change)))
        for change in effects.changes
    ]


def _trends(effects: LrDecayEffects | None) -> list[ChangeView]:
    return [
        ChangeView(trend_sentence(course, effects.energy_k), (trend_table(course, effects.energy_k),))
        for course in (effects.trends if effects else ())
        if effects is not None
    ]


def _stages(run: Run) -> Table | None:
    """The stages that rules found, with their rules and false-alarm rates; None where there is none."""
    try:
        found, unjudged = judge(run)
    except AnalysisError:
        return None  # the figure's own refusal says why, under "Not shown"
    if not found:
        return None
    rows = [
        [s.name, f"{count(s.first)} to {count(s.last)}", count(s.snapshots), s.level, s.rule, number(s.false_alarm, 2)]
        for s in found
    ]
    heads = ["stage", "steps", "snapshots", "level", "rule and null", "false-alarm rate"]
    notes = tuple(f"Not judged: {reason}." for reason in unjudged)
    return Table("Stages of training", heads, rows, notes, text=frozenset({1, 3, 4}))


def _facts(run: Run) -> list[tuple[str, str]]:
    """The strip under the headline: label and value."""
    settings = run.settings
    facts = [
        ("probe points N", count(run.count)),
        ("outputs O", count(run.outputs)),
        ("parameters P", count(int(settings["parameter_count"])) if "parameter_count" in settings else "–"),
        ("snapshots", _snapshots(run)),
        ("trained on", seen(run)),
        ("output reduction", plain(settings.get("output", "–"))),
        *([("gauge", plain(run.gauge))] if run.gauge != "raw" else []),
        ("loss", plain(settings.get("loss") or "none").replace("_", " ")),
    ]
    return facts


def _snapshots(run: Run) -> str:
    """How many there are, those of a group that have no eigensystem apart."""
    light = int((run.taken & ~run.measured).sum())
    return f"{count(len(run) - light)}, and {count(light)} light" if light else count(len(run))


def _failures(run: Run) -> list[str]:
    """Snapshots without a measurement, one line each, with their reasons."""
    messages = run.dataset["message"].values if "message" in run.dataset else [""] * len(run)
    return [
        f"step {count(run.steps[row])}: {plain(messages[row]) or 'this probe was not measured'}"
        for row in range(len(run))
        if not run.taken[row]
    ]


def _definitions(run: Run) -> list[tuple[str, str, str, str, str]]:
    """Name, formula, unit, source and reading of every stored observable, as the catalogue has them."""
    from kerneltrack.observables import catalogue

    known = catalogue()
    found = []
    for name in sorted(map(str, run.dataset.data_vars)):
        entry, stored = known.get(name), run.dataset[name].attrs
        if entry is not None:
            found.append((name, entry.formula, entry.units, entry.source, entry.reading))
        elif stored.get("formula"):
            formula, units, source, reading = (
                plain(stored.get(key, "")) for key in ("formula", "units", "source", "reading")
            )
            found.append((name, formula, units, source, reading))
    return found


def _provenance(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of (key, value); the private one stays in the archive."""
    sections: list[tuple[str, Mapping[str, Any]]] = [
        ("What was measured", {"probe": run.probe, "probe fingerprint": run.fingerprint, **run.settings}),
        ("Probe identity", run.identity or {}),
        ("Run", run.provenance.get("run", {})),
        ("Metadata", run.provenance.get("metadata", {})),
    ]
    return [(title, [(plain(k), value_text(v)) for k, v in section.items()]) for title, section in sections if section]
