"""The report in a real browser, headless Chromium. Oracle: what its engine says of the page after a reader's actions.

`make browser-test` runs these; without Chromium they are skipped, visibly.
"""

import base64
import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from kerneltrack.analysis import load
from kerneltrack.analysis.report.face import NAME
from kerneltrack.analysis.report.many import render_many
from tests.analysis.test_page_of_many_runs import factor, six_and_two

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]

SPECTRA = "kerneltrack plot run.h5 --figure spectra -o spectra.svg"

#: A reader: moves the slider, presses keys on a figure, switches the theme, and writes down what happened.
READER = """
<script>
addEventListener("load", () => {
  const $ = (id) => document.getElementById(id), seen = {}, slider = $("moment");
  if (slider) {
    const state = () => [$("moment-step").value, document.querySelector(".readout").textContent,
    document.querySelector(".strip").style.backgroundImage.length]; seen.last = state(); slider.value = 0;
    const tiles = () => [...document.querySelectorAll(".tile .strip + figcaption")].map((one) => one.textContent);
    seen.tiles_last = tiles(); slider.dispatchEvent(new Event("input")); seen.first = state(); seen.tiles_first = tiles();
    seen.player = [...document.querySelectorAll(".scripted")].map((one) => one.checkVisibility());
    seen.cursors = $("figure-overview").querySelectorAll(".drawing .moment").length;
  }
  const drawings = [...document.querySelectorAll(".drawing[data-hover]")], told = (d) => JSON.parse(d.dataset.hover);
  const drawing = drawings.find((d) => told(d).some((p) => p.axis === "step"));
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  seen.tip = $("tip").hidden ? null : $("tip").innerText;
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  seen.escaped = $("tip").hidden;
  const map = [...document.querySelectorAll(".drawing[data-hover]")].find((d) => JSON.parse(d.dataset.hover).some((p) => p.map));
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })); seen.cell = $("tip").innerText;
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  const svg = map.querySelector("svg"), box = () => svg.getAttribute("viewBox").split(" ").map(Number);
  const tools = map.parentElement.querySelectorAll(".tools button"); seen.whole = box();
  tools[0].click(); seen.closer = box(); tools[2].click(); seen.again = box();
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "+" })); seen.key = box();
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
  const rank = $("figure-rank").querySelector(".drawing"), redrawn = rank.nextElementSibling, scale = $("scale");
  const ticks = () => [...redrawn.querySelectorAll("svg.plot text[text-anchor=middle]")].map((t) => t.textContent);
  seen.drawn = [rank.hidden, redrawn.hidden];
  scale.value = "anew"; scale.dispatchEvent(new Event("change"));
  seen.live = [rank.hidden, redrawn.hidden]; seen.ticks = ticks();
  seen.plot_width = redrawn.querySelector("svg.plot").viewBox.baseVal.width;
  seen.mark = Number(redrawn.querySelector("svg.plot .mark").getAttribute("x1"));
  const called = redrawn.querySelector("svg.plot .named"); seen.named = [called.textContent, Number(called.getAttribute("x"))];
  seen.rows = [...document.querySelectorAll("#figure-overview svg.plot")].map((one) => one.getBoundingClientRect().left);
  const now = rank.parentElement.querySelectorAll(".tools button"); now[0].click(); now[0].click(); now[0].click();
  seen.zoomed = ticks(); now[2].click(); scale.value = ""; scale.dispatchEvent(new Event("change"));
  seen.again_drawn = [rank.hidden, redrawn.hidden];
  seen.curve = document.querySelector(".curve").getAttribute("d");
  if (slider) { slider.value = slider.max; slider.dispatchEvent(new Event("input")); seen.moved =
  document.querySelector(".curve").getAttribute("d"); }
  const course = [...document.querySelectorAll(".drawing.timed")].find((d) => d.querySelector(".moment"));
  if (slider && course) {
    const mark = () => Number(course.querySelector(".moment").getAttribute("x1")), plot = course.querySelector("svg");
    const panel = JSON.parse(course.dataset.hover).find((p) => p.axis === "step");
    const [, , w, h] = plot.getAttribute("viewBox").split(" ").map(Number);
    seen.box = [panel.box[0] * w, panel.box[2] * w]; seen.mark_last = mark(); seen.opened = $("moment-step").value;
    const at = new DOMPoint(panel.box[0] * w + 0.5, (panel.box[1] + panel.box[3]) / 2 * h).matrixTransform(plot.getScreenCTM());
    course.dispatchEvent(new MouseEvent("click", { clientX: at.x, clientY: at.y, bubbles: true }));
    seen.clicked = $("moment-step").value; seen.mark_first = mark(); seen.address = location.hash;
    seen.figure = course.parentElement.id.replace("figure-", "");
  }
  const open = () => [...document.querySelectorAll("details.fold")].map((fold) => fold.open); seen.folds = [open()];
  dispatchEvent(new Event("beforeprint")); seen.folds.push(open()); dispatchEvent(new Event("afterprint")); seen.folds.push(open());
  const find = $("find-definition"); find.value = "Residual ENERGY"; find.dispatchEvent(new Event("input"));
  const rows = [...document.querySelectorAll("table.definitions tbody tr")];
  seen.found = rows.filter((tr) => tr.checkVisibility()).map((tr) => tr.cells[0].innerText);
  seen.unfolded = open(); find.value = ""; find.dispatchEvent(new Event("input"));
  seen.ground = getComputedStyle(document.body).backgroundColor;
  $("theme").click();
  seen.switched = getComputedStyle(document.body).backgroundColor;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const text = drawing.querySelector("svg text");
  seen.ink = getComputedStyle(text).fill;
  seen.broken = [...document.querySelectorAll("svg *")].filter((n) => /var\\(/.test(getComputedStyle(n).fill +
  getComputedStyle(n).stroke)).length; seen.title = document.title; const out = document.createElement("pre"); out.id =
  "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
});
</script>
"""


