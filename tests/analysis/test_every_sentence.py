"""Every number in a sentence or a table of a report, recomputed from the file with h5py and NumPy alone.

A text is read as the numbers that stand in it, in order; each must be the expected one, rounded as the text rounds.
Subscripts (λ₁) are no numbers. A card without an oracle here fails the test: a new one must bring its own.
"""

import dataclasses
import html
import re

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.derived.uncertainty import SPLITS, assess
from kerneltrack.analysis.lr_decay.wording import change_table, factor_table, trend_table
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.page import write_report
from tests.analysis.h5_by_hand import Raw, numbers, sig


def percent(share):
    """As a finding rounds: below one never as all."""
    return float(np.floor(1000 * share) / 10) if 0.995 <= share < 1 - 1e-9 else round(100 * share)


class Story(Raw):
    """What the findings speak of."""

    def __init__(self, path):
        super().__init__(path)
        self.grid = [1, 2, 5, 10, 20, self.modes]
        self.ratio, self.frozen = self.at["stability_ratio"], self.at["kernel_regression_error"]
        self.error = self.at["network_error"]

    def cards(self):
        """Title → (value, sentence, null)."""
        first, last, n = int(self.steps[0]), int(self.steps[-1]), len(self.steps)
        energy, output = self.energy("target", 20), self.energy("output", 10)
        least = int(np.argmin(output))
        distance, lazy = self.at["kernel_distance_from_initial"][-1], self.at["anchored_linearization_error"][-1]
        flow = self.at["kernel_flow_error"]
        labels = self.at["class_pair_r2"]
        above = np.sum(self.values > self.at["noise_floor"][:, None], axis=1).min()
        solver = sig(np.max(self.at["eigen_residual"] / self.values[:, 0]), 2)
        spent = self.seconds.sum()
        return {
            "Target alignment": (
                [20, sig(energy[-1], 2)],
                [last, 20, self.modes, percent(energy[-1]), first, percent(energy[0])],
                [sig(energy[0], 2), first, sig(self.at["target_energy_null"][-1][4], 2), sig(20 / self.modes, 2)],
            ),
            "Known functions": self.known(10),
            "Output containment": (
                [10, np.floor(1000 * output[least]) / 1000],
                [n, percent(output[least]), 10, self.steps[least]],
                [sig(10 / self.modes, 2)],
            ),
            "Class structure": (
                [sig(labels[-1], 2)],
                [last, percent(labels[-1]), first, percent(labels[0])],
                [sig(self.at["class_pair_r2_null"][-1], 2), sig(self.at["class_pair_r2_score"][-1], 2)],
            ),
            "Edge of stability": self.edge(),
            "Kernel motion": ([sig(distance, 2)], [last, sig(distance, 2), 1], [0]),
            "Laziness": ([sig(lazy, 2)], [last, percent(lazy)], [0]),
            "First-order accuracy": (
                [sig(np.median(flow), 2)],
                [sig(np.median(flow), 2), n, sig(flow.max(), 2), self.steps[np.argmax(flow)]],
                [1],
            ),
            "Frozen kernel": self.freezing(),
            "Rounding": ([above, self.modes], [above, self.modes, solver], []),
            "Cost": (
                [sig(spent, 2)],
                [n, sig(spent, 2), sig(np.median(self.seconds), 2), sig(0.01 * self.steps.max(), 2)],
                [],
            ),
        }

    def known(self, k):
        """z against 200 permutations of the points, seeds 0 to 199, about the mean over all: of (v·πφ)² it is (ΣvΣφ/N)² +
        (Σv² − (Σv)²/N)(Σφ² − (Σφ)²/N)/(N − 1). A target is at its own output, what is known of the inputs at all alike.
        """
        targets, n, outputs = self.at["targets"], self.count, self.at["targets"].shape[1]
        functions = {f"target {o + 1}" if outputs > 1 else "target": (targets[:, o], o) for o in range(outputs)}
        functions |= {"mean": (self.inputs.mean(axis=1), None), "norm": (np.linalg.norm(self.inputs, axis=1), None)}
        orders = [np.random.default_rng(seed).permutation(n) for seed in range(200)]

        def score(row, phi, o):
            v = self.at["eigenvectors"][row][:, :, :k].astype(float)
            v = v.sum(axis=1) if o is None else v[:, o]
            null = (v.sum(0) * phi.sum() / n) ** 2
            null = null + (np.sum(v**2, 0) - v.sum(0) ** 2 / n) * (phi @ phi - phi.sum() ** 2 / n) / (n - 1)
            drawn = [np.sum((v.T @ phi[order]) ** 2) for order in orders]
            return (np.sum((v.T @ phi) ** 2) - null.sum()) / np.std(drawn, ddof=1)

        first, last = ({name: score(row, *f) for name, f in functions.items()} for row in (0, -1))
        before, now = (sum(z > 5 for z in scores.values()) for scores in (first, last))
        best = max(last, key=last.get)
        most = [*numbers(best), sig(last[best], 2)] if now else []
        told = [now] if now else []
        return ([now, len(last)], [int(self.steps[-1]), *told, len(last), k, *most, int(self.steps[0]), before], [5])

    def edge(self):
        reached = np.flatnonzero(self.ratio >= 0.95)
        if not reached.size:
            top = np.argmax(self.ratio)
            return [sig(self.ratio[top], 2)], [0.95, sig(self.ratio[top], 2), self.steps[top]], []
        start, halved = self.steps[reached[0]], np.flatnonzero(np.diff(self.rates))
        end = [300] if halved.size and start < 300 else []  # the change that comes after the arrival, if one does
        since = self.ratio[(self.steps >= start) & (self.steps < (end[0] if end else np.inf))]
        middle = sig(np.median(since), 2)
        return [middle], [0.95, start, len(since), *end, middle], [1]

    def freezing(self):
        final, start = self.error[-1], sig(self.frozen[0], 2)
        above = np.flatnonzero(self.frozen > final)
        if above[-1] == len(self.steps) - 1:
            best = np.argmin(self.frozen)
            told = [len(self.steps), sig(final, 2), sig(self.frozen[best], 2), self.steps[best]]
            return [], told, [sig(final, 2)]
        good = above[-1] + 1
        return [self.steps[good]], [self.steps[good], sig(self.frozen[good], 2), sig(final, 2)], [self.steps[0], start]

    def quantities(self):
        """Label of a table's row → (S,) its values."""
        named = {
            "kernel distance from start": "kernel_distance_from_initial",
            "linearisation error, one update": "linearization_error",
            "kernel-flow error": "kernel_flow_error",
            "linearisation error, anchored": "anchored_linearization_error",
        }
        return {
            "λ₁": self.values[:, 0],
            "λ₁₀": self.values[:, 9],
            "bound on λ₁ at the coming update": self.bound,
            "λ₁ over that bound": self.values[:, 0] / self.bound,
            "effective rank": self.effective_rank,
            "residual energy, first 20": self.energy("residual", 20),
            "target energy, first 5": self.energy("target", 5),
            "target energy, first 20": self.energy("target", 20),
            "target energy, first 48": self.energy("target", 48),
            "loss on the probe": self.loss,
            "angular velocity of the kernel": self.velocity,
            **{label: self.at[name] for label, name in named.items()},
        }

    def row(self, step):
        return int(np.flatnonzero(self.steps == step)[0])


