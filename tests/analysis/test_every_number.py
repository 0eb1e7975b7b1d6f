"""Every number that a report draws, recomputed from the file with h5py and NumPy alone.

A figure or a curve of the slider without an oracle here fails the test: a new one must bring its own. Pictures have no
numbers; what two figures derive at length (feature-atlas, influence) is held to the data in their own tests; sentences and
tables have test_every_sentence.py.
"""

import dataclasses
import html
import json
import re

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.report.slider_curves import moving_panels
from tests.analysis.h5_by_hand import Raw

PICTURES = {"outputs", "eigenfunctions", "kernel-slices", "projections", "influence", "feature-atlas"}


def lines_of(raw, control):
    """Figure → label → (x, values): every line that may be drawn. A label ending in "#i" belongs to panel i."""
    steps, energy = raw.steps, raw.energy
    found = {}
    for function in ("target", "output", "residual"):
        found[f"{function}-energy"] = {f"k = {k}": (steps, energy(function, k)) for k in (5, 20)}
    rows = [0, 3, 6, 9, 12]
    index = np.arange(1, raw.modes + 1)

    def profile(function, row):
        squares = raw.coefficients[function][row] ** 2
        return np.cumsum(squares) / squares.sum()

    curves = {
        f"step {steps[r]:,}#{i}": (index, profile(f, r)) for r in rows for i, f in enumerate(("target", "output"))
    }
    curves |= {f"random direction#{i}": (index, index / raw.modes) for i in (0, 1)}
    curves["permuted labels#0"] = (np.array([1, 2, 5, 10, 20, raw.modes]), raw.at["target_energy_null"][-1])
    found["energy-curves"] = curves
    sub = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    found["eigenvalues"] = {f"λ{str(i).translate(sub)}": (steps, raw.values[:, i - 1]) for i in (1, 2, 5, 10, 20)}
    found["spectra"] = {f"step {steps[r]:,}": (index, raw.values[r]) for r in rows}
    before = np.where(raw.rates == 0.25, 0.25, 0.125)
    scaled = np.concatenate([before[:, None] * raw.values, 0.25 * raw.values[steps == 300]]) / raw.count
    at = np.concatenate([steps, [300]])
    found["scaled-eigenvalues"] = {f"i = {i}": (at, scaled[:, i - 1]) for i in (1, 2, 5, 10, 20)}
    found["stability"] = {
        "λ₁": (steps, raw.values[:, 0]),
        "λ₁, control": (control.steps, control.values[:, 0]),
        "bound": (steps, raw.bound),
    }
    participation = raw.values.sum(axis=1) ** 2 / np.sum(raw.values**2, axis=1)
    distance = raw.stored("kernel_distance_from_initial")
    found["overview"] = {
        "λ₁#0": (steps, raw.values[:, 0]),
        "control#0": (control.steps, control.values[:, 0]),
        "bound#0": (steps, raw.bound),
        "loss#1": (steps, raw.loss),
        "control#1": (control.steps, control.loss),
        "alignment#2": (steps, raw.stored("kernel_target_alignment")),
        "control#2": (control.steps, control.stored("kernel_target_alignment")),
        "by chance#2": (steps, raw.stored("kernel_target_alignment_null")),
        "angle#3": (steps, np.arccos(1 - distance)),
    }
    found["rank"] = {
        "effective rank": (steps, raw.effective_rank),
        "participation ratio": (steps, participation),
        "effective rank, control": (control.steps, control.effective_rank),
    }
    around = lambda r, v, keep: (r.steps[keep] - 300, v[keep])  # noqa: E731
    mine, theirs = steps >= 300, control.steps >= 300
    panels = [
        lambda r: r.values[:, 0] / r.bound,
        lambda r: r.energy("residual", 20),
        lambda r: r.energy("target", 20),
        lambda r: r.effective_rank,
    ]
    found["lr-decay"] = {f"run#{i}": around(raw, f(raw), mine) for i, f in enumerate(panels)}
    found["lr-decay"] |= {f"control#{i}": around(control, f(control), theirs) for i, f in enumerate(panels)}
    row = int(np.flatnonzero(steps == 300)[0])
    shares = [
        raw.coefficients["residual"][r] ** 2 / np.sum(raw.coefficients["residual"][r] ** 2) for r in (row, row + 1)
    ]
    # beyond ten modes a point is a mean over a bin, at the mean index of it
    edges = np.unique(np.round(10 ** np.arange(0, np.log10(raw.modes) + 1, 1 / 12)).astype(int))
    starts = [*range(10), *(e - 1 for e in edges if 11 <= e - 1 + 1 <= raw.modes and e > 11), 10]
    starts = sorted({s for s in starts if s < raw.modes})
    bins = [slice(a, b) for a, b in zip(starts, [*starts[1:], raw.modes], strict=True)]
    found["residual-spectrum"] = {
        name: (np.array([index[b].mean() for b in bins]), np.array([share[b].mean() for b in bins]))
        for name, share in zip(("before", "after"), shares, strict=True)
    }
    kept = raw.at["eigenvectors"].shape[-1]
    factors = {
        name: np.abs(1 - rate * raw.values[row, :kept] / raw.count) for name, rate in (("old", 0.25), ("new", 0.125))
    }
    found["mode-factors"] = {f"{name} rate, predicted": (index[:kept], f) for name, f in factors.items()}
    vectors = raw.at["eigenvectors"][row].reshape(raw.modes, -1).astype(float)
    before, after = (vectors.T @ raw.at["residual"][r].reshape(-1) for r in (row, row + 1))
    found["mode-factors"]["new rate, measured"] = (index[:kept], np.abs(after / before))
    found["layer-shares"] = {layer: (steps, raw.stored("layer_share", i)) for i, layer in enumerate("024")}
    found["frequencies"] = {}
    found["loss"] = {
        "probe": (steps, raw.loss),
        "training batch": (steps, raw.training_loss),
        "probe, control": (control.steps, control.loss),
    }
    names = {
        "one update": "linearization_error",
        "kernel flow": "kernel_flow_error",
        "anchored": "anchored_linearization_error",
    }
    found["linearisation"] = {label: (steps, raw.stored(name)) for label, name in names.items()}
    found["kernel-motion"] = {
        "distance from initialisation": (steps, raw.stored("kernel_distance_from_initial")),
        "kernel–target alignment": (steps, raw.stored("kernel_target_alignment")),
        "… of permuted targets": (steps, raw.stored("kernel_target_alignment_null")),
        "control": (control.steps, control.stored("kernel_distance_from_initial")),
    }
    found["angular-velocity"] = {"ω": (steps, raw.velocity), "control": (control.steps, control.velocity)}
    error = np.sum(raw.coefficients["residual"] ** 2, axis=1) / np.sum(raw.coefficients["target"] ** 2, axis=1)
    found["freeze-here"] = {"network": (steps, error), "frozen here": (steps, raw.stored("kernel_regression_error"))}
    found["stages"] = {
        "λ₁ over its bound": (steps, raw.values[:, 0] / raw.bound)
    }  # three velocities at one lag are too few
    found["activations"] = {
        f"{layer}#{i}": (steps, raw.stored(name, column))
        for i, name in enumerate(("activation_neuron_deviation", "activation_layer_deviation"))
        for column, layer in enumerate("024")
    }
    parts, by_layer = raw.ledger()
    causes = ("kernel flow", "optimizer", "curvature")
    found["ledger"] = {f"{name}#0": (steps, parts[:, i]) for i, name in enumerate(causes)}
    found["ledger"] |= {"all#0": (steps, parts.sum(axis=1))}
    found["ledger"] |= {f"{layer}#1": (steps, by_layer[:, i]) for i, layer in enumerate("024")}
    levels = {"same point": "class_diagonal", "same class": "class_within", "different classes": "class_between"}
    found["class-levels"] = {label: (steps, raw.stored(name)) for label, name in levels.items()}
    return found