#: A reader of many runs: the first plot's first number, with six runs and with one fewer, and after a click on "hide".
READER_OF_MANY = """
<script>
addEventListener("load", () => setTimeout(() => {
  const $ = (id) => document.getElementById(id), seen = {}, plot = () => document.querySelector("#plot-0 svg.plot");
  const first = () => { plot().dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })); const said = $("tip").innerText;
    plot().dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" })); return said; };
  const lines = () => plot().querySelectorAll(".line").length, dashed = () => plot().querySelectorAll("[stroke-dasharray]").length;
  seen.still = $("still").hidden; seen.legend = $("legend").innerText; seen.tip = first(); seen.lines = lines();
  seen.bands = plot().querySelectorAll(".band").length; seen.dashed = dashed();
  const boxes = [...document.querySelectorAll("#picker input[type=checkbox]")]; boxes[0].click();
  seen.fewer = lines(); seen.few_bands = plot().querySelectorAll(".band").length; seen.address = location.hash;
  $("find").value = "run-"; $("find").dispatchEvent(new Event("input")); $("none").click(); seen.left = lines();
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 500));
</script>
"""


#: A reader who takes a figure to the paper: the button of each kind on the figure of this id, and what it hands over. The
#: browser's time is virtual and its painting is not: only work is real time for it, so the reader counts between its waits.
TAKER = """
<script>
addEventListener("load", () => setTimeout(async () => {
  const seen = {}, wait = (ms) => new Promise((done) => setTimeout(done, ms)), blobs = [], names = [];
  URL.createObjectURL = (blob) => { blobs.push(blob); return "#"; };
  HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
  const menu = document.querySelector("SELECTOR").closest("figure").querySelector(".save");
  const press = (word) => [...menu.querySelectorAll("button")].find((b) => b.textContent === word).click();
  document.documentElement.dataset.theme = "dark"; menu.open = true;
  seen.offered = [...menu.querySelectorAll("button")].map((b) => b.textContent);
  press("SVG"); press("CSV"); press("PNG");
  for (let i = 0; i < 8000 && blobs.length < 3; i++) { for (let n = 0; n < 5e6; n++) seen.count = n; await wait(4); }
  seen.svg = await blobs[0].text(); seen.csv = await blobs[1].text(); seen.names = names;
  seen.png = [...new Uint8Array(await blobs[2].arrayBuffer()).slice(0, 24)];
  const parsed = new DOMParser().parseFromString(seen.svg, "image/svg+xml");
  seen.texts = [...parsed.querySelectorAll("text")].map((t) => t.textContent.trim());
  seen.paths = parsed.querySelectorAll("path").length; seen.failed = parsed.querySelectorAll("parsererror").length;
  seen.box = parsed.documentElement.getAttribute("viewBox").split(" ").map(Number);
  if (seen.offered.length > 3) {
    const kept = []; let refuse = false;
    const writeText = async (text) => { if (refuse) throw new Error("no"); kept.push(text); };
    Object.defineProperty(navigator, "clipboard", { value: { writeText } });
    press("kerneltrack plot"); await wait(50); seen.copied = [kept[0], menu.querySelector("output").textContent];
    refuse = true; press("kerneltrack plot"); await wait(50);
    seen.refused = [getSelection().toString(), menu.querySelector("output").textContent];
  }
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 400));
</script>
"""


