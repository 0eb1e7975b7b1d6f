"""The report. Oracle of its numbers: the HDF5 file itself, read with h5py, and NumPy; nothing of the package."""

import contextlib
import dataclasses
import html
import json
import re
import shlex
import time
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.cli import app
from kerneltrack.analysis.report.command import plot_command
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.page import _snapshots, _title, write_report
from kerneltrack.analysis.report.slider import explorer
from kerneltrack.analysis.text import number
from kerneltrack.errors import AnalysisError


class Structure(HTMLParser):
    """Tags, ids, links and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.tables, self.text, self.rows = [], [], [], 0, [], []
        self.skipped = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href") and tag != "a"]
        self.skipped += tag in ("script", "style")
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.skipped -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skipped:
            self.text.append(data)
            if data.strip() and self.rows:
                self.rows[-1].append(data.strip())


def rows_by_label(page):
    return {row[0]: row[1:] for row in Structure(page).rows if len(row) > 1}


def recomputed(path, step):
    """Numbers of one snapshot from the raw file."""
    with h5py.File(path) as file:
        row = int(np.flatnonzero(file["step"][()] == step)[0])
        probe = file["probes/train"]
        residual = probe["residual_coefficients"][row, :, 0]
        target = probe["target_coefficients"][row, :, 0]
        values = probe["eigenvalues"][row]
        rate = file["learning_rate"][row, 0]
        share = values / values.sum()
        count = len(probe["targets"])
    return {
        "λ₁": values[0],
        "λ₁₀": values[9],
        "bound on λ₁ at the coming update": 2 * count / rate,
        "λ₁ over that bound": rate * values[0] / (2 * count),
        "residual energy, first 20": np.sum(residual[:20] ** 2) / np.sum(residual**2),
        "target energy, first 5": np.sum(target[:5] ** 2) / np.sum(target**2),
        "effective rank": np.exp(-np.sum(share * np.log(share))),
        "loss on the probe": np.sum(residual**2) / (2 * count),
    }


def test_every_number_of_the_table_comes_from_the_file(page, archives, synthetic):
    table = rows_by_label(page)
    for position, offset in enumerate((0, 1, 10, 100, synthetic.LAST - synthetic.HALVED)):
        for label, value in recomputed(archives[0], synthetic.HALVED + offset).items():
            assert table[label][position] == number(float(value)), (label, offset)


def test_the_oracle_tells_a_wrong_number(page, archives, synthetic):
    """Negative control: the numbers of another snapshot are not those of the table."""
    table, wrong = rows_by_label(page), recomputed(archives[0], 100)
    assert (
        sum(table[label][0] == number(float(value)) for label, value in wrong.items()) <= 2
    )  # target energy stands still


def test_predicted_factors_come_from_the_file(page, archives, synthetic):
    with h5py.File(archives[0]) as file:
        row = int(np.flatnonzero(file["step"][()] == synthetic.HALVED)[0])
        probe = file["probes/train"]
        values = probe["eigenvalues"][row]
        vectors = probe["eigenvectors"][row][:, 0].astype(float)
        before, after = (vectors.T @ probe["residual"][r, :, 0] for r in (row, row + 1))
        count = len(probe["targets"])
    rows = {row[0]: row[1:] for row in Structure(page).rows if row and row[0].isdigit()}
    for i in (1, 5, 10):
        assert rows[str(i)][2] == number(abs(1 - 0.125 * values[i - 1] / count))
        assert rows[str(i)][3] == number(abs(after[i - 1] / before[i - 1]))


def test_findings_carry_their_nulls(archives, synthetic):
    run = load(archives[0]).only
    by_title = {finding.title: finding for finding in findings(run, lr_decay_effects(run))}
    assert by_title["Target alignment"].null.count(",") == 2
    assert f"{number(20 / synthetic.N, 2)} for a random direction" in by_title["Target alignment"].null
    assert "No control" in by_title["Learning-rate change"].null
    ratios = run.values("stability_ratio")
    first = run.steps[np.flatnonzero(ratios >= 0.95)[0]]
    assert f"at step {first}" in by_title["Edge of stability"].sentence
    assert "13 measurements took 6.5 s" in by_title["Cost"].sentence


def test_a_share_below_one_is_never_told_as_all():
    from kerneltrack.analysis.report.findings import _percent

    assert [_percent(v) for v in (0.42, 0.994, 0.996, 0.99996, 1 - 1e-12, 1.0)] == [
        "42 %",
        "99 %",
        "99.6 %",
        "99.9 %",
        "100 %",
        "100 %",
    ]


def test_the_page_needs_nothing_from_anywhere(page):
    structure = Structure(page)
    assert all(source.startswith(("data:", "#")) for source in structure.sources)
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#|data:|\$\{)", page)
    assert not re.search(r"@import|https?://(?!www\.w3\.org/)", page)


def test_links_lead_somewhere_and_ids_are_unique(page):
    structure = Structure(page)
    assert len(structure.ids) == len(set(structure.ids))
    assert {link[1:] for link in structure.links} <= set(structure.ids)


def test_no_marker_colour_is_left_and_no_font_of_the_maker_s(page):
    assert not re.search(r"#fe0[123][0-9a-f]{2}", page)
    assert "DejaVu Sans'" not in page


def test_every_figure_has_an_alternative_text(page):
    drawings = re.findall(r"<svg[^>]*>", page)
    assert len(drawings) > 12
    assert all('role="img"' in tag and 'aria-label="' in tag for tag in drawings)


def test_hover_values_are_the_drawn_numbers(page, truth):
    hovers = [json.loads(html.unescape(found)) for found in re.findall(r'data-hover="([^"]*)"', page)]
    lines = [one for panels in hovers for panel in panels for one in panel.get("lines", ()) if one["label"] == "λ₁₀"]
    steps = [(point[2], point[3]) for point in lines[0]["points"]]
    assert steps == [(s, float(f"{v[9]:.6g}")) for s, v in truth.eigenvalues.items()]
    assert all(0 <= c <= 1 for one in lines for point in one["points"] for c in point[:2])


def test_every_figure_says_the_line_that_draws_it(page, archives, tmp_path):
    """Oracle: the command itself, run as it stands there in a folder with both archives; and which figures draw a control."""
    said = dict(re.findall(r'id="figure-([a-z-]+)" data-command="([^"]*)"', page))
    assert said["spectra"] == "kerneltrack plot run.h5 --figure spectra -o spectra.svg"
    assert said["stability"] == "kerneltrack plot run.h5 --figure stability --control control.h5 -o stability.svg"
    for path in archives:
        (tmp_path / path.name).symlink_to(path)
    for name in ("spectra", "stability"):
        words = shlex.split(html.unescape(said[name]))[1:]
        with contextlib.chdir(tmp_path):
            assert CliRunner().invoke(app, words).exit_code == 0
        assert (tmp_path / f"{name}.svg").is_file()


def test_the_line_is_exact_for_any_name(archives, tmp_path):
    """Oracle: the shell's own splitting. A run in no file has no line; a name is never taken for an option."""
    run = load(archives[0])[0]
    odd = dataclasses.replace(run, path=str(tmp_path / "-a b'c.h5"), probes=("other", run.probe))
    words = ["kerneltrack", "plot", "./-a b'c.h5", "--figure", "rank", "--probe", run.probe, "-o", "rank.svg"]
    assert shlex.split(plot_command(odd, "rank")) == words
    assert plot_command(dataclasses.replace(run, path=""), "rank") == ""


