"""Learning-rate changes in words and tables. "Was followed by" always; "effect" only beside a control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..derived import nearest
from ..forecasting import score_sentence, score_table
from ..text import Table, count, number, signed, subscript
from .change_effects import ChangeEffects
from .effects import LrDecayEffects, TrendCurve
from .time_point import TimePoint

#: How many modes the table of factors lists.
_MODES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


def sentence(effects: ChangeEffects, energy_k: tuple[int, ...]) -> str:
    """What one change was followed by, in one or two plain sentences with their numbers."""
    clauses = [
        _ratio_clause(effects),
        _residual_clause(effects, energy_k),
        _growth_clause(effects),
        _target_clause(effects),
    ]
    given = [clause for clause in clauses if clause]
    followed = f" This was followed by {_joined(given)}." if given else ""
    scored = "" if effects.score is None else score_sentence(effects.score)
    return " ".join(filter(None, (f"{_what(effects)}{followed}", _effect_sentence(effects, energy_k), scored)))


def trend_sentence(course: TrendCurve, energy_k: tuple[int, ...] = ()) -> str:
    """The course of a continuous schedule, without a before and an after."""
    k = nearest(energy_k, 20)
    wanted = [
        ("stability_ratio", "λ₁ over its bound"),
        (f"residual_energy_{k}", f"residual energy in the first {k} modes"),
        ("effective_rank", "effective rank"),
    ]
    given = [
        f"{label} from {number(values[0], 2)} to {number(values[-1], 2)} (τ = {number(course.trends[name], 2)})"
        for name, label in wanted
        if name in course.trends and np.isfinite(values := [m.numbers[name] for m in (course.start, course.end)]).all()
    ]
    courses = f": {_joined(given)}" if given else ""
    return (
        f"From step {count(course.start.step)} to {count(course.end.step)} the learning rate moved continuously from "
        f"{course.rates[0]:g} to {course.rates[1]:g} (Ση ≈ {number(course.trend.travel)}){courses}. A trend has no "
        f"before and after. {_effect_sentence(course, energy_k)}"
    ).strip()


def trend_table(course: TrendCurve, energy_k: tuple[int, ...]) -> Table:
    """What stood at a few moments of a continuous schedule, over Ση, and Kendall's τ of each course with Ση."""
    rows = [
        [label, *(_cell(m.numbers, name) for m in course.moments), number(course.trends.get(name, float("nan")), 2)]
        for name, label in _held(course.moments, energy_k)
    ]
    heads = [f"Ση {number(t)}" for t in course.times]
    return Table(
        f"Over the learning rate's course, steps {count(course.start.step)} to {count(course.end.step)}",
        ["", *heads, "τ"],
        [["learning rate", *(number(rate) for rate in course.moment_rates), ""], *rows],
        (
            "τ is Kendall's rank correlation with Ση over all snapshots of the stretch: ±1 for a course that only rises or "
            "falls. It says that something moved while the rate did, not that the rate moved it.",
        ),
    )


def change_table(effects: ChangeEffects, energy_k: tuple[int, ...]) -> Table:
    """Before, one step after, later; with a control, its value and the difference under each row."""
    moments = (effects.before, *effects.after)
    paired = effects.has_control
    rows: list[list[str]] = []
    quiet: set[int] = set()
    for name, label in _held(moments, energy_k):
        rows.append([label, *(_cell(m.numbers, name) for m in moments)])
        if paired and any(np.isfinite(m.control.get(name, np.nan)) for m in moments):
            quiet |= {len(rows), len(rows) + 1}
            rows.append(["  control", *(_cell(m.control, name) for m in moments)])
            rows.append(["  difference", *(_difference(m, name) for m in moments)])
            if effects.null.kind == "placebos":
                quiet.add(len(rows))
                spread = [effects.null.spread.get(m.step, {}).get(name, float("nan")) for m in moments]
                rows.append(
                    [
                        "  other batches",
                        *("" if m is effects.before else _spread(s) for m, s in zip(moments, spread, strict=True)),
                    ]
                )
    return Table(
        _title(effects),
        ["", *(_head(effects, m) for m in moments)],
        rows,
        (effects.null.sentence,) if paired else (f"No effect is claimed: {effects.no_control}.",),
        frozenset(quiet),
    )


def _spread(largest: float) -> str:
    return f"±{number(largest)}" if np.isfinite(largest) else number(largest)