def change(story, control):
    """Numbers of the sentence about the halved rate, at steps 300 (before), 301 and 700."""
    at, then, end = story.row(300), story.row(301), story.row(700)
    there = control.row(301), control.row(700)
    residual, other = story.energy("residual", 20), control.energy("residual", 20)
    old_bound = 2 * story.count / 0.25
    grown = [sig(story.values[end, i] / story.values[at, i], 2) for i in (0, 9)]
    return [
        300,
        0.25,
        0.125,
        sig(story.values[at, 0] / old_bound, 2),
        sig(story.values[end, 0] / story.bound[end], 2),
        400,
        20,
        sig(residual[at], 2),
        sig(residual[then], 2),
        *grown,
        400,
        2,
        20,
        sig(residual[then], 2),
        sig(other[there[0]], 2),
        sig(story.values[end, 0], 2),
        sig(control.values[there[1], 0], 2),
        400,
        *forecast(story, control),
    ]


def forecast(story, control):
    """Effect of the halved rate on the loss one update later, what it may be off by, and what it was: numbers of its sentence."""
    at, then, there, count = story.row(300), story.row(301), control.row(301), story.count
    residual, speeds = story.coefficients["residual"][at], story.values[at] / count
    after = {rate: (1 - rate * speeds) * residual for rate in (0.25, 0.125)}
    ways = {rate: np.linalg.norm(rate * speeds * residual) for rate in after}
    moved = np.linalg.norm(story.at["displacement_coefficients"][at])
    # of the update that leaves the state, at the new rate, and of the whole way so far
    per_way = max(
        story.at["linearization_error"][at] ** 0.5 / ways[0.125],
        story.at["anchored_linearization_error"][at] ** 0.5 / moved,
    )
    loss = {rate: np.sum(left**2) / (2 * count) for rate, left in after.items()}
    off = {rate: per_way * ways[rate] ** 2 for rate in after}
    error = sum(np.linalg.norm(after[r]) / count * off[r] + off[r] ** 2 / (2 * count) for r in after)
    return [sig(loss[0.125] - loss[0.25]), sig(error, 2), sig(story.loss[then] - control.loss[there])]


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
def stories(written):
    return tuple(map(Story, written[0]))