def maps_of(raw):
    """Figure → (matrix, tolerance)."""
    k = raw.at["eigenvectors"].shape[-1]
    vectors = raw.at["eigenvectors"].reshape(len(raw.steps), raw.modes, k).astype(float)
    overlaps = np.array([[np.sum((a.T @ b) ** 2) / k for b in vectors] for a in vectors])
    # One basis for all times: the exact cosine is that of the eigenvalues. Of 48 vectors 16 are stored, which leaves
    # bounds; what the rest could add is below ‖rest‖²/‖Θ‖².
    norms = np.linalg.norm(raw.values, axis=1)
    cosines = raw.values @ raw.values.T / np.outer(norms, norms)
    rest = np.sum(raw.values[:, k:] ** 2, axis=1) / norms**2
    return {"rotation": (overlaps, 1e-4), "kernel-distances": (1 - cosines, float(rest.max()) + 1e-5)}


@pytest.fixture(
    scope="module", params=[("archives", "page"), ("two_outputs", "page_of_two_outputs")], ids=["one", "two"]
)
def written(request):
    """((run, control), page): of one output, where samples are as many as modes, and of two, where they are not."""
    return tuple(map(request.getfixturevalue, request.param))


@pytest.fixture(scope="module")
def page(written):
    return written[1]


