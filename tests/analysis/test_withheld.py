"""Archives that hold numbers which mislead, as those from before 0.1.1 do: they are not shown, and the reason is.

Oracle: the closed form of the synthetic run, in which every stored number is known, and the definition of what misleads.
"""

import csv
import dataclasses
import html
import json

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from kerneltrack.analysis import load
from kerneltrack.analysis.cli import app
from kerneltrack.analysis.commands.export import to_csv, to_netcdf
from kerneltrack.analysis.comparison.comparison import compare
from kerneltrack.analysis.comparison.sweep import sweep
from kerneltrack.analysis.derived.freeze_here import freeze_here
from kerneltrack.analysis.derived.ledger_shares import learned_shares
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.lr_decay.effects import lr_decay_effects
from kerneltrack.analysis.lr_decay.wording import factor_table
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.page import render
from kerneltrack.analysis.withheld import gauge_note, misleading, mode_note
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import Observable, registry
from kerneltrack.observables.superseded import SUPERSEDED
from tests.tiers import later, one_in

EARLIER = "kerneltrack 0.1.0"
#: The moments that these tests need: most of their time is writing archives.
KEPT = (0, 1, 10, 100, 299, 300, 301, 700)


pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def written(synthetic, truth, tmp_path):
    """Writes the synthetic run with other settings, another identity and further or other numbers; returns its Run."""

    def write(name="run", *, identity=None, change=None, extra=None, **settings):
        rows = []
        for snapshot in synthetic.snapshots(truth):
            if snapshot.step not in KEPT:
                continue
            measured = {**snapshot.probes["train"], **{n: np.array(v) for n, v in (extra or {}).items()}}
            measured = measured if change is None else change(snapshot.step, measured)
            rows.append(dataclasses.replace(snapshot, probes={"train": measured}))
        record = synthetic.record(truth, identity=identity, **settings)
        return load(synthetic.write(tmp_path / f"{name}.h5", rows, record)).only

    return write


def titles(run):
    return {finding.title for finding in findings(run)}


@pytest.mark.parametrize("loss", ["cross_entropy", None, "MyLoss", "mse_loss", "mse (a callable)"])
def test_a_frozen_kernel_is_told_of_a_mean_of_squares_only(written, loss):
    run = written(loss=loss)
    for name in ("network_error", "kernel_regression_error"):
        assert np.isnan(run.values(name)).all()
    assert "Frozen kernel" not in titles(run)
    for draw in (freeze_here, lambda r: choose("freeze-here")(Scene(r))):
        with pytest.raises(AnalysisError, match="withheld: the loss is not a mean of squares"):
            draw(run)


def test_under_cross_entropy_the_frozen_kernel_stands_on_its_own_scale(written, synthetic):
    """Oracle: a loop over the written numbers."""
    frozen = {step: 2.0 * np.exp(-step / 150) for step in KEPT}
    run = written(
        loss="cross_entropy",
        change=lambda step, measured: {
            **measured,
            "kernel_logistic_loss": np.array(frozen[step]),
            "probe_loss": np.array(1.0 - 0.5 * step / synthetic.LAST),
            "kernel_logistic_accuracy": np.array(0.75),
            "network_accuracy": np.array(0.625),
        },
    )
    good = next(s for s in KEPT if all(frozen[t] <= 0.5 for t in KEPT if t >= s))
    curve = freeze_here(run)
    assert (curve.scale, curve.good_enough, curve.final) == ("cross-entropy", good, 0.5)
    (card,) = [found for found in findings(run) if found.title == "Frozen kernel"]
    assert f"Frozen at step {good}" in card.sentence
    assert "the network's last cross-entropy" in card.sentence
    assert "right on 75 % of the points, the network on 62 %" in card.null
    ax = choose("freeze-here")(Scene(run)).axes[0]
    assert ax.get_ylabel() == "cross-entropy"
    assert ax.lines[0].get_ydata().tolist() == list(frozen.values())


def test_the_page_says_why_a_frozen_kernel_is_not_told(written):
    assert "withheld: the loss is not a mean of squares" in render(written(loss="cross_entropy"))


@pytest.mark.parametrize("loss", ["half_mse", "mse"])
def test_a_mean_of_squares_keeps_its_frozen_kernel(written, loss):
    assert "Frozen kernel" in titles(written(loss=loss))


SEEN = {"leave_one_out_error": 0.1, "kernel_alignment_risk": 0.2}


