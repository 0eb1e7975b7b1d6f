"""What the two papers claim of width, each claim beside what the runs of the sweep say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from claims import Claim
from course import Course
from lazy_limit import Lazy
from odd_digits import odd_digits
from sweep_results import Trained
from width_runs import SETTINGS

#: keys of the claims that the page explains where they do not hold
KERNEL, LINEAR, FIRST = "the kernel moves less", "the linearised network follows", "standard, η ∝ 1/λ_1: first layer"
LAST = "standard, η ∝ 1/λ_1: last hidden layer"
LIMITS = "the limit does not describe large networks in practice: its benefits need widths far beyond depth"
NEURONS = "single hidden neurons move less and less with width"
AGGREGATE = "the norm over the layer does not vanish with width"
CONSTANT = "the activations of the last hidden layer do not stay constant"


def _kind(sweep: Trained, *kinds: str) -> list[str]:
    """The settings at hand of these parametrisations."""
    return [name for name in sweep.runs if name.rpartition("-")[2] in kinds]


def _lines(sweep: Trained, settings: list[str], number: str) -> str:
    return "; ".join(f"{name}: {sweep.course(name, number)}" for name in settings)


def _span(sweep: Trained, settings: list[str], number: str) -> tuple[float, float, str]:
    """Smallest, largest, and a text with the widths and runs."""
    values = np.concatenate([sweep.course(name, number).values for name in settings])
    text = f"{values.min():.3g} to {values.max():.3g} over {len(values)} runs ({', '.join(settings)})"
    return float(values.min()), float(values.max()), text


def exponent(sweep: Trained, key: str, abstract: str, number: str, expected: dict[str, float], why: str = "") -> Claim:
    """A claim that a number follows width to a power in the limit, by the corrected fit; the settings have to agree."""
    present = {name: s for name, s in expected.items() if name in sweep.runs}
    told = ", ".join(f"{name} {f'{s:g}'.replace('-', '−')}" for name, s in present.items())
    courses = {name: sweep.course(name, number) for name in present}
    answers = {courses[name].limit(s) for name, s in present.items()}
    holds = False if False in answers else None if None in answers else True
    measured = "; ".join(_course(courses[name], name, s) for name, s in present.items())
    return Claim(key, abstract, f"slope {told}{why}", "derived", measured, holds)


def _course(course: Course, name: str, exponent: float) -> str:
    """Slope, its last piece and the corrected exponent; in words where the slope is on one side of theory's."""
    low, high = course.interval
    shallow, steep = (high < exponent, low > exponent) if exponent > 0 else (low > exponent, high < exponent)
    side = "shallower" if shallow else "steeper" if steep else ""
    word = f", {side} at these widths" if side and exponent else ""
    last = f"{course.last_slope:.2f}".replace("-", "−")
    return f"{name}: {course}, {last} between the last two widths, {course.corrected}{word}"


def jacobian_claims(sweep: Trained) -> Iterator[Claim]:
    """Wenger, Dangel and Kristiadi: the stability conditions of Zhang, Martens and Grosse against width."""
    lazy, trajectory = _kind(sweep, "ntk", "standard"), "C' on the trajectory"
    for where, number in (("on the trajectory", trajectory), ("on the sphere of radius R", "C' on the sphere")):
        low, _, text = _span(sweep, lazy, number)
        yield Claim(
            f"the condition is broken {where}",
            LIMITS,
            "C' ≥ ½: the conditions are not met at practical widths",
            "read",
            text,
            low >= 0.5,
        )
    falling = [sweep.course(name, trajectory) for name in _kind(sweep, "ntk")]
    yield Claim(
        "C' falls with width",
        "",
        "slope below zero in NTK parametrisation, as ‖ΔJ‖ does",
        "derived",
        _lines(sweep, _kind(sweep, "ntk"), trajectory),
        all(c.interval[1] < 0 for c in falling),
    )
    if "relu-ntk" in sweep.runs:
        yield _infinite_claim(sweep)
    needed = "; ".join(f"{name}: {sweep.course(name, trajectory).reaches(0.5):,.0f}" for name in _kind(sweep, "ntk"))
    yield Claim(
        "the width at which C' would be ½",
        LIMITS,
        "above every width in use",
        "recalled",
        f"by extrapolating the fitted line: {needed}",
        None,
    )
    yield exponent(
        sweep,
        "the Jacobian moves",
        "",
        "‖ΔJ‖/‖J‖",
        {"relu-ntk": -0.25, "tanh-ntk": -0.5},
        " (ReLU: the share of flipped gates, m^−½, enters squared)",
    )
    yield exponent(sweep, KERNEL, "", "‖ΔΘ‖/‖Θ‖", {"relu-ntk": -1.0, "tanh-ntk": -1.0})
    steeper = [
        name
        for name in _kind(sweep, "ntk")
        if sweep.course(name, "‖ΔΘ‖/‖Θ‖").slope < sweep.course(name, "‖ΔJ‖/‖J‖").slope
    ]
    yield Claim(
        "a still kernel does not mean a still Jacobian",
        "",
        "‖ΔΘ‖/‖Θ‖ falls faster with width than ‖ΔJ‖/‖J‖",
        "derived",
        "; ".join(
            f"{name}: {sweep.course(name, '‖ΔΘ‖/‖Θ‖').medians[-1]:.3g} against {sweep.course(name, '‖ΔJ‖/‖J‖').medians[-1]:.3g}"
            " at the largest width"
            for name in _kind(sweep, "ntk")
        ),
        len(steeper) == len(_kind(sweep, "ntk")),
    )
    ratio = sweep.course("relu-ntk", "λ_min(Θ_0)/λ_min(Θ_∞)")
    yield Claim(
        "λ_min saturates",
        "",
        "λ_min(Θ_0) → λ_min(Θ_∞): beyond that only ‖ΔJ‖ can help",
        "derived",
        f"relu-ntk: {ratio}",
        bool(abs(1 - ratio.medians[-1]) < abs(1 - ratio.medians[0])),
    )
    _, high, text = _span(sweep, lazy, "‖Δθ‖/R")
    yield Claim(
        "training stays in the ball",
        "",
        "‖θ_t − θ_0‖ ≤ R/3, which a linear model cannot leave",
        "derived",
        text,
        high <= 1 / 3,
    )
    yield exponent(
        sweep,
        LINEAR,
        "",
        "anchored error",
        {"relu-ntk": -1.0, "tanh-ntk": -1.0},
        " (squared and relative; ½ Δθᵀ∇²f Δθ is of order m^−½)",
    )
    control = _kind(sweep, "mup")
    for number in ("‖ΔJ‖/‖J‖", "‖ΔΘ‖/‖Θ‖"):
        yield exponent(sweep, f"control: μP does not become lazy, {number}", "", number, dict.fromkeys(control, 0.0))
    yield exponent(
        sweep,
        "closed form against finite networks",
        "",
        "‖Θ_0 − Θ_∞‖/‖Θ_∞‖",
        {"relu-ntk": -0.5},
        " (a mean over m neurons)",
    )


