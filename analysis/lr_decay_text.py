"""Learning-rate changes in words and tables. "Was followed by" always; "effect" only beside a control."""

from __future__ import annotations

import numpy as np

from .lr_decay import ChangeEffects, LrDecayEffects, Moment, TrendCourse
from .text import Table, count, number, signed, subscript

#: How many modes the table of factors lists.
_MODES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


def sentence(effects: ChangeEffects, energy_k: tuple[int, ...]) -> str:
    """What one change was followed by, in one or two plain sentences with their numbers."""
    clauses = [_ratio_clause(effects), _residual_clause(effects, energy_k), _growth_clause(effects)]
    told = [clause for clause in clauses if clause]
    followed = f" This was followed by {_joined(told)}." if told else ""
    return f"{_what(effects)}{followed} {_effect_sentence(effects, energy_k)}".strip()


def trend_sentence(course: TrendCourse) -> str:
    """The course of a continuous schedule, without a before and an after."""
    ratios = [m.numbers.get("stability_ratio", float("nan")) for m in (course.start, course.end)]
    stability = (
        f"; λ₁ stood at {number(ratios[0], 2)} of its bound at the start and at {number(ratios[1], 2)} at the end"
        if np.all(np.isfinite(ratios)) else ""
    )  # fmt: skip
    return (
        f"From step {count(course.start.step)} to {count(course.end.step)} the learning rate moved continuously from "
        f"{course.rates[0]:g} to {course.rates[1]:g} (Ση ≈ {number(course.trend.travel)}){stability}. A trend has "
        "no before and after."
    )


def change_table(effects: ChangeEffects, energy_k: tuple[int, ...]) -> Table:
    """Before, one step after, later; with a control, its value and the difference under each row."""
    moments = (effects.before, *effects.after)
    paired = effects.has_control
    rows: list[list[str]] = []
    quiet: set[int] = set()
    for name, label in _quantities(effects, energy_k):
        rows.append([label, *(_cell(m.numbers, name) for m in moments)])
        if paired and any(np.isfinite(m.control.get(name, np.nan)) for m in moments):
            quiet |= {len(rows), len(rows) + 1}
            rows.append(["  control", *(_cell(m.control, name) for m in moments)])
            rows.append(["  difference", *(_difference(m, name) for m in moments)])
    return Table(
        _title(effects), ["", *(_head(effects, m) for m in moments)], rows,
        () if paired else (f"No effect is claimed: {effects.no_control}.",), frozenset(quiet),
    )  # fmt: skip


def factor_table(effects: ChangeEffects) -> Table:
    """Predicted and measured factors of the first update at the new rate."""
    factors = effects.factors
    if factors is None:
        return Table("First update, mode by mode", ["mode i"], [], (f"No prediction: {effects.no_factors}.",))
    rows = [
        [
            str(i), number(float(factors.energy[i - 1]), 2), number(float(factors.predicted_old[i - 1])),
            number(float(factors.predicted[i - 1])), number(float(factors.measured[i - 1])),
        ]
        for i in _MODES if i <= len(factors.predicted)
    ]  # fmt: skip
    heads = ["mode i", "share of ‖m‖² before", "|1 − η_old λᵢ/N|", "|1 − η_new λᵢ/N|", "measured"]
    note = (
        "Measured: |⟨vᵢ, m⟩| after the first update at the new rate over the same before it, both on the "
        "eigenvectors before it. "
        "The prediction lets the kernel stand still and the modes decay one by one."
    )
    return Table("First update at the new rate, mode by mode", heads, rows, (note,))


def tables(effects: LrDecayEffects) -> list[Table]:
    """All tables of a run, in order."""
    return [
        table for change in effects.changes for table in (change_table(change, effects.energy_k), factor_table(change))
    ]


def nearest(energy_k: tuple[int, ...], wanted: int) -> int | None:
    """The k of the archive's grid nearest to ``wanted`` in log k."""
    return min(energy_k, key=lambda k: abs(np.log(k / wanted))) if energy_k else None


def old_bound(effects: ChangeEffects) -> float:
    """The bound that the old rate set for the state at the change: the bound scales as 1/η if all rates scale alike."""
    change = effects.change
    ratios = {old / new for old, new in zip(change.old, change.new, strict=True) if new}
    bound = effects.before.numbers.get("stability_bound", float("nan"))
    if not change.exact:
        return bound  # the row before the change carries the old rate itself
    return bound / ratios.pop() if len(ratios) == 1 else float("nan")


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
    if before is None or later is None or not np.isfinite(bound + later):
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
    return f"{', '.join(grown)}{_after(effects.after[-1])}" if grown else ""


def _effect_sentence(effects: ChangeEffects, energy_k: tuple[int, ...]) -> str:
    if not effects.has_control:
        return ""
    k = nearest(energy_k, 20)
    parts = []
    for name, label, moments in (
        (f"residual_energy_{k}", f"the residual energy in the first {k} modes", effects.after),
        ("eigenvalue_1", "λ₁", effects.after[::-1]),
    ):
        paired = [m for m in moments if name in m.difference and np.isfinite(m.difference[name])]
        if paired:
            m = paired[0]
            parts.append(f"{label} {number(m.numbers[name], 2)} against {number(m.control[name], 2)}{_after(m)}")
    return f"Effect, against the control that kept the rate: {_joined(parts)}." if parts else ""


def _after(m: Moment) -> str:
    return f" ({'one step' if m.offset == 1 else f'{count(m.offset)} steps'} after)"


def _joined(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}" if clauses else ""


def _quantities(effects: ChangeEffects, energy_k: tuple[int, ...]) -> list[tuple[str, str]]:
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
        ("kernel_velocity", "kernel velocity"),
        ("linearization_error", "linearisation error, one update"),
        ("kernel_flow_error", "kernel-flow error"),
        ("anchored_linearization_error", "linearisation error, anchored"),
        ("probe_loss", "loss on the probe"),
    ]
    moments = (effects.before, *effects.after)
    known = {name for m in moments for name, value in m.numbers.items() if np.isfinite(value)}
    return [(name, label) for name, label in dict(wanted).items() if name in known]


def _title(effects: ChangeEffects) -> str:
    change = effects.change
    rates = "; ".join(f"{old:g} → {new:g}" for old, new in zip(change.old, change.new, strict=True))
    when = f"step {count(change.step)}" if change.exact else f"steps {count(change.earliest)} to {count(change.step)}"
    return f"Learning rate {rates} at {when}"


def _head(effects: ChangeEffects, m: Moment) -> str:
    if m is effects.before:
        return "before" if m.offset == 0 else f"before ({count(m.offset).replace('-', '−')})"
    return f"+{count(m.offset)}" if effects.change.exact else f"step {count(m.step)}"


def _cell(numbers: object, name: str) -> str:
    assert isinstance(numbers, dict)
    return number(numbers.get(name, float("nan")))


def _difference(m: Moment, name: str) -> str:
    return signed(m.difference.get(name, float("nan")))
