"""Small curves that move with the page's slider: the spectrum and the energies of one snapshot, as SVG paths.

The axes hold for all snapshots, so that what moves is the data. Both are drawn over log i: the spectrum as log λ_i/N,
the energies as E(φ, k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..derived import Function, energy_profile
from ..figures import decade
from ..text import count
from ..trajectory import Floats, Run

WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 26
_POINTS = 48
_ENERGIES: tuple[tuple[Function, str], ...] = (
    ("target", "target y"),
    ("output", "output f"),
    ("residual", "residual m"),
)


@dataclass(frozen=True)
class Curve:
    """One curve of a panel.

    Attributes:
        name: key into a frame's paths.
        label: what it is.
        colour: a CSS variable.
    """

    name: str
    label: str
    colour: str


@dataclass(frozen=True)
class MovingPanel:
    """Axes that stay, curves that move.

    Attributes:
        title: above it.
        x: (place, text) of the ticks.
        y: the same.
        curves: what moves.
    """

    title: str
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]


def moving_panels(run: Run, rows: Sequence[int]) -> tuple[list[MovingPanel], list[dict[str, str]]]:
    """Panels, and for each row its paths by curve; empty where the archive holds neither eigenvalues nor energies."""
    panels: list[MovingPanel] = []
    paths: list[dict[str, str]] = [{} for _ in rows]
    if run.has("eigenvalues") and (shown := _above_rounding(run, rows)).size and np.isfinite(shown).any():
        panels.append(_spectrum(shown, paths))
    functions = [(f, label) for f, label in _ENERGIES if run.has(f"{f}_coefficients")]
    if functions:
        panels.append(_energies(run, rows, functions, paths))
    return panels, paths


def _above_rounding(run: Run, rows: Sequence[int]) -> Floats:
    """λ_i/N (rows, modes), NaN where it is not above the noise floor."""
    values = run.values("eigenvalues")[list(rows)] / run.count
    floor = run.values("noise_floor")[list(rows)] / run.count if run.has("noise_floor") else np.zeros(len(rows))
    return np.where(np.isfinite(values) & (values > np.maximum(floor, 0)[:, None]), values, np.nan)


def _spectrum(shown: Floats, paths: list[dict[str, str]]) -> MovingPanel:
    chosen = _chosen(shown.shape[1])
    top, bottom = np.log10(np.nanmax(shown)), np.log10(np.nanmin(shown))
    reach = max(top - bottom, 1e-9)
    for path, row in zip(paths, shown, strict=True):
        with np.errstate(invalid="ignore"):
            path["spectrum"] = _path(chosen, shown.shape[1], (np.log10(row[chosen - 1]) - bottom) / reach)
    first, last = int(np.ceil(bottom)), int(np.floor(top))
    every = max(1, -(-(last - first + 1) // 5))
    ticks = tuple((_up((power - bottom) / reach), decade(10.0**power)) for power in range(first, last + 1, every))
    return MovingPanel(
        "Spectrum: λᵢ/N over i", _mode_ticks(shown.shape[1]), ticks, (Curve("spectrum", "λᵢ/N", "var(--category-1)"),)
    )


def _energies(
    run: Run, rows: Sequence[int], functions: list[tuple[Function, str]], paths: list[dict[str, str]]
) -> MovingPanel:
    for function, _ in functions:
        for path, row in zip(paths, rows, strict=True):
            profile = energy_profile(run, function, row)
            chosen = _chosen(len(profile))
            path[function] = _path(chosen, len(profile), profile[chosen - 1])
    modes = len(energy_profile(run, functions[0][0], rows[0]))
    curves = tuple(Curve(f, label, f"var(--category-{i})") for i, (f, label) in enumerate(functions, 1))
    ticks = tuple((_up(level), f"{level:g}") for level in (0, 0.25, 0.5, 0.75, 1))
    return MovingPanel("Energy in the first k modes: E(φ, k) over k", _mode_ticks(modes), ticks, curves)


def _chosen(modes: int) -> np.ndarray:
    """Mode indices (from 1) that carry a curve: evenly spread in log i."""
    return np.unique(np.round(np.geomspace(1, modes, _POINTS)).astype(int))


def _mode_ticks(modes: int) -> tuple[tuple[float, str], ...]:
    powers = [10**j for j in range(int(np.log10(modes)) + 1)]
    return tuple((_across(power, modes), count(power)) for power in powers)


def _path(index: np.ndarray, modes: int, heights: Floats) -> str:
    points = [
        f"{_across(int(i), modes):.1f} {_up(float(h)):.1f}"
        for i, h in zip(index, heights, strict=True)
        if np.isfinite(h)
    ]
    return "M" + "L".join(points) if points else ""


def _across(i: int, modes: int) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * float(np.log(i) / max(np.log(modes), 1e-9))


def _up(share: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share
