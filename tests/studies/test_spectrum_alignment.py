"""Neural spectrum alignment at smoke size: the orderings of the page; and what the study computes itself, by closed forms."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.analysis import load
from tests.studies.study_scripts import committed_page_is_of_its_results, script

study = script("spectrum-alignment")

import alignment_checks  # noqa: E402
import alignment_numbers as numbers  # noqa: E402
import alignment_others  # noqa: E402
import alignment_page  # noqa: E402
import alignment_runs  # noqa: E402
import alignment_tracks as tracks  # noqa: E402
from alignment_numbers import Forked, Runs, Track  # noqa: E402
from alignment_runs import CapturedLearner, Learner, Recipe, data  # noqa: E402
from portrait import mirrored, mlp  # noqa: E402
from results import Results  # noqa: E402

SIZES, Plan, claims = study.SIZES, study.Plan, alignment_page.claims
RECIPE = Recipe("picture", "gd", 50, 12, 3, 0, 0.25, (6,), 10, 5)


#: Half of the smoke size's updates: the edge of stability is reached, and both decays are seen.
SHORT = alignment_runs.replace(
    SIZES["smoke"], decays=(200, 400), steps=600, control=100, mirror=100, sweep=100, others=6, classes=(6, 3)
)


@pytest.fixture(
    scope="module", params=[SHORT, pytest.param(SIZES["smoke"], marks=pytest.mark.nightly)], ids=["short", "smoke"]
)
def smoke(request, tmp_path_factory):
    """(folder, results, size)."""
    folder = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            study, "DRAWS", 8
        )  # of the start's kernel: the claim is within standard errors, of few draws wider ones
        return folder, study.measure("smoke", request.param, folder), request.param


@pytest.fixture(scope="module")
def runs(smoke):
    return Runs.of(smoke[1])


def test_the_smoke_size_shows_the_orderings(runs):
    """What the abstract claims or algebra gives, and what does not need the size: the rest is the desk size's."""
    rows = {claim.key.split()[0]: claim for claim in claims(runs)}
    for key in ("A1", "R1", "R2", "R5", "R9b"):
        assert rows[key].holds, rows[key].measured
    run = runs.main[0].run
    assert np.nanmax(run.values("stability_ratio")) > 0.9
    # A3 without the leading modes: at the edge of stability they flip their sign at every update, and what is left of them
    # at one snapshot depends on the machine's rounding.
    _, some, many, beyond = run["missing"]
    assert some < many < beyond
    output, target = (run.values(f"{name}_energy_20") for name in ("output", "target"))
    # the output lies in the top modes more than the target does, at every snapshot that has modes
    assert np.all(output[run.measured] > target[run.measured])


def test_finished_archives_are_used_again(smoke):
    """Where the numbers of a run are gone, and its archive is not."""
    folder, results, size = smoke
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    name = Plan(size).digits[0].name
    (folder / f"{name}.json").unlink()
    again = study.measure("smoke", size, folder)
    assert json.loads(json.dumps(again.runs)) == json.loads(json.dumps(results.runs))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")} == before
    mirrored = {run["mirrored"]["name"] for run in results.runs if run["kind"] == "main"}
    assert {path.stem for path in before} == {track["name"] for track in Runs.of(results).tracks} | mirrored


def test_a_control_starts_from_the_state_of_its_run(smoke):
    """Bit for bit: the outputs at the decay, stored by both."""
    folder, _, size = smoke
    for recipe in Plan(size).main:
        run = load(folder / f"{recipe.name}.h5").only
        for decay in recipe.decays:
            control = load(folder / f"{recipe.control(decay, size.control).name}.h5").only
            a, b = (one.at("outputs", one.row(decay)) for one in (run, control))
            np.testing.assert_array_equal(a, b)
            assert control.learning_rates[control.row(decay), 0] == 2 * run.learning_rates[run.row(decay), 0]


def test_a_track_holds_what_the_archive_does(smoke, runs):
    """To six digits: every series at every snapshot, read by its name."""
    for forked in (runs.main[0], runs.digits[0]):
        archive = load(smoke[0] / f"{forked.run['name']}.h5").only
        assert forked.run.steps.tolist() == archive.steps.tolist()
        assert {"eigenvalue_10", "stability_ratio", "output_energy_20"} <= set(forked.run["series"])
        for name in forked.run["series"]:
            np.testing.assert_allclose(forked.run.values(name), tracks.quantity(archive, name), rtol=1e-5)