def browse(page, folder, *, width=1200, address="", reader=READER, budget=4000):
    """(what the reader saw, console messages) of a page."""
    copy = folder / "page.html"
    copy.write_text(page.replace("</body>", reader + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},900",
        "--enable-logging=stderr",
        f"--virtual-time-budget={budget}",
        "--dump-dom",
        copy.as_uri() + address,
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', child.stdout, re.DOTALL)
    console = [line for line in child.stderr.splitlines() if "CONSOLE" in line]
    assert found, console or child.stderr[-2000:]
    return json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


def test_it_renders_without_a_console_error_and_the_slider_works(page, tmp_path, truth):
    seen, console = browse(page, tmp_path)
    assert console == []
    assert seen["title"] == "run: the probe “train” up to step 700 · kerneltrack"
    assert (seen["last"][0], seen["first"][0]) == ("step 700", "step 0")
    assert "0.125" in seen["last"][1]
    assert "0.25" in seen["first"][1]
    assert seen["tip"].startswith("step 0")
    assert seen["escaped"]
    assert seen["ground"] != seen["switched"]
    assert seen["cell"].startswith("0 · ")  # the map's first column, and its value
    assert seen["whole"] == seen["again"]
    assert seen["closer"][2] == pytest.approx(seen["whole"][2] / 1.6) == seen["key"][2]
    assert seen["curve"].startswith("M")
    assert seen["curve"] != seen["moved"]  # the spectrum of step 0 and of step 700
    assert seen["broken"] == 0


def test_long_tables_are_folded_open_on_paper_and_searched(page, tmp_path):
    """Oracle: the table's own rows with both words, as Python finds them."""
    seen, console = browse(page, tmp_path)
    body = re.search(r'<table class="definitions wordy">.*?<tbody>(.*?)</tbody>', page, re.DOTALL).group(1)
    rows = [re.sub(r"<.*?>", " ", row) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)]
    wanted = [row.split()[0] for row in rows if all(word in row.lower() for word in ("residual", "energy"))]
    assert (console, 0 < len(wanted) < len(rows)) == ([], True)
    assert seen["found"] == wanted
    assert sum(seen["unfolded"]) == 1  # that of the definitions: its rows are seen
    before, paper, after = seen["folds"]
    assert not any(before)
    assert all(paper)
    assert (after, len(before)) == (before, page.count('<details class="fold">'))


def test_time_is_linked(page, tmp_path):
    """Oracle: the box that the drawing says its axes have, and the steps of the archive's first and last snapshot."""
    seen, console = browse(page, tmp_path)
    left, right = seen["box"]
    assert console == []
    assert (seen["opened"], seen["clicked"]) == ("step 700", "step 0")
    assert left <= seen["mark_first"] < seen["mark_last"] <= right
    assert seen["address"] == f"#step=0&figure={seen['figure']}"