@pytest.mark.parametrize(
    "identity", [None, {"dataset": "digits"}, {"split": "train"}, {"split": "train", "indices": [1]}]
)
def test_predictions_of_labels_that_were_trained_on_are_shown_at_step_0_alone(written, identity):
    run = written(identity=identity, extra=SEEN)
    for name, value in SEEN.items():
        expected = np.where(run.steps == 0, value, np.nan)
        np.testing.assert_array_equal(run.values(name), expected)
        assert np.isnan(run.at(name, len(run) - 1))
        assert run.at(name, 0) == value
    assert "the kernel has seen these labels" in dict(misleading(run))["leave_one_out_error"]


def test_the_page_says_at_how_many_snapshots_labels_were_seen(written):
    page = render(written(identity={"dataset": "digits"}, extra=SEEN))
    assert f"{len(KEPT) - 1} of {len(KEPT)} snapshots: the kernel has seen these labels" in page


def test_predictions_on_a_held_out_probe_are_shown(written):
    run = written(identity={"dataset": "digits", "split": "validation"}, extra=SEEN)
    np.testing.assert_array_equal(run.values("leave_one_out_error"), 0.1)
    assert "leave_one_out_error" not in dict(misleading(run))


@pytest.fixture
def first_definitions(monkeypatch):
    """The catalogue as it was: what is written follows the first definition of each name."""
    for name, entry in registry.catalogue().items():
        monkeypatch.setitem(registry._REGISTERED, name, dataclasses.replace(entry, definition=1))


@pytest.mark.parametrize("said", one_in(3, ["yes", "no", "unknown", "perhaps"]))
def test_the_archive_s_word_goes_before_the_identity(synthetic, truth, tmp_path, said):
    """Oracle: the attribute. A probe that says that it is held out and was found among the training data is trained on."""
    record = synthetic.record(truth, identity={"split": "validation"})
    rows = [
        dataclasses.replace(s, probes={"train": {**s.probes["train"], **{n: np.array(v) for n, v in SEEN.items()}}})
        for s in synthetic.snapshots(truth)
    ]
    path = synthetic.write(tmp_path / "run.h5", rows, dataclasses.replace(record, in_training=said))
    run = load(path).only
    shown = run.steps == 0 if said != "no" else np.full(len(run), True)
    np.testing.assert_array_equal(np.isfinite(run.values("leave_one_out_error")), shown)
    regressed = run.steps == 0 if said == "yes" else np.full(len(run), True)
    np.testing.assert_array_equal(np.isfinite(run.values("kernel_regression_error")), regressed)
    page = render(run)
    assert ("alignments and energies after step 0 are in-sample" in page) == (said == "yes")
    assert ("In-sample: these points are trained on." in page) == (said == "yes")
    assert ("These points are held out." in page) == (said == "no")
    shown = json.loads(CliRunner().invoke(app, ["show", str(path), "--json"]).stdout)["probes"]["train"]
    assert shown["in_training"] == ("unknown" if said == "perhaps" else said)


ALIGNED = ("kernel_target_alignment", "kernel_target_alignment_centred", "optimizer_target_alignment")


@pytest.mark.parametrize(("output", "definition", "outputs", "shown"), [
    ("full", 1, 3, False), ("diagonal", 1, 3, False), ("trace", 1, 3, True), ("full", 1, 1, True), ("full", 2, 3, True),
])  # fmt: skip
def test_an_alignment_that_was_flattened_is_not_read_as_one_that_is_not(written, output, definition, outputs, shown):
    """Definition 1 of several outputs is what kernel_target_alignment_flattened is since."""
    run = written(output=output, extra=dict.fromkeys(ALIGNED, 0.3))
    numbers = {name: ("snapshot", np.full(len(run), 0.3), {"definition": definition}) for name in ALIGNED}
    dataset = xarray.Dataset({**numbers, "o": ("output", np.zeros(outputs))}, attrs=run.dataset.attrs)
    run = dataclasses.replace(run, dataset=dataset.assign_coords(step=("snapshot", run.steps)))
    for name in ALIGNED:
        assert np.isfinite(run.values(name)).all() == shown
        assert ("flattened" in run.withheld(name).reason) != shown


def small_steps(step, measured):
    """As late in a cosine: the outputs stand still to 10⁻⁹ from step 299 on, and their change looks most nonlinear."""
    if step in (299, 300, 301):
        still = np.ones_like(measured["outputs"])
        measured |= {"outputs": still + 1e-9 * (step - 299), "kernel_flow_error": np.array(0.96)}
        measured |= {"linearization_error": np.array(0.97), "ledger_curvature": 0.5 + 0 * measured["ledger_curvature"]}
    return measured