def test_the_page_is_made_of_results_alone(smoke, tmp_path):
    _, results, size = smoke
    results.write(tmp_path / "results.json")
    text = study.page(Results.read(tmp_path / "results.json"))
    assert text == study.page(results)
    assert text.count("\n![") == len(alignment_page.FIGURES)
    shapes = len({*((size.width, d) for d in size.depths), *((w, 2) for w in size.widths)})
    # of each seed a mirror, the main run and one of digits with their controls, two optimizers with one each; and the sweep
    assert text.count(" | trace | ") == size.seeds * (1 + 1 + len(size.decays) + 2 + 2 * 2 + shapes - 1)


def made_up(name, steps, values, **facts):
    """A track of one series."""
    return Track(
        {"name": "made up", "steps": steps, "measured": [True] * len(steps), "series": {name: values}, **facts}
    )


def test_an_effect_is_between_means_of_pairs():
    """An orbit of period 2 around 5 and around 3: by hand. Single states of one phase would say 6 and 2, or 4 and 4."""
    steps = [100, 101, 149, 150, 199, 200]
    run, control = (made_up("a", [*steps, 299, 300], [m + (-1) ** t for t in [*steps, 299, 300]]) for m in (5, 3))
    forked = Forked(run, {100: control})
    assert numbers.paired(run) == [101, 150, 200, 300]
    assert forked.late("a", 100) == (5.0, 3.0)
    assert numbers.pair(run, "a", 200) == 5.0
    with pytest.raises(LookupError, match="not measured at step 298"):
        numbers.pair(run, "a", 299)


@pytest.mark.parametrize(
    ("signs", "answer"),
    [
        ([[True, True]] * 3, True),
        ([[True, False]] * 3, False),
        ([[True, True], [True, False], [True, True]], None),
        ([[False, True], [False, False], [False, True]], False),
        ([[True, True]] * 2, None),
    ],
)
def test_a_verdict_on_an_optimizer_needs_three_seeds_that_agree(signs, answer):
    assert alignment_others._agreed(signs) is answer


@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
def test_the_step_that_is_captured_on_a_gpu_trains_bit_for_bit_as_lightnings_own(optimizer):
    """Oracle: the same module trained by Lightning's ordinary closure. Here the function is called, not replayed."""
    recipe = alignment_runs.replace(RECIPE, optimizer=optimizer, rate=0.25 if optimizer == "gd" else 0.01)
    x, y = data(recipe)
    ends = []
    for make in (lambda: Learner(recipe), lambda: CapturedLearner(recipe, x, y)):
        pl.seed_everything(0, verbose=False)
        model = make()
        trainer = pl.Trainer(
            max_steps=recipe.steps,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with alignment_runs.without_advice():
            trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=len(x)))
        assert trainer.global_step == recipe.steps
        ends.append(model)
    for a, b in zip(*(model.parameters() for model in ends), strict=True):
        assert torch.equal(a, b)
    start = Learner(recipe)
    assert not any(torch.equal(a, b) for a, b in zip(start.parameters(), ends[0].parameters(), strict=True))