def test_an_address_opens_its_moment(page, tmp_path):
    seen, console = browse(page, tmp_path, address="#step=0&figure=stability")
    assert console == []
    assert seen["last"][0] == "step 0"


def test_functions_are_called_what_they_are_at_the_moment_and_every_row_has_its_cursor(page, tmp_path):
    """Oracle: the names that the frames have, of which the first moment's is changed here; without a script there is no player."""
    changed = page.replace('"v\\u2081"', '"v\\u2081 (no. 9)"', 1)
    assert changed != page
    seen, console = browse(changed, tmp_path)
    assert console == []
    assert seen["tiles_last"][:3] == ["output f", "v₁", "v₂"]
    assert seen["tiles_first"][:3] == ["output f", "v₁ (no. 9)", "v₂"]
    assert seen["player"] == [True, True]
    assert page.count('scripted" hidden') == 2
    assert seen["cursors"] == 4


def test_a_figure_is_drawn_anew_with_another_axis(page, tmp_path, synthetic):
    """Oracle: the scale's closed form: 0.4 + log10 of the step, and after the change of the step since it."""
    seen, console = browse(page, tmp_path)
    assert console == []
    assert (seen["drawn"], seen["live"], seen["again_drawn"]) == ([False, True], [True, False], [False, True])
    at = 0.4 + math.log10(synthetic.HALVED)
    end = at + 0.4 + math.log10(synthetic.LAST - synthetic.HALVED)
    share = (at + 0.015 * end) / (1.03 * end)
    assert seen["mark"] == pytest.approx(54 + share * (seen["plot_width"] - 66), abs=0.01)
    assert seen["named"] == ["η 0.25 → 0.125", pytest.approx(seen["mark"], abs=40)]  # kept inside the plot
    assert len(seen["rows"]) == 4
    assert len(set(seen["rows"])) == 1  # one under the other
    assert {"0", "10", f"{synthetic.HALVED}"} <= set(seen["ticks"])
    assert set(seen["zoomed"]) != set(seen["ticks"])


def test_a_phone_has_its_figures_drawn_for_it(page, tmp_path):
    seen, _ = browse(page, tmp_path, width=500)
    assert seen["drawn"] == seen["live"] == [True, False]


