"""Figures and panels by the data they draw. Oracle: the closed form of the synthetic run; pixels are never compared."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from kerneltrack.analysis import load
from kerneltrack.analysis.derived.profiles import binned, energy_profile, mode_energy, nearest_k, speeds
from kerneltrack.analysis.figures import Scene, choose, registered
from kerneltrack.analysis.figures.canvas import Canvas, oriented_eigenvectors
from kerneltrack.analysis.figures.files import save_figure
from kerneltrack.analysis.figures.panels.courses import Series, line_plot, mark_changes, spread
from kerneltrack.analysis.figures.panels.profiles import profiles
from kerneltrack.analysis.figures.style import DARK, PAGE, PAPER, SLIDE, STYLES
from kerneltrack.errors import AnalysisError
from tests.analysis.h5_by_hand import Raw


@pytest.fixture
def unplaced():
    """Axes are placed here, as users have them."""


@pytest.fixture(scope="module")
def scene(archives):
    return Scene(load(archives[0]).only, load(archives[1]).only)


def line(figure, label, axes=0):
    return next(one for one in figure.axes[axes].lines if one.get_label() == label)


#: Figure → the run that it is drawn of, where the main one cannot give it.
KINDS = {
    "lr-trend": "cosine",
    "class-blocks": "classes",
    "sharpness": "dials",
    "weighted-spectrum": "dials",
    "lazy-rich": "dials",
    "oscillation": "oscillation",
    "edge-swing": "oscillation",
    "eigenfunction-lines": "line",
    "eigenfunction-samples": "images",
    "estimates": "estimates",
    "calibration": "estimates",
    "learning-curves": "estimates",
}


#: Drawn of two probes, by a test of its own.
ELSEWHERE = {"task-shift"}


@pytest.fixture(scope="module")
def others(synthetic, tmp_path_factory):
    """Runs for the figures that the main one cannot give."""
    folder = tmp_path_factory.mktemp("kinds")
    return {
        kind: Scene(load(synthetic.write(folder / f"{kind}.h5", rows, record)).only)
        for kind in sorted(set(KINDS.values()))
        for rows, record in [synthetic.one_more_kind(kind)]
    }


@pytest.mark.parametrize("name", [n for n in registered() if n not in ELSEWHERE])
def test_every_figure_draws_from_the_synthetic_archive(scene, others, name):
    kind = KINDS.get(name)
    figure = registered()[name](others[kind] if kind else scene)
    assert isinstance(figure, Figure)
    assert any(ax.lines or ax.images or ax.collections for ax in figure.axes)


@pytest.fixture(scope="module")
def poor(synthetic, truth, tmp_path_factory):
    """A run of which traces alone are stored."""
    names = set(next(synthetic.snapshots(truth)).probes["train"])
    rows = [
        r.__class__(**{**r.__dict__, "learning_rates": (), "training_loss": float("nan")})
        for r in synthetic.snapshots(truth, drop=names - {"trace"})
    ]
    path = tmp_path_factory.mktemp("poor") / "bare.h5"
    return Scene(load(synthetic.write(path, rows, synthetic.record(truth, inputs=False))).only)


@pytest.mark.parametrize("name", list(registered()))
def test_every_figure_says_what_it_needs_of_an_archive_that_has_little(name, poor):
    """An archive of traces alone: each figure is refused, and never drawn empty."""
    with pytest.raises(AnalysisError, match=r"needs '|never change"):
        registered()[name](poor)


def test_eigenvalues_are_drawn_as_stored(scene, truth):
    x, y = line(choose("eigenvalues")(scene), "λ₅").get_data()
    assert x.tolist() == list(truth.eigenvalues)
    assert y.tolist() == [values[4] for values in truth.eigenvalues.values()]


def test_the_stability_figure_holds_run_control_and_bound(scene, control_truth, synthetic):
    figure = choose("stability")(scene)
    _, y = line(figure, "λ₁, control").get_data()
    assert y.tolist() == [values[0] for values in control_truth.eigenvalues.values()]
    _, bound = line(figure, "bound").get_data()
    assert sorted(set(bound)) == [2 * synthetic.N / 0.25, 2 * synthetic.N / 0.125]


def test_without_a_bound_of_the_kernel_the_sharpness_is_drawn_against_its_own(synthetic, truth, tmp_path):
    """As under cross-entropy: the bound is the sharpness over ρ, c/η, by hand from the stored numbers."""
    rows = []
    for snapshot in synthetic.snapshots(truth, drop={"stability_bound"}):
        measured = snapshot.probes["train"]
        sharp = 2 * measured["stability_ratio"] / snapshot.learning_rates[0]
        rows.append(dataclasses.replace(snapshot, probes={"train": {**measured, "gauss_newton_sharpness": sharp}}))
    run = load(synthetic.write(tmp_path / "run.h5", rows, synthetic.record(truth, loss="cross_entropy"))).only
    figure = choose("stability")(Scene(run))
    np.testing.assert_array_equal(line(figure, "sharpness").get_data()[1], run.values("gauss_newton_sharpness"))
    np.testing.assert_allclose(sorted(set(line(figure, "bound").get_data()[1].round(9))), [2 / 0.25, 2 / 0.125])


def test_scaled_eigenvalues_jump_at_the_change(scene, truth, synthetic):
    x, y = line(choose("scaled-eigenvalues")(scene), "i = 1").get_data()
    before, after = y[x == synthetic.HALVED]
    largest = truth.eigenvalues[synthetic.HALVED][0]
    np.testing.assert_allclose(
        [before, after], [0.25 * largest / synthetic.N, 0.125 * largest / synthetic.N], rtol=1e-14
    )


def test_target_energy_has_its_nulls(scene, synthetic):
    ax = choose("target-energy")(scene).axes[0]
    levels = {round(float(one.get_ydata()[0]), 12) for one in ax.lines if str(one.get_label()).startswith("_")}
    assert round(5 / synthetic.N, 12) in levels


def test_layer_shares_are_stacked_to_one(scene, synthetic):
    """Each band's upper edge at the last snapshot is the cumulative share: 0.35, 0.85, 1."""
    bands = choose("layer-shares")(scene).axes[0].collections
    tops = [max(y for x, y in band.get_paths()[0].vertices if x == synthetic.LAST) for band in bands]
    np.testing.assert_allclose(tops, [0.35, 0.85, 1.0], rtol=1e-12)