def test_a_change_that_was_evaluated_in_float64_is_shown(written):
    """Since definition 2 the tracker looks at Δf in float64: that the outputs are stored in float32 says nothing."""
    run = written(change=small_steps, dtype="float32")
    row = list(run.steps).index(299)
    assert run.values("kernel_flow_error")[row] == 0.96
    assert np.isfinite(run.at("ledger_curvature", row)).all()


def test_a_change_that_is_rounding_is_not_called_the_worst(written, first_definitions):
    """Steps 299 and 300 have their successors stored: (4 · 2⁻²³/10⁻⁹)² is far above a hundredth. 301 has none."""
    run = written(change=small_steps, dtype="float32")
    rows = [int(np.flatnonzero(run.steps == step)[0]) for step in (299, 300)]
    for name in ("kernel_flow_error", "linearization_error", "ledger_curvature"):
        assert np.isnan(run.values(name)[rows]).all()
        assert run.withheld(name).reason == "change of the outputs is rounding"
    (accuracy,) = [f.sentence for f in findings(run) if f.title == "First-order accuracy"]
    assert "at step 299" not in accuracy
    assert "at step 300" not in accuracy
    curvature = learned_shares(run)[0][:, 2]
    assert np.isnan(curvature[rows]).all()
    assert np.isfinite(np.delete(curvature, rows)).all()


def test_in_double_precision_the_same_change_is_one(written, first_definitions):
    run = written(change=small_steps, dtype="float64")
    assert run.values("kernel_flow_error")[list(run.steps).index(299)] == 0.96


def test_of_an_earlier_archive_only_what_can_be_checked_is_shown(written, first_definitions):
    """Steps 0, 299 and 300 are followed by the state one update later; the others are not."""
    run = written()
    assert run.software.startswith("kerneltrack ")
    assert np.isfinite(run.values("kernel_flow_error")).all()
    for software in (EARLIER, "", "another 9.9.9"):
        earlier = dataclasses.replace(run, software=software)
        assert earlier.steps[np.isfinite(earlier.values("kernel_flow_error"))].tolist() == [0, 299, 300]
        assert "may be rounding" in earlier.withheld("kernel_flow_error").reason


def test_a_figure_of_nothing_but_rounding_says_so(written, first_definitions):
    def without(_, measured):
        return {name: v for name, v in measured.items() if name not in ("outputs", "anchored_linearization_error")}

    run = dataclasses.replace(written(change=without), software=EARLIER)
    with pytest.raises(AnalysisError, match="may be rounding"):
        choose("linearisation")(Scene(run))


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_factors_of_momentum_were_not_predicted(written, first_definitions, kind):
    """Of an earlier archive; the sentence of first-order accuracy is then of the real update, not of the flow."""
    run = written(extra={"predicted_factor": np.full(48, 0.9), "linearization_error": np.array(0.02)})
    told = {"run": {"optimizers": [{"class": kind, "groups": [{"momentum": 0.9}]}]}}
    other = dataclasses.replace(run, dataset=run.dataset.assign_attrs(provenance=json.dumps(told)))
    assert np.isfinite(run.values("predicted_factor")).all()
    assert np.isnan(other.values("predicted_factor")).all()
    assert "not plain gradient descent" in other.withheld("predicted_factor").reason
    (flow,), (real,) = ([f.sentence for f in findings(r) if f.title == "First-order accuracy"] for r in (run, other))
    assert flow.startswith("The kernel predicts")
    assert real.startswith("The linearised network follows one real update")


def test_changes_of_the_jacobian_below_the_rounding_of_gram_matrices_were_not_told(written, first_definitions):
    """3√ε ‖J‖ of float32 is 10⁻³ √λ_1; of step 0 a change of nothing is right."""
    run = written(change=lambda step, m: {**m, "jacobian_change": np.array(step * 1e-4)}, dtype="float32")
    floor = 3 * np.sqrt(2.0**-23 * run.values("eigenvalues")[:, 0])
    known = (run.steps == 0) | (run.steps * 1e-4 > floor)
    assert 0 < known.sum() < len(run)
    np.testing.assert_array_equal(np.isfinite(run.values("jacobian_change")), known)