def factor_table(effects: ChangeEffects) -> Table:
    """Predicted and measured factors of the first update at the new rate."""
    factors = effects.factors
    if factors is None:
        return Table("First update, mode by mode", ["mode i"], [], (f"No prediction: {effects.no_factors}.",))
    rows = [
        [
            str(i),
            number(float(factors.energy[i - 1]), 2),
            number(float(factors.predicted_old[i - 1])),
            number(float(factors.predicted[i - 1])),
            number(float(factors.measured[i - 1])),
        ]
        for i in _MODES
        if i <= len(factors.predicted)
    ]
    heads = ["mode i", "share of ‖m‖² before", "|1 − η_old λᵢ/N|", "|1 − η_new λᵢ/N|", "measured"]
    note = (
        "Measured: |⟨vᵢ, m⟩| after the first update at the new rate over the same before it, both on the "
        "eigenvectors before it. "
        "The prediction lets the kernel stand still and the modes decay one by one."
    )
    if factors.not_measured:
        note = f"Nothing was measured: {factors.not_measured}. {note}"
    return Table("First update at the new rate, mode by mode", heads, rows, (note,))


def tables(effects: LrDecayEffects) -> list[Table]:
    """All tables of a run, in order."""
    changes = [
        table
        for change in effects.changes
        for table in (change_table(change, effects.energy_k), factor_table(change), *_scored(change))
    ]
    trends = [trend_table(course, effects.energy_k) for course in effects.trends]
    return [*changes, *trends, *([Table("", [""], [], effects.notes)] if effects.notes else [])]


def _scored(effects: ChangeEffects) -> list[Table]:
    return [] if effects.score is None else [score_table(effects.score)]


def old_bound(effects: ChangeEffects) -> float:
    """The bound that the old rate set for the state at the change: the bound scales as 1/η if all rates scale alike."""
    change = effects.change
    ratios = {old / new if new else np.inf for old, new in zip(change.old, change.new, strict=True) if old or new}
    bound = effects.before.numbers.get("stability_bound", float("nan"))
    if not change.exact:
        return bound  # the row before the change carries the old rate itself
    ratio = ratios.pop() if len(ratios) == 1 else 0.0
    return bound / ratio if 0 < ratio < np.inf else float("nan")


def _what(effects: ChangeEffects) -> str:
    change = effects.change
    verb = "fell" if sum(change.new) < sum(change.old) else "rose"
    when = (
        f"At step {count(change.step)}"
        if change.exact
        else f"Between steps {count(change.earliest - 1)} and {count(change.step)}"
    )
    if len(change.old) == 1:
        return f"{when} the learning rate {verb} from {change.old[0]:g} to {change.new[0]:g}."
    groups = "; ".join(
        f"group {i}: {old:g} to {new:g}"
        for i, (old, new) in enumerate(zip(change.old, change.new, strict=True))
        if old != new
    )
    return f"{when} learning rates {verb} ({groups})."


def _ratio_clause(effects: ChangeEffects) -> str:
    before, later = effects.before.numbers.get("eigenvalue_1"), effects.after[-1].numbers.get("stability_ratio")
    bound = old_bound(effects)
    if before is None or later is None or not np.isfinite(bound + later) or not bound:
        return ""
    return (
        f"λ₁ going from {number(before / bound, 2)} of the old bound to {number(later, 2)} of the new one"
        f"{_after(effects.after[-1])}"
    )


def _residual_clause(effects: ChangeEffects, energy_k: tuple[int, ...]) -> str:
    k = nearest(energy_k, 20)
    values = [m.numbers.get(f"residual_energy_{k}", float("nan")) for m in (effects.before, effects.after[0])]
    if not np.all(np.isfinite(values)):
        return ""
    course = f"from {number(values[0], 2)} to {number(values[1], 2)}{_after(effects.after[0])}"
    return f"the residual energy in the first {k} modes going {course}"


def _growth_clause(effects: ChangeEffects) -> str:
    grown = []
    for i in (1, 10, 100):
        old, new = (m.numbers.get(f"eigenvalue_{i}", float("nan")) for m in (effects.before, effects.after[-1]))
        if old > 0 and np.isfinite(new):
            grown.append(f"λ{subscript(i)} ×{number(new / old, 2)}")
    if not grown:
        return ""
    change, kept = effects.change, ""
    if len(change.old) == 1 and change.new[0]:
        kept = f"; ×{number(change.old[0] / change.new[0], 2)} would keep ηλ"
    return f"{', '.join(grown)} ({_when(effects.after[-1])}{kept})"