@pytest.fixture(scope="module")
def raws(written):
    return tuple(map(Raw, written[0]))


def drawings(page):
    found = re.findall(r'id="figure-([a-z-]+)".*?data-hover="(.*?)"', page, re.DOTALL)
    return {name: json.loads(html.unescape(hover)) for name, hover in found}


def wrong_points(panels, lines):
    """Hover points that no oracle explains: (label, x, value)."""
    wrong = []
    for number, panel in enumerate(panels):
        for line in panel.get("lines", ()):
            x, values = lines.get(f"{line['label']}#{number}", lines.get(line["label"], ([], [])))
            for _, _, at, value, *edges in line["points"]:
                near = [v for place, v in zip(x, values, strict=True) if abs(place - at) < 1e-6]
                # four significant digits are on the page
                thick = not edges or abs(edges[1] - edges[0] - value) <= 2e-5  # a layer is as thick as its share
                if not thick or not any(abs(v - value) <= 6e-4 * abs(v) + 1e-12 for v in near):
                    wrong.append((line["label"], at, value, near))
    return wrong


def test_every_drawn_line_is_recomputed(page, raws):
    oracles = lines_of(*raws)
    drawn = drawings(page)
    assert set(drawn) - PICTURES - set(maps_of(raws[0])) - {"frequencies", "spectrum-map", "ledger-modes"} <= set(
        oracles
    )
    assert len(drawn) > 20
    for name, panels in drawn.items():
        if oracles.get(name):
            assert sum(len(line["points"]) for panel in panels for line in panel.get("lines", ())) > 0, name
            assert wrong_points(panels, oracles[name]) == [], name


def test_the_oracle_of_lines_tells_a_wrong_number(page, raws):
    """Negative control: one value in a hundred off is found."""
    panels = drawings(page)["eigenvalues"]
    panels[0]["lines"][0]["points"][3][3] *= 1.01
    assert len(wrong_points(panels, lines_of(*raws)["eigenvalues"])) == 1


@pytest.mark.parametrize("name", ["rotation", "kernel-distances"])
def test_every_map_is_recomputed(page, raws, name):
    expected, tolerance = maps_of(raws[0])[name]
    (panel,) = drawings(page)[name]
    np.testing.assert_allclose(np.array(panel["map"]["values"], dtype=float), expected, atol=tolerance + 6e-4)
    assert panel["map"]["rows"] == [f"{step:,}" for step in raws[0].steps]


def test_the_map_of_the_spectrum_is_recomputed_and_its_cells_lie_where_they_are_drawn(page, raws):
    """Places: mode i between log i and log(i + 1) of a logarithmic axis that ends at M + 1; steps from middle to middle."""
    raw, ((panel,),) = raws[0], (drawings(page)["spectrum-map"],)
    told = panel["map"]
    assert told["columns"] == [f"step {step:,}" for step in raw.steps]
    at = [int(name.removeprefix("mode ")) for name in told["rows"]]
    assert at[0] == 1
    assert len(at) == min(raw.modes, len(at)) > 40
    np.testing.assert_allclose(np.array(told["values"], dtype=float), raw.values[:, np.array(at) - 1].T, rtol=1e-5)
    for i, (top, bottom) in zip(at, told["y"], strict=True):
        places = [1 - np.log(j) / np.log(raw.modes + 1) for j in (i + 1, i)]
        assert (top, bottom) == pytest.approx(places, abs=2e-4)
    lefts, rights = np.transpose(told["x"])
    np.testing.assert_allclose(lefts[1:], rights[:-1], atol=2e-4)
    shares = (rights - lefts)[1:-1] / (rights[-2] - lefts[1])
    widths = (raw.steps[2:] - raw.steps[:-2]) / 2
    np.testing.assert_allclose(shares, widths / widths.sum(), atol=1e-3)