def test_energy_profile_is_a_cumulative_share(scene, truth):
    residual = truth.coefficients[100]
    row = scene.run.row(100)
    expected = np.cumsum(residual**2) / np.sum(residual**2)
    np.testing.assert_allclose(energy_profile(scene.run, "residual", row), expected, rtol=1e-13)
    np.testing.assert_allclose(mode_energy(scene.run, "residual", row), np.diff(expected, prepend=0), atol=1e-15)


def test_speeds_are_eta_lambda_over_n(scene, truth, synthetic):
    expected = [truth.rates[s] * v[[0, 9]] / synthetic.N for s, v in truth.eigenvalues.items()]
    np.testing.assert_allclose(speeds(scene.run, (1, 10)), expected, rtol=1e-14)


def test_nearest_k_is_nearest_in_log_k(scene, synthetic):
    assert [synthetic.ENERGY_K[i] for i in nearest_k(scene.run, (3, 20, 400))] == [2, 20, synthetic.N]


def test_bins_keep_the_first_ten_modes_and_average_the_rest():
    values = np.random.default_rng(0).random(600)
    means = binned(values)
    assert means[:10].tolist() == values[:10].tolist()
    assert len(means) < 40
    np.testing.assert_allclose(binned(np.ones(600)), 1)


def test_a_panel_draws_what_it_is_given_and_returns_its_axes():
    ax = Figure().subplots()
    values = np.array([1.0, np.nan, 3.0])
    drawn = line_plot(ax, np.array([0, 5, 10]), [Series("a", values, "red", "dashed")], PAPER, ylabel="y")
    assert drawn is ax
    assert ax.lines[0].get_xydata().tolist() == [[0, 1], [10, 3]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training step", "y")
    assert mark_changes(ax, [(5, "η")], PAPER) is ax
    assert ax.lines[-1].get_xdata()[0] == 5


def test_the_label_of_a_change_that_goes_on_from_the_one_before_is_short():
    """Two full labels of near changes would overlap."""
    rates = [(10, 0.25, 0.125), (15, 0.125, 0.0625), (20, 0.1, 0.05)]
    changes = [SimpleNamespace(step=step, old=(old,), new=(new,)) for step, old, new in rates]
    labels = Scene.marks.fget(SimpleNamespace(changes=changes))
    assert labels == [(10, "η 0.25 → 0.125"), (15, "→ 0.0625"), (20, "η 0.1 → 0.05")]


def test_profiles_have_a_legend_only_where_there_is_something_to_tell_apart():
    index = np.arange(1.0, 4.0)
    one, two = Figure().subplots(), Figure().subplots()
    profiles(one, index, [Series("a", index, "red")], PAPER, xlabel="", ylabel="")
    profiles(two, index, [Series("a", index, "red"), Series("b", index, "blue")], PAPER, xlabel="", ylabel="")
    assert one.figure.legends == []
    assert [text.get_text() for text in two.figure.legends[0].get_texts()] == ["a", "b"]


def test_labels_keep_their_distance_and_their_order():
    heights = [0.5, 0.5, 0.52, 0.1]
    placed = spread(heights, 0.1)
    assert np.all(np.diff(sorted(placed)) >= 0.1 - 1e-12)
    assert placed[3] == pytest.approx(0.1)
    assert sorted(range(4), key=lambda i: (heights[i], i)) == sorted(range(4), key=lambda i: placed[i])


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.2, 0.4]),
        ([1.0, 1.0, 0.9], [0.8, 1.0, 0.6]),
        ([0.0, 0.0, 0.25], [0.0, 0.2, 0.4]),
        ([0.0] * 7, [-0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1]),
    ],
)
def test_labels_stay_beside_the_axes_as_far_as_all_fit(heights, expected):
    """By hand, at a gap of 0.2; of seven there is no room for all, and they are centred on the axes."""
    assert spread(heights, 0.2) == pytest.approx(expected, abs=1e-12)