@pytest.mark.parametrize(
    ("told", "title"),
    [
        ({}, "run: the probe “train” up to step 700"),
        ({"run": {"model": "nets.make.<locals>.MLP"}}, "run: MLP on the probe “train” up to step 700"),
        ({"run": {"model": "nets.MLP"}, "metadata": {"title": "Mine"}}, "Mine"),
    ],
)
def test_a_title_says_what_is_looked_at(archives, told, title):
    """Oracle: what the archive is told to hold; its last step is 700. An author's own words go before."""
    run = load(archives[0])[0]
    attrs = {**run.dataset.attrs, "provenance": json.dumps(told)}
    assert _title(dataclasses.replace(run, dataset=run.dataset.assign_attrs(attrs))) == title


def test_private_provenance_stays_in_the_archive(page):
    assert "secret" not in page


@pytest.mark.usefixtures("undrawn")
def test_hostile_text_is_shown_and_not_obeyed(synthetic, truth, tmp_path):
    """What is drawn of such texts is looked at in test_strangers.py, on a page with its figures."""
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"
    path = synthetic.write(
        tmp_path / "hostile.h5",
        synthetic.snapshots(truth),
        synthetic.record(truth, identity={attack: attack}, dtype=attack),
        metadata={"title": attack, attack: attack},
    )
    (written,) = write_report(path, tmp_path / "hostile.html")
    page = written.read_text(encoding="utf-8")
    assert page.count("<script") == 2  # the frames and the page's own
    assert "onerror=alert(2)>" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_shown_is_listed_with_its_reason(synthetic, truth, tmp_path):
    path = synthetic.write(
        tmp_path / "few.h5",
        synthetic.snapshots(truth, drop={"stability_bound", "effective_rank"}),
        synthetic.record(truth, inputs=False),
    )
    (written,) = write_report(path, tmp_path / "few.html")
    page = html.unescape(written.read_text(encoding="utf-8"))
    shown = page[page.index("Not shown") :]
    for needed in ("'inputs'", "'stability_bound'", "'effective_rank'"):
        assert f"needs {needed}" in shown
    assert str(path) not in shown  # the page is about this file, which may have been moved since
    assert 'class="tiles"' not in page  # no pictures without inputs; the slider still moves spectrum and energies
    assert 'id="moment"' in page