#: A reader who asks every figure on the screen for its first value, and how each is shown.
ASKER = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = { tips: {}, shown: {} }, tip = document.getElementById("tip");
  const every = (where, what) => [...where.querySelectorAll(what)];
  const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key }));
  const there = (where, what) => every(where, what).filter((one) => one.checkVisibility());
  every(document, "figure.plot").forEach((figure) => {
    const name = figure.id.replace("figure-", "");
    seen.tips[name] = there(figure, ".drawing, svg.plot").map((one) => {
      press(one, "ArrowRight"); const said = tip.hidden ? null : tip.innerText; press(one, "Escape"); return said;
    });
    seen.shown[name] = [".drawing.narrow", ".drawing.wide", ".piece"].map((kind) => there(figure, kind).length);
  });
  const [map] = there(document, "#figure-spectrum-map .drawing");
  seen.walk = ["ArrowRight", "ArrowDown", "ArrowRight"].map((key) => { press(map, key); return tip.innerText; });
  const scale = document.getElementById("scale"); scale.value = "linear"; scale.dispatchEvent(new Event("change"));
  const loss = document.getElementById("figure-loss"), drawing = loss.querySelector(".drawing");
  seen.live = loss.querySelector("svg.plot .line").getAttribute("d");
  seen.points = JSON.parse(drawing.dataset.hover)[0].lines[0].points;
  seen.paths = every(drawing, "path").map((one) => one.getAttribute("d"));
  seen.box = drawing.querySelector("svg").getAttribute("viewBox").split(" ").map(Number);
  const rendered = (what) => every(document, what).map((one) => getComputedStyle(one).imageRendering);
  seen.cells = rendered(".drawing.wide image"); seen.pixels = rendered("#figure-outputs .drawing image");
  seen.shares = every(document, "#figure-layer-shares svg.plot .layer").length;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
}, 300));
</script>
"""

#: Without a measured number to point at; of the frequencies of this probe there is none.
PICTURES = {"outputs", "eigenfunctions", "kernel-slices", "projections", "frequencies"}


def numbers_of(path):
    return np.array([[float(v) for v in pair.split()] for pair in re.split(r"[ML]", path) if pair.strip()])


@pytest.mark.parametrize("width", [500, 1200])
def test_every_figure_says_its_numbers_and_both_drawings_have_the_same(page, tmp_path, width, truth):
    """Oracles: the archive's numbers; the lines of the page and of matplotlib are the told steps, and logarithms of losses."""
    seen, console = browse(page, tmp_path, width=width, reader=ASKER)
    assert console == []
    silent = {name for name, tips in seen["tips"].items() if not tips or None in tips}
    assert silent == PICTURES
    tips = {name: " ".join(said or "" for said in tips) for name, tips in seen["tips"].items()}
    assert all(word in tips["layer-shares"] for word in ("step 0", "0.25", "0.5"))
    assert "new rate, measured" in tips["mode-factors"]
    assert ("kernel flow" in tips["ledger-modes"], "removal" in tips["influence"]) == (True, True)
    walked = [re.fullmatch(r"step (\d+) · mode (\d+)\s+(\S+)", said).groups() for said in seen["walk"]]
    assert walked[0][:2] != walked[1][:2] != walked[2][:2]
    for step, mode, said in walked:
        assert float(said.replace(",", "")) == pytest.approx(truth.eigenvalues[int(step)][int(mode) - 1], rel=6e-4)
    told, places = np.split(np.array(seen["points"])[:, [2, 3, 0, 1]], 2, axis=1)
    paths = [numbers_of(path) for path in seen["paths"] if path and re.fullmatch(r"[ML\d\s.-]+", path)]
    still = [d for d in paths if d.shape == places.shape and np.allclose(d, places * seen["box"][2:], atol=0.1)]
    assert still  # the second line is within a hair of the first
    told[:, 1] = np.log10(told[:, 1])  # the scale of losses
    for drawn in (numbers_of(seen["live"]), still[0]):
        for place, value in zip(drawn.T, told.T, strict=True):
            slope, start = np.polyfit(value, place, 1)
            np.testing.assert_allclose(
                slope * value + start, place, atol=0.12
            )  # one decimal of a pixel, and of a fraction
    assert (set(seen["cells"]), set(seen["pixels"])) == ({"pixelated"}, {"auto"})
    assert seen["shares"] == 3
    assert seen["overflow"] <= 0
    narrow, wide, pieces = seen["shown"]["spectrum-map"]
    assert (narrow, wide, pieces) == ((1, 0, 0) if width == 500 else (0, 1, 0))
    assert (seen["shown"]["outputs"][2] > 1) == (width == 500)


#: A reader of a page that goes on: the page is read a second time, with the theme, the place and the time axis of the first.
FOLLOWER = """
<script>
if (sessionStorage.getItem("read")) addEventListener("load", () => setTimeout(() => {
  const out = document.createElement("pre"); out.id = "seen"; const root = document.documentElement;
  out.textContent = JSON.stringify({ theme: root.dataset.theme, top: scrollY, axis: document.getElementById("scale").value,
    hash: location.hash, step: document.getElementById("moment-step").value }); document.body.append(out);
}, 300)); else addEventListener("load", () => {
  sessionStorage.setItem("read", "once"); document.getElementById("theme").click();
  const scale = document.getElementById("scale"); scale.value = "log"; scale.dispatchEvent(new Event("change"));
  scrollTo({ top: 1234, behavior: "instant" });
  const slider = document.getElementById("moment"); slider.value = 0; slider.dispatchEvent(new Event("input"));
});
</script>
"""