def test_measured_factors_of_a_rounded_change_are_not_told(written):
    def still(step, measured):
        """The state after the halved rate's first update is the one before it, but for rounding."""
        changed = {"residual": np.full_like(measured["residual"], 0.3) * (1 + 1e-9 * (step == 301))}
        return {**measured, **changed} if step in (300, 301) else measured

    (change,) = lr_decay_effects(written(change=still, dtype="float32")).changes
    assert np.isnan(change.factors.measured).all()
    assert np.isfinite(change.factors.predicted).all()
    assert "change of the outputs is rounding" in factor_table(change).notes[0]
    finer = np.linspace(0.9, 1, 48)
    (change,) = lr_decay_effects(
        written("finer", change=still, extra={"measured_factor": finer}, dtype="float32")
    ).changes
    np.testing.assert_array_equal(change.factors.measured, finer[: len(change.factors.measured)])


@pytest.fixture
def earlier_names(monkeypatch):
    """The catalogue as it was: superseded names can be written, as archives of before hold them."""
    for name in SUPERSEDED:
        monkeypatch.setitem(
            registry._REGISTERED, name, Observable(name, "", "1", "", frozenset(), float, reading="none")
        )


@pytest.mark.parametrize(("within", "between", "shown"), [(1.0, 1.0, False), (2.0, 1.0, True), (None, None, False)])
def test_a_share_of_one_without_classes_is_not_shown(written, earlier_names, within, between, shown):
    def flat(_, measured):
        levels = {"class_within": within, "class_between": between}
        kept = {n: v for n, v in measured.items() if n not in levels}
        return {
            **kept,
            "class_block_share": np.array(1.0),
            **{n: np.array(v) for n, v in levels.items() if v is not None},
        }

    run = written(change=flat)
    assert np.isfinite(run.values("class_block_share")).all() == shown
    told = dict(misleading(run))["class_block_share"]
    assert ("withheld in" in told) != shown
    assert told.endswith("superseded by class_pair_r2: it is near 1 for any flat kernel, whatever its classes")


def test_no_card_speaks_of_a_collapse_onto_classes(written, earlier_names):
    run = written(extra={"class_block_share": 0.99})
    assert all("collapse" not in f"{f.title} {f.sentence}".lower() for f in findings(run))


@pytest.mark.parametrize(
    ("loss", "outputs", "said"),
    [
        ("cross_entropy", 3, True),
        later(("CrossEntropyLoss", 3, True)),
        ("cross_entropy (a callable)", 3, True),
        ("half_mse", 3, False),
        (None, 3, False),
        ("cross_entropy", 1, False),
        later(("BCELoss", 3, False)),
        later(("binary_cross_entropy", 3, False)),
        ("binary_cross_entropy_with_logits", 3, False),
    ],
)
def test_the_gauge_of_softmax_is_said(written, loss, outputs, said):
    run = written(loss=loss)
    wide = dataclasses.replace(
        run, dataset=xarray.Dataset({"a": ("output", np.zeros(outputs))}, attrs=run.dataset.attrs)
    )
    assert bool(gauge_note(wide)) is said
    assert not said or "other than ρ and the loss depends on that gauge" in gauge_note(wide)


@pytest.mark.parametrize(
    ("gaps", "said"), [((6.2, 0.37), True), ((np.nan, 1.0), True), ((0.99, 3.0), False), ((np.nan, np.nan), False)]
)
def test_a_start_that_is_another_network_than_the_trained_one_is_said(written, gaps, said):
    """By hand: BatchNorm's statistics before the first update. The first known gap decides."""
    run = written()
    known = np.full(len(run.steps), np.nan)
    known[0], known[-1] = gaps
    gapped = dataclasses.replace(run, dataset=run.dataset.assign(function_gap=("snapshot", known)))
    assert bool(mode_note(gapped)) is said
    assert gaps[0] != 6.2 or "differed by 6.2 times the size" in mode_note(gapped)
    assert mode_note(run) == ""


def test_the_gauge_stands_in_the_report_and_in_show(synthetic, truth, tmp_path):
    """Two outputs: the second is minus the first, as far as the page is concerned."""

    def doubled(snapshot):
        measured = dict(snapshot.probes["train"])
        for name in ("outputs", "residual"):
            measured[name] = np.hstack([measured[name], -measured[name]])
        return dataclasses.replace(snapshot, probes={"train": measured})

    record = synthetic.record(truth, loss="cross_entropy", output="trace")
    record = dataclasses.replace(record, targets=np.hstack([record.targets, -record.targets]))
    path = synthetic.write(tmp_path / "run.h5", map(doubled, synthetic.snapshots(truth)), record)
    page = render(load(path).only)
    assert "every number here other than ρ and the loss depends on that gauge" in page
    shown = CliRunner().invoke(app, ["show", str(path), "--json"])
    assert any("gauge" in note for note in json.loads(shown.stdout)["probes"]["train"]["notes"])
    assert "gauge" in " ".join(CliRunner().invoke(app, ["show", str(path)]).stdout.split())