def cards(page):
    pattern = r'<article class="card.*?<h3>(.*?)</h3>\s*<p class="value">(.*?)</p>.*?<p>(.*?)</p>(.*?)</article>'
    found = {}
    for title, value, sentence, rest in re.findall(pattern, page, re.DOTALL):
        null = re.search(r'<p class="null">(.*?)</p>', rest, re.DOTALL)
        texts = (value, sentence, null.group(1) if null else "")
        found[html.unescape(title)] = [html.unescape(t).replace("\u00a0", " ") for t in texts]  # numbers do not break
    return found


def wrong(told, expected):
    """(title, what the card says, what the file says) wherever they differ."""
    return [
        (title, text, list(map(float, right)))
        for title, texts in told.items()
        for text, right in zip(texts, expected[title], strict=True)
        if numbers(text) != pytest.approx(list(map(float, right)), rel=1e-12)
    ]


def test_every_number_of_every_card_is_recomputed(page, stories):
    expected = {**stories[0].cards(), "Learning-rate change": ([0.25, 0.125], change(*stories), [])}
    told = cards(page)
    assert set(told) == set(expected)
    assert wrong(told, expected) == []


def test_a_wrong_number_in_a_sentence_is_found(page, stories):
    """Negative control: one digit."""
    told = {"Laziness": cards(page)["Laziness"]}
    told["Laziness"][1] = told["Laziness"][1].replace("40 %", "41 %")
    assert len(wrong(told, stories[0].cards())) == 1


def test_every_number_of_a_run_that_never_got_there_is_recomputed(synthetic, truth, tmp_path):
    """Far from the edge, and with a kernel that is never good enough: the other sentences."""

    def slower(snapshot):
        measured = dict(snapshot.probes["train"])
        measured["stability_ratio"] = 0.5 * measured["stability_ratio"]
        measured["kernel_regression_error"] = 0.9 + 0 * measured["kernel_regression_error"]
        return dataclasses.replace(snapshot, probes={"train": measured})

    rows = [slower(s) for s in synthetic.snapshots(truth)]
    path = synthetic.write(tmp_path / "slow.h5", rows, synthetic.record(truth))
    told = {f.title: [f.value, f.sentence, f.null] for f in findings(load(path).only)}
    assert wrong(told, Story(path).cards()) == []
    assert told["Frozen kernel"][0] == "never good enough"