def test_a_page_that_goes_on_keeps_its_reader_s_place(page, tmp_path):
    """Oracle: what the reader did before the page read itself anew. A page of a closed run never does: nothing is seen."""
    once = '<script>if (sessionStorage.getItem("read")) delete document.body.dataset.reload;</script>'  # else it never ends
    open_page = page.replace("<body>", f'<body data-reload="1">{once}')
    seen, console = browse(open_page, tmp_path, reader=FOLLOWER)
    assert console == []
    assert seen["theme"] in ("light", "dark")
    assert (seen["top"], seen["axis"], seen["hash"], seen["step"]) == (1234, "log", "#step=0", "step 0")
    with pytest.raises(AssertionError):
        browse(page, tmp_path / "profile", reader=FOLLOWER)


@pytest.mark.parametrize("width", [500, 800, 1600])
def test_nothing_sticks_out_at_any_width(page, tmp_path, width):
    seen, _ = browse(page, tmp_path, width=width)
    assert seen["overflow"] <= 0


def test_a_script_error_would_be_seen(page, tmp_path):
    """Negative control: a page that throws writes to the console that the first test reads."""
    _, console = browse(
        page.replace('"use strict";', '"use strict"; setTimeout(() => { throw new Error("broken"); });'), tmp_path
    )
    assert any("broken" in line for line in console)


#: What axe finds: rule, how grave, how many elements, and the first of them.
AUDIT = """
<script>addEventListener("load", () => setTimeout(() => axe.run({ resultTypes: ["violations"] }).then((found) => {
  const out = document.createElement("pre"); out.id = "seen";
  out.textContent = JSON.stringify(found.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 99)]));
  document.body.append(out);
}), 400));</script>
"""


@pytest.fixture(scope="module")
def audit():
    """axe-core as a script, which ships in a package of its own."""
    package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    return f"<script>{axe.replace('</script', '<' + chr(92) + '/script')}</script>{AUDIT}"


def audited(page, folder, audit):
    """What axe finds; it makes functions from text, which the page itself forbids."""
    allowed = page.replace("script-src 'unsafe-inline'", "script-src 'unsafe-inline' 'unsafe-eval'")
    return browse(allowed, folder, reader=audit, budget=30_000)[0]


def test_axe_finds_nothing(page, tmp_path, audit, synthetic, truth, control_truth):
    """Oracle: axe-core. Negative control: a button without a name."""
    assert audited(page, tmp_path, audit) == []
    (tmp_path / "many").mkdir()
    many = render_many(load(six_and_two(tmp_path / "many", synthetic, truth, control_truth)))
    assert audited(many, tmp_path, audit) == []
    found = audited(many.replace("<main>", "<main><button></button>"), tmp_path, audit)
    assert [rule for rule, *_ in found] == ["button-name"]


@pytest.mark.parametrize("width", [500, 1200])
def test_many_runs_are_read_in_one_page(synthetic, truth, control_truth, tmp_path, width):
    """Oracle: NumPy's mean of what the archives were written from."""
    paths = six_and_two(tmp_path, synthetic, truth, control_truth)
    seen, console = browse(render_many(load(paths), group="width"), tmp_path, width=width, reader=READER_OF_MANY)
    mean = np.mean([truth.eigenvalues[0][0] / truth.count * factor(number) for number in range(6)])
    assert console == []
    assert seen["still"]
    assert seen["tip"].startswith("step 0")
    assert f"{mean:.4g}" in seen["tip"]
    assert "mean of 6" in seen["tip"]
    assert (seen["lines"], seen["bands"], seen["dashed"]) == (1 + 2 + 1, 1, 1)  # a mean, two runs, a control
    assert (seen["fewer"], seen["few_bands"]) == (5 + 2 + 1, 0)
    assert "off=0" in seen["address"]
    assert seen["left"] == 1  # the control is not called run-…
    assert seen["overflow"] <= 0


