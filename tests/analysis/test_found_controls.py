"""Controls that nobody names: found beside a run by what their archives say. Oracle: the same control, named."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.figures import PAPER, Scene, registered
from kerneltrack.analysis.lr_decay import change_table, sentence, trend_sentence
from kerneltrack.analysis.report import write_report
from kerneltrack.analysis.report.verdicts.rate import rates
from kerneltrack.analysis.trajectory import controls_beside, placebos_beside
from kerneltrack.archive import open_archive
from kerneltrack.errors import AnalysisError
from kerneltrack.snapshot import ControlOf
from tests.analysis.test_outputs import few
from tests.archive.at_once import write


class Folder:
    """A run, and what lies beside it."""

    def __init__(self, place, synthetic, truth, control_truth, **settings):
        self.place, self.synthetic, self.truth, self.control_truth = place, synthetic, truth, control_truth
        self.settings = settings
        self.run = write(place / "run.h5", self.rows(truth), synthetic.record(truth, **settings))
        with open_archive(self.run) as archive:
            self.id = archive.attrs["archive_id"]

    def rows(self, truth):
        """With few numbers: most of the time of these tests is opening archives, one dataset after the other."""
        return few(self.synthetic.snapshots(truth), {"linearization_error"})

    def beside(self, name, rows=None, **said):
        said = {"archive_id": self.id, "fork_step": self.synthetic.HALVED, "batches": "same_batches", **said}
        rows = self.rows(self.control_truth) if rows is None else rows
        record = self.synthetic.record(self.control_truth, **self.settings)
        return write(self.place / name, rows, record, control=ControlOf(**said))

    def placebo(self, name, factor):
        """A placebo in which every number is so many times the run's."""
        rows = [
            replace(row, probes={"train": {n: np.asarray(v) * factor for n, v in row.probes["train"].items()}})
            for row in self.rows(self.truth)
            if row.step >= self.synthetic.HALVED
        ]
        return self.beside(name, rows, placebo=True, batches="other_batches")


@pytest.fixture
def folder(tmp_path, synthetic, truth, control_truth):
    return Folder(tmp_path, synthetic, truth, control_truth)


def test_a_control_is_found_by_what_it_says(folder):
    folder.beside("b.h5")
    folder.beside("a.h5", batches="other_batches")
    folder.beside("another.h5", archive_id="x" * 36)
    folder.beside("placebo.h5", placebo=True)
    (folder.place / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (folder.place / "text.h5").write_text("no archive")
    run = load(folder.run).only
    assert [control.name for control in controls_beside(run)] == ["b", "a"]  # the run's batches first
    assert [placebo.name for placebo in placebos_beside(run)] == ["placebo"]
    assert not controls_beside(load(folder.place / "b.h5").only)


def output(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_every_command_finds_it(folder, capsys, undrawn):
    """lr-decay, summary and compare give what they give with --control; the report names it."""
    assert json.loads(output(capsys, "lr-decay", folder.run, "--json"))["control"] is None
    control = folder.beside("kept.h5")
    for command in ("lr-decay", "summary"):
        named = output(capsys, command, folder.run, "--json", "--control", control)
        assert output(capsys, command, folder.run, "--json") == named
    effects = json.loads(output(capsys, "lr-decay", folder.run, "--json"))
    assert effects["control"] == "kept"
    assert effects["changes"][0]["control"] == "paired"
    assert output(capsys, "compare", folder.run) == output(capsys, "compare", folder.run, control)
    (page,) = write_report(folder.run, folder.place / "run.html")
    assert "Beside it stands the control “kept”" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "because"),
    [
        ({"batches": "other_batches"}, "was trained on other batches than the run (other_batches)"),
        ({"batches": "unverified"}, "has not ended, so nothing says whether its batches were the run's (unverified)"),
        ({"placebo": True}, "is a placebo, with the run's own learning rates"),
        ({"archive_id": "y" * 36}, "says that it is the control of another run"),
    ],
)
def test_nothing_is_called_an_effect_of_what_is_no_control(folder, said, because, capsys, undrawn):
    """Named by hand as well: what the archive says of itself decides. The numbers are its control's all the same."""
    control = folder.beside("kept.h5", **said)
    (change,) = lr_decay_effects(load(folder.run), load(control)).changes
    assert because in change.no_control
    assert not change.has_control


def test_other_batches_are_said_wherever_the_control_is_drawn(folder, undrawn, capsys):
    """In the legend of every figure that draws it, on the page, and in the tables."""
    control = load(folder.beside("kept.h5", batches="other_batches")).only
    run, drawn = load(folder.run).only, []
    for name, spec in registered().items():
        scene = Scene(run, control, PAPER)
        try:
            figure = spec(scene)
        except AnalysisError:  # a figure that this archive cannot give
            continue
        named = [text.get_text() for text in figure.findobj(Text) if "control" in text.get_text()]
        if named:
            drawn.append(name)
            assert all("(other_batches)" in text for text in named), (name, named)
    assert len(drawn) >= 3, drawn
    (page,) = write_report(folder.run, folder.place / "run.html")
    assert "on other batches (other_batches)" in page.read_text(encoding="utf-8")
    assert "(other_batches)" in output(capsys, "lr-decay", folder.run)


@pytest.fixture
def stochastic(tmp_path, synthetic, truth, control_truth):
    folder = Folder(tmp_path, synthetic, truth, control_truth, stability_scope="probe estimate")
    folder.beside("kept.h5")
    return folder


