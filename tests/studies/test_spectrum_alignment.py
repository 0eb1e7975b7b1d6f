"""Neural spectrum alignment at smoke size: the orderings of the page; and what the study computes itself, by closed forms."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.analysis import load
from tests.studies.study_scripts import script

study = script("spectrum-alignment")

import alignment_checks  # noqa: E402
import alignment_numbers as numbers  # noqa: E402
import alignment_others  # noqa: E402
import alignment_runs  # noqa: E402
from alignment_runs import CapturedLearner, Learner, Recipe, data  # noqa: E402
from portrait import mirrored, mlp  # noqa: E402

SIZES, Plan, claims, read, train = study.SIZES, study.Plan, study.claims, study.read, study.train
RECIPE = Recipe("picture", "gd", 50, 12, 3, 0, 0.25, (6,), 10, 5)


#: Half of the smoke size's updates: the edge of stability is reached, and both decays are seen.
SHORT = alignment_runs.replace(SIZES["smoke"], decays=(200, 400), steps=600, control=100, mirror=100, sweep=100)


@pytest.fixture(
    scope="module", params=[SHORT, pytest.param(SIZES["smoke"], marks=pytest.mark.nightly)], ids=["short", "smoke"]
)
def smoke(request, tmp_path_factory):
    """(folder, numbers, size)."""
    folder = tmp_path_factory.mktemp("smoke")
    train(folder, request.param, jobs=1)
    return folder, read(folder, request.param), request.param


def test_the_smoke_size_shows_the_orderings(smoke):
    """What the abstract claims or algebra gives, and what does not need the size: the rest is the desk size's."""
    rows = {claim.key.split()[0]: claim for claim in claims(smoke[1])}
    for key in ("A1", "R1", "R2", "R4", "R5", "R9b"):
        assert rows[key].holds, rows[key].measured
    run = smoke[1].main[0].run
    # A3 without the leading modes: at the edge of stability they flip their sign at every update, and what is left of them
    # at one snapshot depends on the machine's rounding.
    _, some, many, beyond = numbers.missing_by_modes(run, smoke[1].k)
    assert some < many < beyond
    output, target = (numbers.quantity(run, f"{name}_energy_20") for name in ("output", "target"))
    # the output lies in the top modes more than the target does, at every snapshot that has modes
    assert np.all(output[run.measured] > target[run.measured])


def test_finished_archives_are_used_again(smoke):
    folder, _, size = smoke
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    train(folder, size, jobs=1)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")} == before
    assert {path.stem for path in before} == {recipe.name for recipe in Plan(size).archives}


def test_a_control_starts_from_the_state_of_its_run(smoke):
    """Bit for bit: the outputs at the decay, stored by both."""
    for forked in smoke[1].main:
        for decay, control in forked.controls.items():
            a, b = (run.at("outputs", run.row(decay)) for run in (forked.run, control))
            np.testing.assert_array_equal(a, b)
            assert (
                control.learning_rates[control.row(decay), 0] == 2 * forked.run.learning_rates[forked.run.row(decay), 0]
            )


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
    first, noise = numbers.ray_share(x, functions)
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
        after = numbers.at(run, f"residual_energy_{k}", 2)
        assert numbers.predicted_energy_after(run, 1, k) == pytest.approx(after, rel=1e-4)


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


def test_checks_of_both_files_are_rows(smoke):
    both = [*alignment_checks.claims(smoke[1]), *alignment_others.claims(smoke[1])]
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


def test_light_states_of_pairs_are_left_out_of_what_lies_between(monkeypatch):
    """They have no spectrum: NaN, which once made a median NaN and a claim false. Oracle: the values by hand."""
    monkeypatch.setattr(numbers, "quantity", lambda run, name: np.array([9.0, 1.0, np.nan, 3.0, 7.0]))
    run = SimpleNamespace(steps=np.array([0, 4, 5, 8, 16]))
    assert numbers.between(run, "stability_ratio", 4, 8).tolist() == [1.0, 3.0]