def test_comparisons_and_exports_hold_nothing_that_is_withheld(written, tmp_path):
    runs = [written(name, loss="cross_entropy", extra=SEEN) for name in ("one", "two")]
    both = load([run.path for run in runs])
    found = compare(both, quantities=["leave_one_out_error", "network_error"])
    assert np.isnan(found.values["network_error"]).all()
    assert np.isfinite(found.values["leave_one_out_error"]).sum() == 2  # step 0 of each
    assert any(f"one: network_error is withheld in {len(KEPT)} of {len(KEPT)}" in note for note in found.notes)
    with to_csv(runs[0], tmp_path / "run.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["network_error"] for row in rows] == [""] * len(KEPT)
    assert [row["leave_one_out_error"] for row in rows] == ["0.1", *[""] * (len(KEPT) - 1)]
    with xarray.open_dataset(to_netcdf(runs[0], tmp_path / "run.nc"), engine="h5netcdf") as exported:
        assert np.isnan(exported["network_error"].values).all()
        np.testing.assert_array_equal(exported["trace"].values, runs[0].values("trace"))


def test_a_sweep_of_what_is_withheld_says_why(written):
    runs = load([written(name, loss=None, width=i).path for i, name in enumerate(("one", "two"), 1)])
    with pytest.raises(AnalysisError, match="withheld: the loss is not a mean of squares"):
        sweep(runs, "settings.width", ["network_error"])


def test_the_page_says_how_each_number_is_read(written):
    """Oracle: the catalogue, and the attribute in the file for what nobody here has registered."""
    run = written()
    page = html.unescape(render(run))
    entry = registry.catalogue()["effective_rank"]
    assert entry.reading in page
    assert run.dataset["effective_rank"].attrs["reading"] == entry.reading
    alien = run.dataset.assign(alien=("snapshot", np.zeros(len(run)), {"formula": "0", "reading": "Higher: never."}))
    assert "Higher: never." in render(dataclasses.replace(run, dataset=alien))


def test_show_says_why_a_number_is_missing(written, first_definitions):
    run = dataclasses.replace(written(loss="mse"), software=EARLIER)
    from kerneltrack.analysis.commands.show import _probe

    facts = _probe(run)
    assert facts["last"]["kernel_flow_error"] is None
    assert any(note.startswith("kernel_flow_error is withheld") for note in facts["notes"])


def test_a_ratio_of_a_sample_says_what_it_does_not_say(written):
    """Oracle: the stored numbers. Below the bound a sample says nothing of the training; its bias is told where it is stored."""
    quiet = {"stability_ratio": np.array(0.4), "stability_ratio_bias": np.array(0.07)}
    below = written(extra=quiet, stability_scope="probe estimate")
    (said,) = [f.sentence for f in findings(below) if f.title == "Edge of stability"]
    assert "too large on average, here by about 0.070." in said
    assert "does not say that training was stable" in said
    (said,) = [f.sentence for f in findings(written("at", stability_scope="probe estimate")) if "Edge" in f.title]
    assert said.endswith("A sample of the data makes the ratio too large on average.")
    exact = written("exact", extra=quiet)
    (said,) = [f.sentence for f in findings(exact) if f.title == "Edge of stability"]
    assert "sample" not in said
    assert "stable" not in said


def test_the_edge_under_a_moving_rate_says_that_the_bound_moved(synthetic, tmp_path):
    rows, record = synthetic.one_more_kind("cosine")
    run = load(synthetic.write(tmp_path / "cosine.h5", rows, record)).only
    (edge,) = [f.sentence for f in findings(run) if f.title == "Edge of stability"]
    reached = run.steps[np.flatnonzero(run.values("stability_ratio") >= 0.95)[0]]
    rates = run.learning_rates[run.steps >= reached, 0]
    rates = rates[rates > 0]
    assert f"moved by ×{float(f'{rates.max() / rates.min():.2g}'):g} meanwhile" in edge