def rate_verdict(path):
    """What the summary says of the rate; of the whole summary one test asks, in every command."""
    run = load(path).only
    (verdict,) = rates(run, lr_decay_effects(run, controls_beside(run), placebos_beside(run)))
    return verdict


def change_of(path):
    run = load(path).only
    (change,) = lr_decay_effects(run, controls_beside(run), placebos_beside(run)).changes
    return change


def test_an_effect_is_told_only_outside_the_placebos_spread(stochastic):
    """Placebos that differ from the run by 0.1 % and by 60 % of every number; the control by a factor of about two."""
    found = rate_verdict(stochastic.run)
    assert found.answer == "undecided"
    assert "No placebo says" in found.because
    assert "placebo=True" in found.null
    assert "Effect" not in sentence(change_of(stochastic.run), (20,))
    stochastic.placebo("near.h5", 1.001)
    assert rate_verdict(stochastic.run).answer == "an effect"
    assert "1 placebo (near)" in rate_verdict(stochastic.run).null
    assert "Effect, against the control" in sentence(change_of(stochastic.run), (20,))
    stochastic.placebo("wild.h5", 20.0)
    assert rate_verdict(stochastic.run).answer == "undecided"
    assert "Other batches alone do as much" in rate_verdict(stochastic.run).because
    words = sentence(change_of(stochastic.run), (20,))
    assert "Effect" not in words
    assert "No more than other batches do" in words
    assert "2 placebos (near, wild)" in words


def test_the_spread_is_the_farthest_placebo(stochastic):
    """Oracle: by hand, |1 − 1.5| of the run's own number; placebos of another state do not count."""
    stochastic.placebo("a.h5", 1.001)
    stochastic.placebo("b.h5", 1.5)
    stochastic.beside("elsewhere.h5", placebo=True, fork_step=7)
    change = change_of(stochastic.run)
    assert (change.null.kind, change.null.placebos) == ("placebos", ("a", "b"))
    last = change.after[-1]
    for name in ("eigenvalue_1", "probe_loss"):
        assert change.null.spread[last.step][name] == pytest.approx(0.5 * abs(last.numbers[name]))
    table = change_table(change, (20,))
    assert "  other batches" in {row[0] for row in table.rows}


def test_full_batch_descent_needs_no_null(folder):
    """Its scope is exact: the whole training set in each update, and nothing random. It says so."""
    folder.beside("kept.h5")
    assert rate_verdict(folder.run).answer == "an effect"
    assert "No null is needed: every update saw the whole training set" in rate_verdict(folder.run).null
    assert change_of(folder.run).null.kind == "deterministic"


def test_seeds_are_paired_with_the_controls_beside_them(tmp_path, synthetic, truth, control_truth, capsys):
    """Two runs in two folders, each with a control of its own: the differences over seeds, without a --control."""
    paths = []
    for seed in (0, 1):
        (place := tmp_path / str(seed)).mkdir()
        folder = Folder(place, synthetic, truth, control_truth)
        folder.beside("kept.h5")
        paths.append(folder.run)
    found = json.loads(output(capsys, "lr-decay", *paths, "--json"))
    (effects,) = found["seeds"]
    assert effects["pairs"] == [["run", "kept"], ["run", "kept"]]
    one = {(d["quantity"], d["offset"]): d["mean"] for d in effects["differences"]}
    change = change_of(paths[0])
    assert one["eigenvalue_1", 1] == pytest.approx(change.after[0].difference["eigenvalue_1"])


def test_a_trend_is_told_against_a_control_that_begins_within_it(tmp_path, synthetic, truth, control_truth):
    """A cosine from step 300 on, and a control that kept the rate it had there: the end of the one against that of the other."""
    fork = synthetic.HALVED

    def cosine(step):
        return 0.25 if step <= fork else 0.125 * (1 + np.cos(np.pi * (step - fork) / 500))

    folder = Folder(tmp_path, synthetic, truth, control_truth)
    rows = [replace(row, learning_rates=(cosine(row.step),)) for row in folder.rows(truth)]
    folder.run.unlink()
    write(folder.run, rows, synthetic.record(truth))
    with open_archive(folder.run) as archive:
        folder.id = archive.attrs["archive_id"]
    assert rate_verdict(folder.run).answer == "undecided"
    folder.beside("kept.h5", fork_step=fork)
    folder.beside("elsewhere.h5", fork_step=0)
    run = load(folder.run).only
    (course,) = lr_decay_effects(run, controls_beside(run), placebos_beside(run)).trends
    assert (course.control, course.after[0].step) == ("kept", synthetic.LAST)
    kept = load(folder.place / "kept.h5").only
    top = [r.values("eigenvalues")[r.row(synthetic.LAST), 0] for r in (run, kept)]
    assert course.after[0].difference["eigenvalue_1"] == pytest.approx(top[0] - top[1])
    assert rate_verdict(folder.run).answer == "an effect"
    assert "Effect, against the control that kept the rate" in trend_sentence(course, (20,))


def test_each_change_has_the_control_that_begins_there(folder):
    folder.beside("kept.h5")
    folder.beside("later.h5", fork_step=folder.synthetic.HALVED + 100)
    effects = lr_decay_effects(load(folder.run), controls_beside(load(folder.run).only))
    assert effects.control == "kept, later"
    assert effects.changes[0].has_control