def kendall(x, y):
    """τ_b by counting pairs."""
    pairs = [(np.sign(x[j] - x[i]), np.sign(y[j] - y[i])) for i in range(len(x)) for j in range(i)]
    a, b = np.array(pairs).T
    return float(np.sum(a * b) / np.sqrt(np.sum(a != 0) * np.sum(b != 0)))


def test_every_number_of_a_trend_is_recomputed(synthetic, tmp_path):
    rows, kept = synthetic.one_more_kind("cosine")
    path = synthetic.write(tmp_path / "cosine.h5", rows, kept)
    story, run = Story(path), load(path).only
    (course,) = lr_decay_effects(run).trends
    times = np.append(0, np.cumsum(np.diff(story.steps) * (story.rates[1:] + story.rates[:-1]) / 2))
    courses = [story.ratio, story.energy("residual", 20), story.effective_rank]
    ends = [(sig(c[0], 2), sig(c[-1], 2), sig(kendall(times, c), 2)) for c in courses]
    rates = [sig(story.rates[0], 6), sig(story.rates[-1], 6)]
    expected = [0, 700, *rates, sig(times[-1]), *ends[0], 20, *ends[1], *ends[2]]
    (told,) = [f for f in findings(run, lr_decay_effects(run)) if f.title == "Learning-rate trend"]
    assert numbers(told.sentence) == pytest.approx(expected, rel=1e-12)
    assert numbers(told.value) == pytest.approx(rates, rel=1e-12)
    # the table: moments nearest to six equal parts of Ση
    chosen = sorted({int(np.argmin(np.abs(times - t))) for t in np.linspace(0, times[-1], 6)})
    table, values = trend_table(course, tuple(story.grid)), {**story.quantities(), "λ₁ over that bound": story.ratio}
    assert [numbers(c)[0] for c in table.columns[1:-1]] == pytest.approx([sig(times[i]) for i in chosen])
    values["bound on λ₁ at the coming update"] = story.at["stability_bound"]
    for label, *cells, tau in table.rows[1:]:
        assert [numbers(c)[0] for c in cells] == pytest.approx([sig(values[label][i]) for i in chosen]), label
        if np.ptp(values[label]) > 1e-12 * np.abs(values[label]).max():
            assert numbers(tau) == pytest.approx([sig(kendall(times, values[label]), 2)]), label


def test_every_cell_of_the_change_s_tables_is_recomputed(written, stories):
    """Run, control and their difference at every moment, for every quantity; then the factors, mode by mode."""
    story, control = stories
    (effects,) = lr_decay_effects(*(load(path).only for path in written[0])).changes
    table, mine, theirs = change_table(effects, tuple(story.grid)), story.quantities(), control.quantities()
    steps = [300, 301, 310, 400, 700]
    assert {row[0] for row in table.rows} == {*mine, "  control", "  difference"}
    label, held = "", []
    for name, *cells in table.rows:
        label = label if name.startswith("  ") else name
        a = [mine[label][story.row(s)] for s in steps]
        b = [theirs[label][control.row(s)] for s in steps]
        held = {"  control": b, "  difference": np.subtract(a, b)}.get(name, a)
        shown = [np.nan if c == "–" else numbers(c)[0] for c in cells]
        # a difference of equal numbers is a rounding, and may be any
        scale = 1e-12 * np.nanmax(np.abs(a))
        np.testing.assert_allclose(shown, [sig(v) for v in held], rtol=1e-9, atol=scale, err_msg=f"{label} {name}")
    at, then = story.row(300), story.row(301)
    kept = story.at["eigenvectors"].shape[-1]
    vectors = story.at["eigenvectors"][at].reshape(-1, kept).astype(float)
    before, after = (vectors.T @ story.at["residual"][row].reshape(-1) for row in (at, then))
    share = before**2 / np.sum(story.at["residual"][at] ** 2)
    rows = factor_table(effects).rows
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 7, 10, 15]
    for mode, *cells in rows:
        i = int(mode) - 1
        factors = [abs(1 - rate * story.values[at, i] / story.count) for rate in (0.25, 0.125)]
        expected = [sig(share[i], 2), *map(sig, factors), sig(abs(after[i] / before[i]))]
        assert [numbers(c)[0] for c in cells] == pytest.approx(expected, rel=1e-9), mode