def _infinite_claim(sweep: Trained) -> Claim:
    """C' with λ_min of the infinitely wide network instead of the network's own: what is left is the Jacobian's own fall."""
    own, infinite = (sweep.course("relu-ntk", number) for number in ("C' on the trajectory", "C' of Θ_∞"))
    share = 1 - infinite.slope / own.slope
    return Claim(
        "… and with λ_min of infinite width, 3‖ΔJ‖₂/√λ_min(Θ_∞)",
        LIMITS,
        "broken too at every width; it falls less steeply than C', for λ_min(Θ_0) grows towards λ_min(Θ_∞)",
        "derived",
        f"relu-ntk: {infinite}; of the slope of C' {100 * share:.0f}% is that of λ_min; ½ by extrapolation at a width of "
        f"{infinite.reaches(0.5):,.0f}",
        bool(infinite.values.min() >= 0.5 and own.slope < infinite.slope < 0),
    )


def activation_claims(sweep: Trained) -> Iterator[Claim]:
    """St-Arnaud, Carvalho and Farnadi: single neurons against the whole layer. Pre-activations of the last hidden layer."""
    lazy = ("relu-ntk", "tanh-ntk")
    half, zero = dict.fromkeys(lazy, -0.5), dict.fromkeys(lazy, 0.0)
    yield exponent(sweep, "a neuron's deviation (RMS)", NEURONS, "neuron RMS", half)
    yield exponent(sweep, "the layer's deviation ‖Δ‖", AGGREGATE, "layer norm", zero)
    present = [name for name in lazy if name in sweep.runs]
    courses = {name: (sweep.course(name, "largest neuron"), sweep.course(name, "neuron RMS")) for name in present}
    yield Claim(
        "the largest deviation of a neuron",
        NEURONS,
        "falls, less steeply than the RMS (√log m)",
        "derived",
        _lines(sweep, list(courses), "largest neuron"),
        all(rms.slope < top.slope < 0 for top, rms in courses.values()),
    )
    yield exponent(sweep, "the layer's deviation relative to its size", "", "relative norm", half)
    yield exponent(sweep, "gates that flip", "", "gate flips", {"relu-ntk": -0.5})
    yield exponent(sweep, "the parameters' path ‖θ_T − θ_0‖", "", "‖Δθ‖", zero)
    bounded = _kind(sweep, "ntk", "mup", "standard")
    bounded = [name for name in bounded if not name.startswith("cnn")]
    _, used, text = _span(sweep, bounded, "bound used")
    yield Claim(
        "the lower bound ‖Δ(x)‖ ≥ |w_0·Δφ(x)|/‖w_0‖",
        CONSTANT,
        "met at every point, snapshot and seed: at most 1",
        "derived",
        f"bound over deviation, largest of a run: {text}",
        used <= 1,
    )
    yield exponent(sweep, "the lower bound does not vanish", CONSTANT, "lower bound", zero)
    mup = _kind(sweep, "mup")
    yield exponent(sweep, "control: a neuron in μP", "", "neuron RMS", dict.fromkeys(mup, 0.0))
    yield exponent(sweep, "control: the layer in μP", "", "layer norm", dict.fromkeys(mup, 0.5))
    standard = _kind(sweep, "standard")
    if standard:
        yield exponent(sweep, LAST, "", "neuron RMS", dict.fromkeys(standard, -0.5))
        yield exponent(
            sweep,
            FIRST,
            "",
            "neuron RMS, first layer",
            dict.fromkeys(standard, -1.5),
            " (its rate falls with m and nothing makes up for it)",
        )