def test_the_tracker_measures_the_captured_training_as_the_ordinary_one(tmp_path):
    """Same archive but for times and the path: every eigenvalue, energy and linearisation error."""
    found = []
    for captured in (False, True):
        folder = tmp_path / str(captured)
        folder.mkdir()
        found.append(kt.open_archive(alignment_runs.train(folder, RECIPE, captured=captured)).to_xarray())
    for name in ("eigenvalues", "target_energy", "linearization_error", "update_applied", "training_loss"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_the_share_along_rays_is_one_for_such_functions_and_near_none_for_noise():
    """Closed form: r cos 2φ + 3 is of that form. Noise: corrected for its 10 coefficients of 100 points, within 4/√100."""
    x = np.random.default_rng(0).normal(size=(100, 2))
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    functions = np.stack([radius * np.cos(2 * angle) + 3, np.random.default_rng(1).normal(size=100)], axis=1)
    first, noise = tracks.ray_share(x, functions)
    assert first == pytest.approx(1, abs=1e-12)
    assert abs(noise) < 0.4


def test_the_expected_diagonal_of_two_layers_by_hand():
    """Depth 2, width w: Θ(x, x) = ‖φ(z)‖² + 1 + (‖x‖² + 1) ‖a ∘ φ'‖² with c = (1 + 0.2²)/2, worked out term by term."""
    w, c = 40, 0.52
    by_hand = (2 * w * c * 2 / (2 + w) + 1) + (2 + 1) * (w * c * 2 / (w + 1))
    assert numbers.expected_diagonal(Recipe("picture", "gd", 9, w, 2, 0, 0.25, (), 1, 1)) == pytest.approx(by_hand)


def test_the_prediction_of_the_residual_is_that_of_a_linear_model(tmp_path):
    """A network of one layer has a constant kernel, so one update does exactly what 1 − ηλ/N says (float32: 1e-4)."""
    recipe = Recipe("picture", "gd", 40, 4, 1, 0, 0.1, (), 4, 1)
    run = load(alignment_runs.train(tmp_path, recipe)).only
    for k in (1, 2):
        after = tracks.quantity(run, f"residual_energy_{k}")[run.row(2)]
        assert tracks.predicted_energy_after(run, 1, k) == pytest.approx(after, rel=1e-4)


def test_the_mirrored_picture_is_the_picture_seen_in_a_mirror():
    """On points that are symmetric themselves the nearest point to a mirror image is that image."""
    half = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    x = torch.cat([half, half * torch.tensor([-1.0, 1.0])])
    y = torch.arange(40.0)[:, None]
    swapped = torch.cat([y[20:], y[:20]])
    torch.testing.assert_close(mirrored(x, y), (swapped - swapped.mean()) / swapped.std(correction=0))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_a_size_compares_meets(size):
    """As many parameters; and steps that both sides measure: on the grid, controls twice as far into the run's block."""
    deep, wide = (
        sum(p.numel() for p in mlp(2, w, d, 1).parameters())
        for w, d in ((size.width, size.depth), (size.widths[-1], 2))
    )
    assert deep == wide
    grid = size.steps // size.grid
    assert all(step % grid == 0 for step in (size.mirror, size.sweep, size.control, *size.decays, size.steps))
    assert 2 * size.control <= min(b - a for a, b in pairwise([*size.decays, size.steps]))


def test_checks_of_both_files_are_rows(runs):
    both = [*alignment_checks.claims(runs), *alignment_others.claims(runs)]
    keys = [claim.key.split()[0] for claim in both]
    assert keys[3:21] == [
        "R1",
        "R2",
        "R3",
        "R4",
        "R5",
        "R6",
        "R7",
        "R8",
        "R9",
        "R9b",
        "R10",
        "R11",
        "R11b",
        "R12",
        "R13",
        "R14",
        "R14",
        "O",
    ]


@pytest.mark.parametrize("captured", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_run_in_pieces_is_the_whole_run(tmp_path, captured):
    """Bit for bit, in every number of its archive: it ends at snapshots, one of them at a decay."""
    recipe = Recipe("picture", "momentum", 40, 16, 3, 0, 0.05, decays=(8,), steps=16, grid=4)
    whole = alignment_runs.train(tmp_path, recipe, captured=captured)
    (tmp_path / "pieces").mkdir()
    for until in (4, 8):
        assert alignment_runs.train(tmp_path / "pieces", recipe, captured=captured, until=until).name.startswith(
            "unfinished"
        )
    pieces = alignment_runs.train(tmp_path / "pieces", recipe, captured=captured)
    assert [path.name for path in pieces.parent.glob("*.ckpt")] == [f"{recipe.name}-before-8.ckpt"]  # a control's start
    assert [path.name for path in (tmp_path / "pieces").glob("unfinished*")] == []
    ours, others = load(whole).only, load(pieces).only
    np.testing.assert_array_equal(ours.steps, others.steps)
    np.testing.assert_array_equal(ours.values("eigenvalues"), others.values("eigenvalues"))
    for row in range(len(ours.steps)):
        np.testing.assert_array_equal(ours.at("outputs", row), others.at("outputs", row))


def test_the_command_line_trains_a_part(tmp_path, monkeypatch):
    """One group, until an update; no page is written, and nothing else is trained."""
    monkeypatch.setattr(
        sys, "argv", ["study.py", "--size", "smoke", "--out", str(tmp_path), "--only", "digits", "--until", "5"]
    )
    study.main()
    assert sorted(path.name.split("-")[:2] for path in tmp_path.iterdir()) == [["unfinished", "digits"]] * 2


def test_light_states_of_pairs_are_left_out_of_what_lies_between():
    """They have no spectrum: NaN, which once made a median NaN and a claim false. Oracle: the values by hand."""
    run = made_up("stability_ratio", [0, 4, 5, 8, 16], [9.0, 1.0, None, 3.0, 7.0])
    assert numbers.between(run, "stability_ratio", 4, 8).tolist() == [1.0, 3.0]


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results("spectrum-alignment", alignment_page.page)
