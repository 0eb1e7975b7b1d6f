"""Lines that are drawn to compare with: where they lie, in which dashes, and colours that stand for an order.

Oracle: the archive read with h5py and the captions' words. The run has two outputs, so that modes are not samples, and
what is compared with drifts, so that the first snapshot is not the last.
"""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from kerneltrack.analysis import load
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.figures.panels import Series, bars, functions
from kerneltrack.analysis.figures.style import DARK, PAPER, SLIDE
from tests.analysis.h5_by_hand import Raw

#: What matplotlib makes of a pattern: the lengths of dashes and gaps over the width of the line.
DOTTED, DASHED, DASH_DOTTED = (1, 2), (4, 3), (6, 2, 1, 2)


@pytest.fixture(scope="module")
def drifting(synthetic, tmp_path_factory):
    """(scene, raw) of a run of two outputs whose stored target energies and nulls are other ones at every snapshot."""
    truth = synthetic.simulate(outputs=2)
    rows = []
    for number, row in enumerate(synthetic.snapshots(truth)):
        measured = dict(row.probes["train"])
        measured["target_energy"] = measured["target_energy"] * (1 - 0.01 * number)
        measured["target_energy_null"] = measured["target_energy_null"] * (1 - 0.02 * number)
        rows.append(dataclasses.replace(row, probes={"train": measured}))
    path = synthetic.write(tmp_path_factory.mktemp("drifting") / "run.h5", rows, synthetic.record(truth))
    return Scene(load(path).only), Raw(path)


def pattern(line):
    """Dashes and gaps in units of the line's width, () for a solid line."""
    _, lengths = line._unscaled_dash_pattern
    return tuple(lengths or ())


def kind(line):
    """ "solid", "dotted" (dots of one width of the line), or "dashed"."""
    lengths = pattern(line)
    return "solid" if not lengths else "dotted" if lengths[0] <= 1 else "dashed"


def levels(ax):
    """Horizontal lines without a label: (colour, pattern) → height."""
    flat = [one for one in ax.lines if list(one.get_xdata()) == [0, 1] and len(set(one.get_ydata())) == 1]
    return {(one.get_color(), pattern(one)): float(one.get_ydata()[0]) for one in flat}


def test_the_edge_of_stability_is_at_two(drifting):
    """Fails where the edge is drawn at 1, where η λ/N is not at the edge but halfway."""
    scene, _ = drifting
    assert levels(choose("scaled-eigenvalues")(scene).axes[0]) == {(scene.style.ink, DOTTED): 2.0}


@pytest.mark.parametrize("function", ["target", "output", "residual"])
def test_energies_have_the_nulls_of_their_captions(drifting, function):
    """Fails where a random direction has k/N for k/modes, where the null is of another snapshot than the caption's, where
    two patterns change places, and where a line's null has another line's colour.
    """
    scene, raw = drifting
    ax = choose(f"{function}-energy")(scene).axes[0]
    expected = {}
    for column, k in ((2, 5), (4, 20)):  # of energy_k = 1, 2, 5, 10, 20, all
        (line,) = (one for one in ax.lines if one.get_label() == f"k = {k}")
        expected[line.get_color(), DOTTED] = k / raw.modes
        if function == "target":
            expected[line.get_color(), DASH_DOTTED] = raw.at["target_energy"][0, column]
            expected[line.get_color(), DASHED] = raw.at["target_energy_null"][-1, column]
    assert levels(ax) == {key: pytest.approx(value, rel=1e-12) for key, value in expected.items()}
    assert raw.modes == 2 * raw.count


def test_the_curves_to_compare_with_are_dotted_and_dashed(drifting):
    """Oracle: the caption, and the last row of the stored null."""
    scene, raw = drifting
    left, right = choose("energy-curves")(scene).axes
    for ax in (left, right):
        (line,) = (one for one in ax.lines if one.get_label() == "random direction")
        assert kind(line) == "dotted"
        np.testing.assert_allclose(line.get_ydata(), np.arange(1, raw.modes + 1) / raw.modes, rtol=1e-12)
    (null,) = (one for one in left.lines if one.get_label() == "permuted labels")
    assert kind(null) == "dashed"
    np.testing.assert_allclose(null.get_ydata(), raw.at["target_energy_null"][-1], rtol=1e-12)
    assert "permuted labels" not in {one.get_label() for one in right.lines}