def test_the_headline_and_the_strip_below_it_are_recomputed(page, stories):
    headline = html.unescape(re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL).group(1))
    count, outputs = stories[0].at["targets"].shape
    assert numbers(headline) == [1000, count, 13, 0, 700]
    strip = re.search(r'<dl class="facts">(.*?)</dl>', page, re.DOTALL).group(1)
    assert numbers(" ".join(re.findall(r"<dd>(.*?)</dd>", strip))) == [count, outputs, 1000, 13]


def test_the_slider_s_readout_is_recomputed(page, stories):
    import json

    story = stories[0]
    frames = json.loads(html.unescape(re.search(r'id="frames">(.*?)</script>', page, re.DOTALL).group(1)))
    expected = {
        "learning rate": story.rates,
        "λ₁ over its bound": story.ratio,
        "effective rank": story.effective_rank,
        "loss on the probe": story.loss,
        "kernel distance": story.at["kernel_distance_from_initial"],
        "E(y, 20)": story.energy("target", 20),
    }
    for row, frame in enumerate(frames):
        assert {label for label, _ in frame["facts"]} == set(expected)
        for label, text in frame["facts"]:
            assert numbers(text) == pytest.approx([sig(expected[label][row])], rel=1e-9), (label, row)


def halves_of(story, measure):
    """√(mean d²/2) of a number's differences d between halves, from the stored kernel at the last step."""
    kernel, target = story.at["kernel"][-1].astype(float), story.at["targets"]
    rng, half = np.random.default_rng(0), len(kernel) // 2

    def of(part):
        rows = len(part) * target.shape[1]  # ordered (n, o)
        return measure(kernel[np.ix_(part, part)].transpose(0, 2, 1, 3).reshape(rows, rows), target[part])

    differences = []
    for _ in range(SPLITS):
        order = rng.permutation(len(kernel))
        a, b = (of(part) for part in (order[:half], order[half : 2 * half]))
        differences.append(a - b)
    return np.sqrt(np.mean(np.square(differences)) / 2)


def effective_rank(kernel, _):
    values = np.linalg.eigvalsh(kernel)
    share = values[values > 0] / values[values > 0].sum()
    return np.exp(-np.sum(share * np.log(share)))


def alignment(kernel, target):
    """Of the kernel summed over outputs."""
    outputs = target.shape[1]
    pairs = sum(kernel[o::outputs, o::outputs] for o in range(outputs))
    return np.sum(target * (pairs @ target)) / (np.linalg.norm(pairs) * np.linalg.norm(target.T @ target))


def uncertainty_table(page):
    part = page[page.index("How far these numbers can be trusted") :]
    table = part[: part.index("</table>")]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    notes = re.findall(r'<p class="note">(.*?)</p>', part[: part.index("</section>")])
    cells = {html.unescape(head): re.findall(r"<td[^>]*>(.*?)</td>", rest) for head, rest in rows}
    return cells, [html.unescape(note) for note in notes]