@pytest.mark.usefixtures("undrawn")
def test_failures_are_listed_and_one_snapshot_suffices(synthetic, truth, tmp_path):
    rows = list(synthetic.snapshots(truth))[:2]
    rows[1] = dataclasses.replace(rows[1], status="failed", message="the kernel is not finite", probes={})
    path = synthetic.write(tmp_path / "one.h5", rows, synthetic.record(truth))
    (written,) = write_report(path, tmp_path / "one.html")
    page = written.read_text(encoding="utf-8")
    assert "step 1: the kernel is not finite" in page
    assert "no before and after" in page


def test_an_archive_without_a_measurement_is_refused(synthetic, truth, tmp_path):
    rows = [dataclasses.replace(s, status="failed", message="NaN", probes={}) for s in synthetic.snapshots(truth)][:2]
    path = synthetic.write(tmp_path / "nothing.h5", rows, synthetic.record(truth))
    with pytest.raises(AnalysisError, match="no snapshot of this probe holds a measurement"):
        write_report(path, tmp_path / "nothing.html")
    assert not (tmp_path / "nothing.html").exists()


@pytest.mark.parametrize(("taken", "measured", "told"), [("111", "101", "2, and 1 light"), ("110", "110", "3")])
def test_light_states_are_counted_apart(taken, measured, told):
    """Oracle: counting by hand; a row that holds nothing has failed, and is a snapshot all the same."""
    flags = {name: np.array([*map(int, text)], bool) for name, text in (("taken", taken), ("measured", measured))}
    run = type("Rows", (), {**flags, "__len__": lambda self: 3})()
    assert _snapshots(run) == told


@pytest.mark.usefixtures("undrawn")
def test_several_runs_get_a_page_each(archives, tmp_path):
    pages = write_report(archives, tmp_path / "all.html", each=True)
    assert [p.name for p in pages] == ["all-run.html", "all-control.html"]


def test_frames_show_the_snapshots(archives, truth):
    frames = explorer(load(archives[0]).only).frames
    assert [frame.step for frame in frames] == [f"{step:,}" for step in truth.eigenvalues]
    assert all(frame.strip.startswith("data:image/png;base64,") for frame in frames)
    assert dict(frames[0].facts)["learning rate"] == "0.25"


@pytest.mark.nightly
def test_a_thousand_snapshots_are_a_page_within_its_limits(synthetic, truth, tmp_path):
    """10 s of processor time (the wall clock of a busy machine says nothing) and 15 MB: the limits that the page promises."""
    rows = list(synthetic.snapshots(truth))
    many = [dataclasses.replace(rows[i * len(rows) // 1000], step=i) for i in range(1000)]
    path = synthetic.write(tmp_path / "thousand.h5", many, synthetic.record(truth))
    before = time.process_time()
    (written,) = write_report(path, tmp_path / "thousand.html")
    assert time.process_time() - before < 10
    assert written.stat().st_size < 15e6