def test_the_bars_of_the_ledger_are_recomputed(page, raws):
    """Each bar's parts by the formula; it reaches from the sum of what is below zero to that of what is above."""
    raw, panels = raws[0], drawings(page)["ledger-modes"]
    m = raw.coefficients["residual"]
    parts = [
        raw.at["ledger_kernel_flow"][..., 0].sum(axis=2),
        raw.at["ledger_remainder"][..., 0],
        raw.at["ledger_curvature"][..., 0],
    ]
    parts[1] = parts[1].sum(axis=2) if parts[1].ndim == 3 else parts[1]
    learned = -np.stack(parts) * m / np.sum(m**2, axis=1)[:, None]
    for row, panel in zip([0, len(m) // 2, len(m) - 1], panels, strict=True):
        assert [spot["head"] for spot in panel["spots"]] == [f"mode {i}" for i in range(1, 13)]
        for i, spot in enumerate(panel["spots"]):
            told = [value for _, value, _ in spot["rows"]]
            np.testing.assert_allclose(told, learned[:, row, i], rtol=1e-4, atol=1e-9)


def test_the_slider_s_curves_are_recomputed(page, raws):
    """Paths lie at x = 46 + 264 log i/log 48 and y = 164 − 154 E; the spectrum between its smallest and largest."""
    raw = raws[0]
    frames = json.loads(html.unescape(re.search(r'id="frames">(.*?)</script>', page, re.DOTALL).group(1)))
    assert [int(f["step"].replace(",", "")) for f in frames] == raw.steps.tolist()
    logs = np.log10(raw.values)
    for row, frame in enumerate(frames):
        for name, path in frame["curves"].items():
            for point in path[1:].split("L"):
                x, y = map(float, point.split())
                i = round(float(np.exp((x - 46) / 264 * np.log(raw.modes))))
                if name == "spectrum":
                    height = (logs[row, i - 1] - logs.min()) / (logs.max() - logs.min())
                else:
                    squares = raw.coefficients[name][row] ** 2
                    height = squares[:i].sum() / squares.sum()
                assert y == pytest.approx(164 - 154 * height, abs=0.06), (name, row, i)


def test_the_slider_s_ticks_stand_where_their_numbers_are(page, raws):
    """Oracle: the scale of the curves above, of the stored eigenvalues over the samples; one decimal is on the page.

    Fails where eigenvalues are over the number of modes: a curve between its own ends does not show what they are over.
    """
    raw = raws[0]
    logs = np.log10(raw.values / raw.count)
    heights = {
        "Spectrum: ": lambda value: (np.log10(value) - logs.min()) / (logs.max() - logs.min()),
        "Energy in the first k modes": lambda value: value,
    }
    for title, height in heights.items():
        (drawn,) = re.findall(rf'<svg[^>]*aria-label="{title}[^"]*">(.*?)</svg>', page, re.DOTALL)
        up = re.findall(r'<line class="rule"[^>]* y1="([\d.]+)"[^>]*/><text[^>]*>([\d.,]+)</text>', drawn)
        across = re.findall(r'<text x="([\d.]+)"[^>]* text-anchor="middle">([\d,]+)</text>', drawn)
        assert len(up) >= 3
        assert [text for _, text in across] == ["1", "10"]
        for place, text in up:
            assert float(place) == pytest.approx(164 - 154 * height(float(text)), abs=0.06), (title, text)
        for place, text in across:
            assert float(place) == pytest.approx(46 + 264 * np.log(float(text)) / np.log(raw.modes), abs=0.06)


def test_the_slider_s_spectrum_ends_at_the_noise_floor(synthetic, tmp_path):
    """By hand: a floor between λ₂₀ and λ₂₁. The modes of a curve are less than 9 % apart there: 48^(1/47) is 1.086.

    Fails where the floor is over the number of modes and λ over the samples, half of them: λ_i ∝ i^−1.5 goes on to i = 31.
    """
    truth = synthetic.simulate(outputs=2)
    row = next(synthetic.snapshots(truth))
    values = row.probes["train"]["eigenvalues"]
    measured = {**row.probes["train"], "noise_floor": np.sqrt(values[19] * values[20])}
    rows = [dataclasses.replace(row, probes={"train": measured})]
    run = load(synthetic.write(tmp_path / "run.h5", rows, synthetic.record(truth))).only
    _, (paths,) = moving_panels(run, [0])
    last = float(paths["spectrum"].rpartition("L")[2].split()[0])
    assert 20 / 1.09 < np.exp((last - 46) / 264 * np.log(48)) < 20.1