def test_the_four_kinds_of_uncertainty_are_recomputed(page, stories):
    story = stories[0]
    cells, notes = uncertainty_table(page)
    assert {n.split(":")[0] for n in notes[:4]} == {"Numerical", "Estimator", "Choice of the probe", "Seeds"}
    reach = story.at["noise_floor"][-1] + story.at["eigen_residual"][-1] + 4 * 2.0**-52 * story.values[-1, 0]
    reach /= story.count
    assert numbers(" ".join(cells["λ₁ / N"][:2])) == [sig(story.values[-1, 0] / story.count), sig(reach, 2)]
    assert all(row[2] == "–" and row[4] == "–" for row in cells.values())
    assert "not measured, no other run" in notes[3]
    participation = lambda k, _: np.trace(k) ** 2 / np.sum(k**2)  # noqa: E731
    for label, measure in (
        ("effective rank", effective_rank),
        ("participation ratio", participation),
        ("kernel target alignment", alignment),
    ):
        # float32 kernels and the thresholds of rounding; a fitted mean would be 8 % off
        assert numbers(cells[label][3])[0] == pytest.approx(halves_of(story, measure), rel=0.03), label
    assert notes[2].startswith(
        f"Choice of the probe: standard deviation of a number on {story.count // 2} points, half of the probe"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_that_rows_have_in_common_stay_within_the_numerical_uncertainty(synthetic, tmp_path, dtype):
    """Law (Ostrowski): rounding each row of J by 2ε makes DΘD of Θ, D = (1 + 2ε)I, and λ_1 larger by 4ελ_1.

    The noise floor alone, 8ε‖Θ‖_F/√M, is 8ελ_1/√M for a kernel of one large eigenvalue: too small from 5 rows on.
    """
    truth = synthetic.simulate(seed=7)
    epsilon, first = {"float32": 2.0**-23, "float64": 2.0**-52}[dtype], next(iter(synthetic.snapshots(truth)))
    values = np.append(1000.0, np.full(synthetic.N - 1, 1e-6))
    floor = 8 * epsilon * np.linalg.norm(values) / np.sqrt(synthetic.N)
    measured = {**first.probes["train"], "eigenvalues": values, "noise_floor": np.array(floor)}
    row = dataclasses.replace(first, probes={"train": measured})
    found = assess(load(synthetic.write(tmp_path / "common.h5", [row], synthetic.record(truth, dtype=dtype))).only)
    moved = 1000.0 * ((1 + 2 * epsilon) ** 2 - 1) / synthetic.N
    assert found.uncertainties["eigenvalue_1"].numerical >= moved
    assert floor / synthetic.N < moved / 3


@pytest.mark.usefixtures("undrawn")
def test_seeds_are_told_where_runs_differ_in_nothing_else(synthetic, tmp_path):
    paths = []
    for seed in (1, 2, 3):
        truth = synthetic.simulate(seed=7)
        scaled = {s: v * (1 + 0.1 * seed) for s, v in truth.eigenvalues.items()}
        truth = dataclasses.replace(truth, eigenvalues=scaled)
        rows = list(synthetic.snapshots(truth))[-2:]
        paths.append(synthetic.write(tmp_path / f"s{seed}.h5", rows, synthetic.record(truth), metadata={"seed": seed}))
    pages = write_report(paths, tmp_path / "seeds.html", each=True)
    cells, notes = uncertainty_table(pages[0].read_text(encoding="utf-8"))
    largest = [Story(p).values[-1, 0] / synthetic.N for p in paths]
    assert numbers(cells["λ₁ / N"][4]) == pytest.approx([sig(np.std(largest, ddof=1), 2)])
    assert "over 3 runs" in notes[3]


@pytest.mark.parametrize(
    ("entry", "words"), [(np.nan, "is not kept"), (np.inf, "is not kept"), (1.0, "from 8 divisions")], ids=str
)
def test_a_kernel_that_is_none_is_not_halved(synthetic, truth, tmp_path, entry, words):
    """Whatever stands in the kernel, the page is made and says what was not measured."""
    rows = list(synthetic.snapshots(truth))[-1:]
    measured = dict(rows[0].probes["train"])
    measured["kernel"] = np.full_like(measured["kernel"], entry)
    rows = [dataclasses.replace(rows[0], probes={"train": measured})]
    found = assess(load(synthetic.write(tmp_path / "odd.h5", rows, synthetic.record(truth))).only)
    assert words in found.notes[2]