def _target_clause(effects: ChangeEffects) -> str:
    """Where target energy moved in k between the state before the change and the last one after it."""
    moves = effects.target_moves
    fell, rose = ([k for k, move in moves.items() if sign * move > 0] for sign in (-1, 1))
    if not fell or not rose:
        return f"target energy {'rising' if rose else 'falling'} at every k" if fell or rose else ""
    if max(fell) < min(rose):
        return f"target energy falling up to k = {max(fell)} and rising from k = {min(rose)} on"
    if max(rose) < min(fell):
        return f"target energy rising up to k = {max(rose)} and falling from k = {min(fell)} on"
    k, move = max(moves.items(), key=lambda item: abs(item[1]))
    return f"target energy moving both ways, most at k = {k} ({signed(move, 2)})"


def _effect_sentence(effects: ChangeEffects | TrendCurve, energy_k: tuple[int, ...]) -> str:
    if not effects.has_control:
        return ""
    k = nearest(energy_k, 20)
    told: list[str] = []
    within: list[str] = []
    for name, label, moments in (
        (f"residual_energy_{k}", f"the residual energy in the first {k} modes", effects.after),
        ("eigenvalue_1", "λ₁", effects.after[::-1]),
    ):
        paired = [m for m in moments if name in m.difference and np.isfinite(m.difference[name])]
        if paired:
            m = paired[0]
            words = f"{label} {number(m.numbers[name], 2)} against {number(m.control[name], 2)}{_after(m)}"
            (told if effects.tells(m, name) else within).append(words)
    if not told and not within:
        return ""
    found = [f"Effect, against the control that kept the rate: {_joined(told)}."] if told else []
    if within:
        means = (
            "Against the control that kept the rate"
            if effects.null.kind == "missing"
            else "No more than other batches do"
        )
        found.append(f"{means}: {_joined(within)}.")
    return " ".join([*found, effects.null.sentence])


def _after(m: TimePoint) -> str:
    return f" ({_when(m)})"


def _when(m: TimePoint) -> str:
    return f"{'one step' if m.offset == 1 else f'{count(m.offset)} steps'} after"


def _joined(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}" if clauses else ""


def quantities(energy_k: tuple[int, ...]) -> list[tuple[str, str]]:
    """What the tables list, in order: name and label."""
    small, top, wide = nearest(energy_k, 5), nearest(energy_k, 20), nearest(energy_k, 400)
    wanted = [
        ("eigenvalue_1", "λ₁"),
        ("stability_bound", "bound on λ₁ at the coming update"),
        ("stability_ratio", "λ₁ over that bound"),
        ("eigenvalue_10", "λ₁₀"),
        ("eigenvalue_100", "λ₁₀₀"),
        (f"residual_energy_{top}", f"residual energy, first {top}"),
        (f"target_energy_{small}", f"target energy, first {small}"),
        (f"target_energy_{top}", f"target energy, first {top}"),
        (f"target_energy_{wide}", f"target energy, first {wide}"),
        ("effective_rank", "effective rank"),
        ("kernel_distance_from_initial", "kernel distance from start"),
        ("kernel_angular_velocity", "angular velocity of the kernel"),
        ("linearization_error", "linearisation error, one update"),
        ("kernel_flow_error", "kernel-flow error"),
        ("anchored_linearization_error", "linearisation error, anchored"),
        ("probe_loss", "loss on the probe"),
    ]
    return list(dict(wanted).items())


def _held(moments: Sequence[TimePoint], energy_k: tuple[int, ...]) -> list[tuple[str, str]]:
    known = {name for m in moments for name, value in m.numbers.items() if np.isfinite(value)}
    return [(name, label) for name, label in quantities(energy_k) if name in known]


def _title(effects: ChangeEffects) -> str:
    change = effects.change
    rates = "; ".join(f"{old:g} → {new:g}" for old, new in zip(change.old, change.new, strict=True))
    when = f"step {count(change.step)}" if change.exact else f"steps {count(change.earliest)} to {count(change.step)}"
    return f"Learning rate {rates} at {when}"


def _head(effects: ChangeEffects, m: TimePoint) -> str:
    if m is effects.before:
        return "before" if m.offset == 0 else f"before ({count(m.offset).replace('-', '−')})"
    return f"+{count(m.offset)}" if effects.change.exact else f"step {count(m.step)}"


def _cell(numbers: object, name: str) -> str:
    assert isinstance(numbers, dict)
    return number(numbers.get(name, float("nan")))


def _difference(m: TimePoint, name: str) -> str:
    return signed(m.difference.get(name, float("nan")))