def test_the_control_is_dashed_and_the_run_is_not(archives):
    scene = Scene(load(archives[0]).only, load(archives[1]).only)
    (ax,) = choose("stability")(scene).axes
    kinds = {one.get_label(): kind(one) for one in ax.lines}
    assert (kinds["λ₁"], kinds["λ₁, control"]) == ("solid", "dashed")


def test_the_network_s_last_error_is_the_line_of_freeze_here(drifting):
    """Fails where the first error, or the frozen network's, is drawn."""
    scene, raw = drifting
    found = levels(choose("freeze-here")(scene).axes[0])
    assert list(found.values()) == [pytest.approx(raw.at["network_error"][-1])]
    assert {colour for colour, _ in found} == {scene.style.muted}


def test_the_line_of_nothing_is_at_zero(drifting):
    """By hand: functions and bars lie on both sides of it. Fails where it is drawn at another height."""
    style, x = drifting[0].style, np.arange(3.0)
    panels = (
        functions(Figure().subplots(), x, [Series("a", x - 1, "red")], style),
        bars(Figure().subplots(), np.array([[1.0, -1.0, 2.0]]), style, labels=["a"], title="", xlabel=""),
    )
    for ax in panels:
        assert levels(ax) == {(style.muted, ()): 0.0}


def test_the_bound_holds_from_its_state_to_the_next(drifting):
    """Oracle: the stored bounds; the corner of every stair is at the later step and at the earlier height.

    Fails where a bound is drawn over the updates before its state, which another rate made.
    """
    scene, raw = drifting
    (line,) = (one for one in choose("stability")(scene).axes[0].lines if one.get_label() == "bound")
    corners = set(zip(raw.steps[1:].tolist(), raw.bound[:-1].tolist(), strict=True))
    assert corners <= set(map(tuple, line.get_path().vertices.tolist()))
    assert len(set(raw.bound)) == 2
    assert kind(line) == "dashed"


def test_a_title_says_how_far_unrelated_spans_overlap(drifting):
    """Haar-random spans of k in M dimensions overlap by k/M. Fails where M is the number of samples."""
    scene, raw = drifting
    k = raw.at["eigenvectors"].shape[-1]
    title = choose("rotation")(scene).axes[0].get_title(loc="left")
    assert title == f"first {k}; unrelated: {k / raw.modes:.2g}"


def luminance(colour):
    return float(np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)))


@pytest.mark.parametrize("style", [PAPER, SLIDE, DARK], ids=lambda style: style.name)
@pytest.mark.parametrize("name", ["energy-curves", "spectra"])
def test_colours_go_from_dark_to_light_as_time_goes_on(drifting, name, style):
    """Oracle: the luminance of the colours in the order of the steps. Fails where the order is turned."""
    scene = dataclasses.replace(drifting[0], style=style)
    for ax in choose(name)(scene).axes:
        lines = [one for one in ax.lines if one.get_label().startswith("step ")]
        steps = [int(re.sub(r"\D", "", one.get_label())) for one in lines]
        found = [
            luminance(line.get_color()) for _, line in sorted(zip(steps, lines, strict=True), key=lambda two: two[0])
        ]
        assert len(found) == 5
        assert all(a < b for a, b in itertools.pairwise(found))


def test_the_page_s_own_colours_go_from_dark_to_light_too(page):
    """On the page a colour is a variable of its style sheet, one for the light and one for the dark ground."""
    found = [(int(number), colour) for number, colour in re.findall(r"--order-(\d+):\s*(#[0-9a-fA-F]{6})", page)]
    count = len(PAPER.order)
    assert len(found) >= 2 * count
    for start in range(0, len(found), count):
        numbers, colours = zip(*found[start : start + count], strict=True)
        assert numbers == tuple(range(1, count + 1))
        assert all(a < b for a, b in itertools.pairwise(map(luminance, colours)))