def test_a_linear_function_is_painted_exactly():
    """Linear interpolation reproduces linear functions: at pixel centres, top row first."""
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.3, 0.6]])
    canvas = Canvas.over(points, 8)
    image = canvas.paint(np.column_stack([2 * points[:, 0] - points[:, 1], points[:, 0]]))
    centres = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(image[0], 2 * centres[None, :] - centres[::-1, None], atol=1e-12)
    np.testing.assert_allclose(image[1], np.broadcast_to(centres, (8, 8)), atol=1e-12)


def test_the_canvas_has_the_picture_s_aspect():
    assert Canvas.over(np.random.default_rng(0).random((20, 2)), 10, 1.5).paint(np.ones(20)).shape == (15, 10)


def test_points_on_a_line_are_refused():
    with pytest.raises(AnalysisError, match="lie on a line"):
        Canvas.over(np.column_stack([np.arange(9.0), np.arange(9.0)]), 8)


def test_eigenvectors_are_scaled_and_turned(scene, truth, synthetic):
    shown = oriented_eigenvectors(scene.run, 0, 4)
    np.testing.assert_allclose((shown**2).mean(axis=0), 1, rtol=1e-6)  # float32 vectors
    mixed = np.abs(shown.sum(axis=0)) <= 0.5 * synthetic.N
    assert np.all((truth.target @ shown)[mixed] >= 0)


def test_eigenvectors_of_two_outputs_are_scaled_by_the_samples(two_outputs):
    """Oracle: the stored vectors. Of one of them Σ_no v_no² is 1, so the mean over samples of √N v, of all outputs, is 1.

    Fails where the number of modes takes the place of N. They are stored in float32: a few times 2⁻²⁴.
    """
    raw = Raw(two_outputs[0])
    shown = oriented_eigenvectors(load(two_outputs[0]).only, 0, 4)
    np.testing.assert_allclose(
        np.abs(shown), np.sqrt(raw.count) * np.abs(raw.at["eigenvectors"][0, :, 0, :4]), rtol=1e-6
    )


