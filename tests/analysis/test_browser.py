"""The report in a real browser, headless Chromium. Oracle: what its engine says of the page after a reader's actions.

`make browser-test` runs these; without Chromium they are skipped, visibly.
"""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]

#: A reader: moves the slider, presses keys on a figure, switches the theme, and writes down what happened.
READER = """
<script>
addEventListener("load", () => {
  const $ = (id) => document.getElementById(id), seen = {}, slider = $("moment");
  if (slider) {
    const state = () => [$("moment-step").value, document.querySelector(".readout").textContent,
    document.querySelector(".strip").style.backgroundImage.length]; seen.last = state(); slider.value = 0;
    slider.dispatchEvent(new Event("input")); seen.first = state();
  }
  const drawing = [...document.querySelectorAll(".drawing")].find((d) => JSON.parse(d.dataset.hover).length);
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  seen.tip = $("tip").hidden ? null : $("tip").innerText;
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  seen.escaped = $("tip").hidden;
  const map = [...document.querySelectorAll(".drawing")].find((d) => JSON.parse(d.dataset.hover).some((p) => p.map));
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })); seen.cell = $("tip").innerText;
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  const svg = drawing.querySelector("svg"), box = () => svg.getAttribute("viewBox").split(" ").map(Number);
  const tools = drawing.parentElement.querySelectorAll(".tools button"); seen.whole = box();
  tools[0].click(); seen.closer = box(); tools[2].click(); seen.again = box();
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "+" })); seen.key = box();
  drawing.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
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
  seen.ground = getComputedStyle(document.body).backgroundColor;
  $("theme").click();
  seen.switched = getComputedStyle(document.body).backgroundColor;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const text = drawing.querySelector("svg text"), line = drawing.querySelector("svg path");
  seen.ink = getComputedStyle(text).fill;
  seen.broken = [...document.querySelectorAll("svg *")].filter((n) => /var\\(/.test(getComputedStyle(n).fill +
  getComputedStyle(n).stroke)).length; seen.title = document.title; const out = document.createElement("pre"); out.id =
  "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
});
</script>
"""


def browse(page, folder, *, width=1200, address=""):
    """(what the reader saw, console messages) of a page."""
    copy = folder / "page.html"
    copy.write_text(page.replace("</body>", READER + "</body>"), encoding="utf-8")
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
        "--virtual-time-budget=4000",
        "--dump-dom",
        copy.as_uri() + address,
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', child.stdout, re.DOTALL)
    console = [line for line in child.stderr.splitlines() if "CONSOLE" in line]
    assert found, child.stderr[-2000:]
    return json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


def test_it_renders_without_a_console_error_and_the_slider_works(page, tmp_path, truth):
    seen, console = browse(page, tmp_path)
    assert console == []
    assert seen["title"] == "run · kerneltrack"
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
