"""At the edge, aligned, and what the rate did: at, just below and just above each limit, and where nothing is known.

Oracles: numbers that are chosen, targets that are eigenvectors or random labels, a loop over permutations with whole
matrices, the closed form of their mean, and both archives' own numbers, divided.
"""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.derived import PermutedEnergy, permuted_energy
from kerneltrack.analysis.report.verdicts import ALIGNED, EDGE, RATE, aligned, rates
from kerneltrack.analysis.report.verdicts.aligned import _answer
from kerneltrack.observables.alignment import permuted_squares
from tests.analysis.altered import ABOVE, BELOW, just, stored


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


@pytest.fixture(scope="module")
def control(archives):
    return load(archives[1]).only


def at_ratio(run, ratio, *, scope="exact", **values):
    return stored(run, settings={"stability_scope": scope}, stability_ratio=ratio, **values).summary()[EDGE]


def arrived(run, level):
    """ρ of a run that came to its bound once, at the first snapshot, and was at ``level`` ever since."""
    return np.array([0.95] + [level] * (len(run) - 1))


@pytest.mark.parametrize(
    ("ratio", "answer"),
    [
        (0.0, "below"),
        (just(0.95, BELOW), "below"),
        (0.95, "at the edge"),
        (just(0.95, ABOVE), "at the edge"),
        (1.0, "at the edge"),
        (1.5, "at the edge"),
        (just(1.5, ABOVE), "beyond"),
        (2.0, "beyond"),
    ],
)
def test_the_edge_at_its_limits(run, ratio, answer):
    found = at_ratio(run, ratio)
    assert (found.answer, found.numbers["stability_ratio"]) == (answer, ratio)


@pytest.mark.parametrize(
    ("level", "answer"),
    [(0.75, "at the edge"), (just(0.75, BELOW), "undecided"), (0.3, "undecided"), (just(0.75, ABOVE), "at the edge")],
)
def test_an_edge_that_was_left_is_not_called_held(run, level, answer):
    found = at_ratio(run, arrived(run, level))
    assert found.answer == answer
    assert ("left again" in found.because) == (answer == "undecided")


@pytest.mark.parametrize(
    ("ratio", "bias", "answer"),
    [
        (1.25, 0.25, "at the edge"),
        (1.0, 0.25, "undecided"),  # 0.75 without its bias: it never came to 0.95
        (1.2, 0.25, "at the edge"),  # 0.95 exactly
        (just(1.2, BELOW), 0.25, "undecided"),
        (2.0, 0.5, "at the edge"),
        (2.0, 0.25, "beyond"),
        (0.5, 0.25, "below"),  # a bias makes it too large: without it ρ is lower still
        (0.95 * 1.5, np.nan, "at the edge"),
        (just(0.95 * 1.5, BELOW), np.nan, "undecided"),
        (2.5, np.nan, "beyond"),
    ],
)
def test_a_sample_of_the_data_makes_the_ratio_too_large(run, ratio, bias, answer):
    assert at_ratio(run, ratio, scope="probe estimate", stability_ratio_bias=bias).answer == answer


def test_without_a_loss_nothing_is_said_of_the_edge(run):
    found = stored(run, without=["stability_ratio"]).summary()[EDGE]
    assert (found.answer, found.findings) == ("undecided", ())
    assert "NTKTracker(loss=" in found.because


def with_targets(run, targets):
    data = run.dataset["targets"]
    return dataclasses.replace(run, dataset=run.dataset.assign(targets=data.copy(data=targets.reshape(data.shape))))


def test_a_target_that_is_the_top_eigenvector_is_aligned_and_the_last_one_is_not(run, truth):
    for mode, answer, energy in ((0, "aligned", 1.0), (-1, "not aligned", 0.0)):
        found = with_targets(run, truth.basis[:, mode]).summary()[ALIGNED]
        assert found.answer == answer
        # float32 vectors: seven digits of twelve squares
        assert found.numbers["target_energy"] == pytest.approx(energy, abs=1e-6)


def test_random_labels_are_hardly_ever_aligned(run):
    """A level of 1 %: more than 2 of 30 have a probability of 0.003; and about half lie above the mean of permutations."""
    generator = np.random.default_rng(3)
    answers = [aligned(with_targets(run, generator.choice([-1.0, 1.0], run.count))).answer for _ in range(30)]
    assert answers.count("aligned") <= 2
    assert 7 < answers.count("not aligned") < 23
    assert answers.count("undecided") > 0


@pytest.mark.parametrize(
    ("reaching", "answer"), [(8, "aligned"), (9, "undecided"), (10, "undecided"), (400, "undecided")]
)
def test_aligned_at_its_limit(reaching, answer):
    """(1 + 9)/1000 is 1 %, and 1 % is not fewer."""
    null = np.concatenate([np.full(reaching, 0.9), np.linspace(0, 0.2, 999 - reaching)])
    found = PermutedEnergy(20, 0.9, null)
    assert found.reached == (1 + reaching) / 1000
    assert _answer(found, float(null.mean()), "")[0] == answer