def as_rows(text):
    return list(csv.reader(io.StringIO(text)))


def png_size(start):
    """(width, height), which stand after PNG's own mark."""
    assert bytes(start[:8]) == b"\x89PNG\r\n\x1a\n"
    return tuple(int.from_bytes(start[i : i + 4], "big") for i in (16, 20))


def test_a_figure_goes_to_the_paper(page, tmp_path, truth):
    """Oracle: what the archive was made of, Python's own CSV reader, and 300 dots for each 72 of the drawing's points."""
    seen, console = browse(page, tmp_path, reader=TAKER.replace("SELECTOR", "#figure-spectra .drawing"), budget=400_000)
    assert console == []
    assert seen["offered"] == ["SVG", "PNG", "CSV", "kerneltrack plot"]
    assert seen["names"] == ["spectra.svg", "spectra.csv", "spectra.png"]
    assert (seen["failed"], re.findall(r"var\(|color-mix|class=.moment", seen["svg"])) == (0, [])
    assert "#1d1f23" in seen["svg"]  # the light page's ink, though the page was dark
    faces = [base64.b64decode(face) for face in re.findall(r"@font-face[^}]*base64,([A-Za-z0-9+/=]+)", seen["svg"])]
    with TTFont(io.BytesIO(faces[0])) as face:  # the file holds its letters, and looks for nothing elsewhere
        assert {ord(letter) for text in seen["texts"] for letter in text} <= set(face.getBestCmap())
    assert NAME in seen["svg"].partition("</style>")[2]
    assert set(re.findall(r"url\(\W*(\w+)", seen["svg"])) <= {"data", "spectra"}
    assert png_size(seen["png"]) == tuple(round(length * 300 / 72) for length in seen["box"][2:])
    assert seen["copied"] == [f"{SPECTRA}", f"Copied: {SPECTRA}"]
    assert seen["refused"] == [f"{SPECTRA}", f"Copy this line: {SPECTRA}"]
    head, *rows = as_rows(seen["csv"])
    drawn = {(row[1], float(row[2])): float(row[3]) for row in rows}
    assert head[0::3] == ["panel", "value"]
    step = max(truth.eigenvalues)
    label = next(line for line, _ in drawn if line.endswith(f"{step}"))
    for k in (1, 7):
        assert drawn[label, k] == pytest.approx(truth.eigenvalues[step][k - 1], rel=1e-5)  # six digits


def test_a_course_of_many_runs_goes_to_the_paper(synthetic, truth, control_truth, tmp_path):
    """Oracle: NumPy's mean and deviation of what the archives were written from."""
    paths = six_and_two(tmp_path, synthetic, truth, control_truth)
    many = render_many(load(paths), group="width")
    seen, console = browse(many, tmp_path, reader=TAKER.replace("SELECTOR", "#plot-0"), budget=400_000)
    first = [truth.eigenvalues[0][0] / truth.count * factor(number) for number in range(6)]
    assert (console, seen["failed"], re.findall(r"var\(|color-mix", seen["svg"])) == ([], 0, [])
    assert seen["offered"] == ["SVG", "PNG", "CSV"]  # the figure is the page's own: no command draws it
    assert {"width 64 (6)", "width 128 (2)", "control"} <= set(seen["texts"])
    assert {"#6a6e76", "font-size: 11px"} <= set(re.findall(r"#6a6e76|font-size: 11px", seen["svg"]))  # its own style
    assert min(png_size(seen["png"])) > 600
    head, *rows = as_rows(seen["csv"])
    assert head == ["run", "step", "value", "low", "high"]
    mean = next(row for row in rows if "mean of 6" in row[0] and row[1] == "0")
    told = np.mean(first), np.mean(first) - np.std(first, ddof=1), np.mean(first) + np.std(first, ddof=1)
    assert [float(v) for v in mean[2:]] == pytest.approx(told, rel=1e-5)
    assert all(row[3:] == ["", ""] for row in rows if "mean" not in row[0])