def test_styles_are_values_and_leave_matplotlib_alone(scene):
    import matplotlib

    before = dict(matplotlib.rcParams)
    choose("rank")(Scene(scene.run, style=SLIDE))
    choose("rank")(Scene(scene.run, style=DARK))
    assert dict(matplotlib.rcParams) == before
    assert len({color for style in STYLES.values() for color in style.variables}) == len(PAGE.variables)


@pytest.mark.parametrize("style", [PAPER, DARK], ids=lambda s: s.name)
def test_line_colours_can_be_read_on_their_ground(style):
    """WCAG 2 contrast of graphical objects, at least 2:1 for lines that also carry a label."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = luminance("#ffffff" if style.ground == "white" else style.ground)
    for colour in (*style.category, *style.order):
        low, high = sorted((luminance(colour), ground))
        assert (high + 0.05) / (low + 0.05) > 2, colour


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_files_are_vector_or_raster_by_their_ending_and_the_same_twice(scene, kind, tmp_path):
    paths = [save_figure(choose("rank")(scene), tmp_path / f"{i}.{kind}", scene.style) for i in "ab"]
    head = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind]
    assert paths[0].read_bytes().startswith(head)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}"]


def test_bad_names_are_answered_with_near_ones(scene, tmp_path):
    with pytest.raises(AnalysisError, match="for instance stability"):
        choose("stabilty")
    with pytest.raises(AnalysisError, match=r"ending of \.png"):
        save_figure(choose("rank")(scene), tmp_path / "x.bmp", scene.style)


def test_captions_are_sentences_that_stand_for_the_picture():
    for spec in registered().values():
        assert re.fullmatch(r"[a-z][a-z-]*", spec.name)
        assert len(spec.caption) > 40 or spec.name == "loss"
        assert spec.caption.rstrip().endswith(".")


def test_the_ledger_is_the_share_that_each_update_took_off(scene, truth, synthetic):
    """Closed form: kernel flow takes Σ ηλ_i/N c_i² off ‖m‖², its layers their shares of it, nothing else anything."""
    left, right = choose("ledger")(scene).axes[:2]
    expected = [
        np.sum(truth.rates[s] / synthetic.N * truth.eigenvalues[s] * c**2) / np.sum(c**2)
        for s, c in truth.coefficients.items()
    ]
    flow, remainder, curvature, total = (one.get_ydata() for one in left.lines[:4])
    np.testing.assert_allclose(flow, expected, rtol=1e-12)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    assert not np.any(remainder)
    assert not np.any(curvature)
    layers = np.array([one.get_ydata() for one in right.lines[:3]])
    np.testing.assert_allclose(layers.sum(axis=0), expected, rtol=1e-12)
    np.testing.assert_allclose(layers[1] / layers.sum(axis=0), 0.5, rtol=1e-12)


def test_the_ledger_by_mode_adds_up(scene, truth, synthetic):
    ax = choose("ledger-modes")(scene).axes[0]
    first = truth.coefficients[0]
    expected = truth.rates[0] / synthetic.N * truth.eigenvalues[0] * first**2 / np.sum(first**2)
    heights = [bar.get_height() for bar in ax.patches[:12]]
    np.testing.assert_allclose(heights, expected[:12], rtol=1e-12)


def test_kernel_distances_are_those_of_the_kernels(scene, truth, synthetic):
    """Oracle: the kernels themselves share one basis, so ⟨A, B⟩ = Σλμ. Sixteen of 48 vectors are stored: bounds."""
    from kerneltrack.analysis.derived.kernels import similarities

    low, high = similarities(scene.run, [0, 5, 12])
    steps = [synthetic.STEPS[i] for i in (0, 5, 12)]
    values = np.array([truth.eigenvalues[s] for s in steps])
    norms = np.linalg.norm(values, axis=1)
    exact = values @ values.T / np.outer(norms, norms)
    assert np.all(low <= exact + 1e-6)  # float32 eigenvectors
    assert np.all(exact <= high + 1e-6)
    assert np.max(high - low) < 0.05
    image = choose("kernel-distances")(scene).axes[0].images[0].get_array()
    assert image.shape == (13, 13)
    np.testing.assert_allclose(np.diag(image), 0, atol=1e-12)


def test_class_blocks_are_means_over_pairs(others, truth):
    """Oracle: the kernel by its closed form and a double loop; scaled by the mean diagonal."""
    scene = others["classes"]
    labels = scene.run.values("targets")[:, 0] > 0
    kernel = (truth.basis * truth.eigenvalues[0]) @ truth.basis.T
    drawn = choose("class-blocks")(scene).axes[0].images[0].get_array()
    for a in (False, True):
        for b in (False, True):
            pairs = [
                kernel[i, j]
                for i in range(len(kernel))
                for j in range(len(kernel))
                if i != j and labels[i] == a and labels[j] == b
            ]
            assert drawn[int(a), int(b)] == pytest.approx(np.mean(pairs) / np.mean(np.diag(kernel)), abs=1e-6)


def test_the_spectrum_map_holds_every_eigenvalue_and_leaves_rounding_blank(scene, truth, synthetic):
    (mesh,) = [c for c in choose("spectrum-map")(scene).axes[0].collections if c.get_array() is not None]
    drawn = np.ma.masked_invalid(mesh.get_array()).reshape(synthetic.N, 13)
    np.testing.assert_allclose(drawn.T.compressed(), np.concatenate(list(truth.eigenvalues.values())), rtol=1e-14)


def test_the_trend_stands_over_the_sum_of_rates(others):
    from kerneltrack.analysis.derived.flow_time import flow_time

    run = others["cosine"].run
    ax = choose("lr-trend")(others["cosine"]).axes[0]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), flow_time(run))
    assert ax.lines[0].get_ydata().tolist() == run.values("stability_ratio").tolist()


def test_freeze_here_marks_the_first_snapshot_that_stays_good(scene, truth, synthetic):
    """Oracle: a loop over the written errors."""
    frozen = {s: 0.5 * np.exp(-s / 50) for s in synthetic.STEPS}
    target = truth.basis.T @ truth.target
    final = np.sum(truth.coefficients[synthetic.LAST] ** 2) / np.sum(target**2)
    good = next(s for s in synthetic.STEPS if all(frozen[t] <= final for t in synthetic.STEPS if t >= s))
    from kerneltrack.analysis.derived.freeze_here import freeze_here

    curve = freeze_here(scene.run)
    assert curve.good_enough == good
    assert curve.error_there == pytest.approx(frozen[good])
    assert curve.final == pytest.approx(final)
    texts = [t.get_text() for t in choose("freeze-here")(scene).axes[0].texts]
    assert f"○ good enough from step {good:,}" in texts


def test_eigenfunctions_over_one_input_stand_in_its_order(others, truth, synthetic):
    """Oracle: the basis itself, sorted by the input, up to the sign that an eigenvector has not."""
    ax, _, learned, _ = choose("eigenfunction-lines")(others["line"]).axes
    order = np.argsort(truth.points[:, 0])
    for i in range(4):
        x, y = ax.lines[i].get_data()
        assert x.tolist() == truth.points[order, 0].tolist()
        expected = np.sqrt(synthetic.N) * truth.basis[order, i]
        np.testing.assert_allclose(np.abs(y), np.abs(expected), rtol=1e-5)  # float32 vectors
        assert abs(y @ expected) == pytest.approx(synthetic.N, rel=1e-6)  # one sign for all points
    assert line_of(learned, "target y").tolist() == truth.target[order].tolist()
    outputs = truth.basis @ (truth.basis.T @ truth.target + truth.coefficients[0])
    np.testing.assert_allclose(line_of(learned, "output f"), outputs[order], rtol=1e-12, atol=1e-14)


def line_of(ax, label):
    return next(one for one in ax.lines if one.get_label() == label).get_ydata()


def test_inputs_of_another_shape_have_no_lines(scene):
    with pytest.raises(AnalysisError, match=r"over one-dimensional inputs.*got \(48, 2\)"):
        choose("eigenfunction-lines")(scene)
