"""Figures that move. Oracles: eigenfunctions that stand still by construction, NumPy's order of values, and Pillow's reading."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kerneltrack.analysis import load
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.figures import Scene, choose, moving_functions
from kerneltrack.analysis.figures.canvas import Canvas
from kerneltrack.analysis.figures.film import Film, gif
from kerneltrack.analysis.figures.style import PAPER
from kerneltrack.analysis.figures.thumbnails import image_inputs
from kerneltrack.analysis.report.slider import explorer
from kerneltrack.errors import AnalysisError


@pytest.fixture(scope="module")
def runs(archives, synthetic, tmp_path_factory):
    """The main run, with the signs of some eigenvectors turned at every second moment, and the kinds of inputs."""
    folder, truth = tmp_path_factory.mktemp("films"), synthetic.simulate()
    found = {}
    for kind in ("line", "images"):
        rows, record = synthetic.one_more_kind(kind)
        found[kind] = load(synthetic.write(folder / f"{kind}.h5", rows[:3], record)).only
    turned = []
    for i, row in enumerate(list(synthetic.snapshots(truth))[:3]):
        vectors = row.probes["train"]["eigenvectors"] * (-1.0) ** (i * np.arange(synthetic.TOP_K))
        turned.append(dataclasses.replace(row, probes={"train": {**row.probes["train"], "eigenvectors": vectors}}))
    return found | {"turned": load(synthetic.write(folder / "turned.h5", turned, synthetic.record(truth))).only}


def test_the_images_of_a_film_keep_their_signs(runs, truth):
    """Oracle: the basis itself, which stands still: every moment shows what the last one does."""
    run = runs["turned"]
    film = choose("eigenfunctions").moving(Scene(run))
    painted = Canvas.of(run).paint(truth.basis[:, :6] * np.sqrt(len(truth.basis)))
    turns = []
    for moment, step in enumerate(run.steps):
        film.show(moment)
        assert film.figure.get_suptitle() == f"step {step}"
        shown = np.array([ax.images[0].get_array() for ax in film.figure.axes])
        same = np.sign(np.sum(shown * painted, axis=(1, 2)))
        np.testing.assert_allclose(
            shown, painted * same[:, None, None], atol=1e-5
        )  # eigenvectors are stored in float32
        turns.append(same.tolist())
    assert turns[0] == turns[1] == turns[2]
    assert film.moments == len(run) == 3


def test_lines_move(runs, truth):
    run = runs["line"]
    film = choose("eigenfunction-lines").moving(Scene(run))
    film.show(0)
    order = np.argsort(truth.points[:, 0], kind="stable")
    expected = truth.basis[order, 1] * np.sqrt(len(order))
    drawn = film.figure.axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(drawn * np.sign(drawn @ expected), expected, atol=1e-5)


def test_samples_are_those_of_the_least_and_the_greatest_values(runs, truth):
    """Oracle: NumPy's order of the basis function, and the images that the archive was written with."""
    run = runs["images"]
    figure = choose("eigenfunction-samples")(Scene(run))
    values = moving_functions(run, 1).at(2)[:, 0]
    np.testing.assert_allclose(np.abs(values), np.abs(truth.basis[:, 0]) * np.sqrt(len(values)), atol=1e-5)
    order = np.argsort(values)
    pictures = np.arange(len(values) * 12).reshape(len(values), 3, 4) / (len(values) * 12 - 1)
    for ax, sample in zip(filter(lambda ax: ax.images, figure.axes), [*order[:4], *order[-4:]], strict=False):
        np.testing.assert_allclose(ax.images[0].get_array(), pictures[sample])
        assert float(ax.get_title().replace("−", "-")) == pytest.approx(values[sample], rel=0.1)  # two digits


def test_the_slider_s_thumbnails_are_the_extreme_samples(runs, truth):
    """Oracle: NumPy's order of the basis function; each place in the sheet, as Pillow reads it, is the picture of that sample."""
    run = runs["images"]
    found = explorer(run)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.samples.sheet.partition(",")[2]))))
    values = moving_functions(run, 1).at(2)[:, 0]
    order = np.argsort(values)
    pictures = np.round(np.arange(len(values) * 12) / (len(values) * 12 - 1) * 255).reshape(len(values), 3, 4)
    assert sheet.shape == (3 * found.samples.rows, 4 * found.samples.columns)
    for sample, place in zip([*order[:-4:-1], *order[:3]], found.frames[-1].samples[0], strict=True):
        down, across = divmod(place, found.samples.columns)
        np.testing.assert_array_equal(sheet[3 * down : 3 * down + 3, 4 * across : 4 * across + 4], pictures[sample])
    assert (found.no_pictures, found.aspect, found.labels[0]) == ("", 4 / 3, "v₁")
    assert [len(frame.samples) for frame in found.frames] == [6, 6, 6]


def test_what_is_no_image_is_refused_unless_its_shape_is_told(runs, archives, synthetic, truth, tmp_path):
    with pytest.raises(AnalysisError, match=r"image-like inputs.*identity=\{'image_shape'"):
        image_inputs(load(archives[0]).only)
    flat = np.random.default_rng(0).random((truth.count, 12))
    for shape, taken in (([3, 4], True), ([3, 2, 2], True), ([5, 2], False), ("3 4", False), ([2, 3, 2], False)):
        record = synthetic.record(truth, identity={"image_shape": shape})
        record = dataclasses.replace(record, input_shapes={"": ("float64", flat.shape)}, inputs={"": flat})
        rows = list(synthetic.snapshots(truth))[:1]
        run = load(synthetic.write(tmp_path / f"{shape}.h5", rows, record)).only
        if not taken:
            with pytest.raises(AnalysisError, match="image-like inputs"):
                image_inputs(run)
            continue
        scaled = (flat - flat.min()) / (flat.max() - flat.min())
        images = scaled.reshape(-1, *shape)
        np.testing.assert_allclose(image_inputs(run), images if len(shape) == 2 else np.moveaxis(images, 1, -1))


def test_a_gif_has_every_moment_and_stands_at_its_last(runs):
    """Oracle: Pillow's reading of what was written; of a film whose picture is known, its colours."""
    film = choose("eigenfunction-lines").moving(Scene(runs["line"]))
    read = Image.open(io.BytesIO(gif(film, PAPER)))
    assert (read.format, read.n_frames, read.info["loop"]) == ("GIF", 3, 0)
    times = []
    for moment in range(3):
        read.seek(moment)
        times.append(read.info["duration"])
    assert times[0] == times[1] < times[2]
    shades = (0.0, 0.5, 1.0)
    page = Figure(figsize=(1, 1))
    known = Film(page, 3, lambda moment: page.set_facecolor((shades[moment],) * 3))
    read = Image.open(io.BytesIO(gif(known, PAPER)))
    for moment, shade in enumerate(shades):
        read.seek(moment)
        assert read.convert("RGB").getpixel((5, 5))[0] == pytest.approx(255 * shade, abs=2)


def test_the_command_writes_a_film_and_refuses_what_does_not_move(archives, tmp_path, capsys):
    assert main(["plot", str(archives[0]), "--figure", "rank", "-o", str(tmp_path / "rank.gif")]) == 2
    said = capsys.readouterr().err
    assert "'rank' does not move" in said
    assert "eigenfunctions, eigenfunction-lines" in said
    with pytest.raises(AnalysisError, match="'rank' does not move"):
        choose("rank").moving(Scene(load(archives[0]).only))