@pytest.mark.parametrize(
    ("energy", "answer"), [(0.5, "not aligned"), (just(0.5, ABOVE), "undecided"), (0.2, "not aligned")]
)
def test_not_aligned_at_its_limit(energy, answer):
    assert _answer(PermutedEnergy(20, energy, np.tile([0.4, 0.6], 50)), 0.5, "")[0] == answer


def test_labels_of_one_class_decide_nothing(run):
    found = with_targets(run, np.ones(run.count)).summary()[ALIGNED]
    assert (found.answer, found.numbers["reached"]) == ("undecided", 1.0)


@pytest.mark.parametrize("missing", ["eigenvectors", "targets"])
def test_without_eigenvectors_or_targets_alignment_is_undecided(run, missing):
    found = stored(run, without=[missing]).summary()[ALIGNED]
    assert found.answer == "undecided"
    assert missing in found.because


@pytest.mark.parametrize("outputs", [1, 2])
def test_permuted_energies_are_those_of_a_loop(archives, two_outputs, synthetic, outputs):
    """Oracles: ‖VVᵀ(πy)‖²/‖y‖² with the whole projector, rows permuted one by one; and the closed form of the mean."""
    path = archives[0] if outputs == 1 else two_outputs[0]
    run = load(path).only
    truth = synthetic.simulate(outputs=outputs)
    found = permuted_energy(run, len(run) - 1, 10, draws=200, seed=4)
    projector = truth.basis[:, :10] @ truth.basis[:, :10].T
    target = truth.target.reshape(truth.count, outputs)
    generator, expected = np.random.default_rng(4), []
    for _ in range(200):
        order = generator.permutation(truth.count)
        moved = np.concatenate([target[n] for n in order])
        expected.append(moved @ projector @ moved / np.sum(target**2))
    np.testing.assert_allclose(found.null, expected, rtol=0, atol=1e-6)  # vectors are stored in float32
    own = target.reshape(-1) @ projector @ target.reshape(-1) / np.sum(target**2)
    assert found.energy == pytest.approx(own, abs=1e-6)
    mean = permuted_squares(truth.basis[:, :10], target, "full").sum() / np.sum(target**2)
    assert found.null.mean() == pytest.approx(mean, abs=5 * found.null.std() / np.sqrt(200))


def test_a_rate_that_was_kept_is_no_change(control):
    found = control.summary()[RATE]
    assert (found.answer, found.because) == ("no change", f"It was 0.25 in all {len(control)} snapshots.")


def test_a_change_that_the_analysis_cannot_see_is_not_called_none(run):
    """The spectrum is what a change is told of: without it nothing is known, whatever the rates did. And of one snapshot."""
    for less, reason in ((stored(run, without=["eigenvalues"]), "eigenvalues"), (run.window(0, 0), "before and after")):
        found = less.summary()[RATE]
        assert found.answer == "undecided"
        assert reason in found.because


def test_a_change_without_a_control_is_no_effect(run):
    found = run.summary()[RATE]
    assert (found.answer, found.numbers) == ("undecided", {})
    assert "no control was given" in found.because


def test_a_change_beside_its_control(run, control, truth, control_truth):
    """Oracle: both archives' own numbers, divided."""
    found = run.summary(control)[RATE]
    last = max(truth.eigenvalues)
    loss = [np.sum(t.coefficients[last] ** 2) for t in (truth, control_truth)]
    expected = {
        "eigenvalue_1": truth.eigenvalues[last][0] / control_truth.eigenvalues[last][0],
        "probe_loss": loss[0] / loss[1],
    }
    assert found.answer == "an effect"
    for name, factor in expected.items():
        assert found.numbers[name] == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(
    ("factor", "answer"), [(1.0, "no effect"), (1.0999, "no effect"), (1.1, "an effect"), (1.1001, "an effect")]
)
def test_an_effect_at_its_limit(run, control, factor, answer, up):
    """λ_1 of the run is ``factor`` times the control's, or the other way round; all else is equal."""
    effects = lr_decay_effects(run, control)
    (change,) = effects.changes
    paired = [
        dataclasses.replace(
            m, numbers={**m.control, "eigenvalue_1": m.control["eigenvalue_1"] * (factor if up else 1 / factor)}
        )
        for m in change.after
    ]
    same = dataclasses.replace(effects, changes=(dataclasses.replace(change, after=tuple(paired)),))
    (found,) = rates(run, same)
    assert found.answer == answer


def test_a_schedule_that_moves_at_every_update_has_no_before_and_after(synthetic, tmp_path):
    rows, record = synthetic.one_more_kind("cosine")
    found = load(synthetic.write(tmp_path / "cosine.h5", rows, record)).only.summary()[RATE]
    assert found.answer == "undecided"
    assert "no before and after" in found.findings[0].sentence