def why_not(sweep: Trained, refuted: set[str], settings: Mapping[str, Any]) -> Iterator[str]:
    """For the exponents that did not come out: a further number from the same archives, and what it suggests."""

    def slopes(number: str, settings: list[str], factor: float = 1.0) -> str:
        found = ((name, sweep.course(name, number)) for name in settings if name in sweep.runs)
        return ", ".join(f"{name} {factor * c.slope:.2f}" for name, c in found).replace("-0", "−0").replace("-1", "−1")

    def ends(number: str, settings: list[str]) -> str:
        found = ((name, sweep.course(name, number).last_slope) for name in settings if name in sweep.runs)
        return ", ".join(f"{name} {slope:.2f}" for name, slope in found).replace(" -", " −")

    lazy, standard = ["relu-ntk", "tanh-ntk"], _kind(sweep, "standard")
    if KERNEL in refuted:
        yield (
            f"*{KERNEL}*: the slopes are shallower than −1; between the two largest widths they are "
            f"{ends('‖ΔΘ‖/‖Θ‖', lazy)}. The narrow networks are not lazy. "
            "And for ReLU the flipped gates, a share p of m neurons, change the mean over neurons by random signs of size (p/m)^½, "
            "which with p ∝ m^−½ is m^−¾ and outlasts the drift of m^−1; "
            f"the slope of the measured (p/m)^½ is {slopes('(gate flips/m)^½', ['relu-ntk'])}, and that of the kernel "
            f"{slopes('‖ΔΘ‖/‖Θ‖', ['relu-ntk'])}."
        )
    if LINEAR in refuted:
        yield (
            f"*{LINEAR}*: it follows better than expected. −1 comes from the norm of ∇²f, a bound; what moves the output away from "
            "the linearised one is the drift of the kernel along the way, and the error, which is squared, should have twice "
            f"the slope of ‖ΔΘ‖/‖Θ‖: that is {slopes('‖ΔΘ‖/‖Θ‖', lazy, 2.0)}, where the error itself has "
            f"{slopes('anchored error', lazy)}."
        )
    if FIRST in refuted:
        yield (
            f"*{FIRST}*: −3/2 supposes η ∝ 1/m, but the kernel of the first layer does not grow with m, so λ_1 is not yet "
            f"proportional to m: the measured η/√m has slope {slopes('η/√m', standard)} where the deviation has "
            f"{slopes('neuron RMS, first layer', standard)}, and between the two largest widths the deviation has "
            f"{ends('neuron RMS, first layer', standard)}."
        )
    if LAST in refuted:
        yield (
            f"*{LAST}*: two powers mix. The second layer moves its neurons by m^−½; to it comes what the first layer does to them, "
            "whose rate falls behind as 1/m, by m^−3/2. The infinitely wide network, linearised and trained at these rates "
            "([lazy_limit.py](lazy_limit.py), by `kt.analytic`), says how much without a fit: "
            f"{'; '.join(_predicted(sweep, name, settings) for name in standard)}. The narrow networks are not lazy and stay below "
            "it, which flattens the measured slope where the predicted one is steepest."
        )


def _predicted(sweep: Trained, name: str, settings: Mapping[str, Any]) -> str:
    """RMS of a neuron of the last hidden layer by the linearised network, beside the measured one; and its slope far beyond."""
    course, (x, y) = sweep.course(name, "neuron RMS"), odd_digits(settings["samples"])
    activation, parametrisation = SETTINGS[name].activation, SETTINGS[name].parametrisation
    lazy = Lazy(x.double(), y.double()[:, 0], activation, parametrisation, settings["steps"])
    widths = [int(width) for width in course.sorted_widths]
    found = np.array([lazy.deviation(width) for width in (*widths, 64 * widths[-1], 128 * widths[-1])])
    shares = ", ".join(f"{m / f:.2f} ({w})" for w, m, f in zip(widths, course.medians, found[:-2], strict=True))
    slope, far = np.log(found[-3] / found[-4]) / np.log(widths[-1] / widths[-2]), np.log2(found[-1] / found[-2])
    text = (
        f"{name} {found[-3]:.3g} at width {widths[-1]}, where {course.medians[-1]:.3g} is measured (measured over predicted: "
        f"{shares}), slope {slope:.2f} between the two largest widths, where {course.last_slope:.2f} is measured, and {far:.2f} at "
        "64 times the width"
    )
    return text.replace(" -", " −")
