"""The feature atlas. Oracles: eigenvectors themselves, every permutation of five points, a network of one layer."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis import load
from kerneltrack.analysis.derived import feature_atlas, own_features
from kerneltrack.analysis.derived.feature_atlas import _told
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report import features as told_of
from kerneltrack.errors import AnalysisError
from tests.analysis.altered import stored


def tracked(path, *, points, outputs=1, **arguments):
    """Three updates of a linear network with its layer's kernel."""
    torch.manual_seed(0)
    x, y = torch.randn(points, 4).double(), torch.randn(points, outputs).double()
    model = nn.Sequential(nn.Linear(4, outputs)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observables = ["default", "layer_kernel"]
    with kt.Tracker(
        path, model, optimizer, probe=kt.Probe(x, y), loss="half_mse", schedule=kt.schedule.At([0, 3]), keep_inputs=True,
        observables=observables, **arguments,
    ) as tracker:  # fmt: skip
        for _ in range(3):
            with tracker.update():
                optimizer.zero_grad()
                ((model(x) - y) ** 2).mean().backward()
                optimizer.step()
    return load(path).only


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    return tracked(tmp_path_factory.mktemp("five") / "run.h5", points=5, output="trace")


def test_an_eigenvector_has_all_of_its_energy_from_its_own_mode_on(five):
    vectors = five.at("eigenvectors", 0)[:, 0]
    for k, energy in ((2, 0.0), (3, 1.0)):
        found = feature_atlas(five, {"v": vectors[:, 2], "scaled": -7 * vectors[:, 2]}, k=k)
        np.testing.assert_allclose(found.energy[:, 0], energy, atol=1e-12)
        np.testing.assert_allclose(*found.score, rtol=1e-9)


def test_the_null_is_that_of_every_permutation(five):
    """All 120 orders of five points, by loop: the mean to rounding. z by 4,000 draws: sd to 5/√8,000 relative, five errors."""
    phi, v = (
        np.array([[1.0, 0.3], [2.0, -1.0], [-1.0, 0.5], [0.5, 2.0], [3.0, 0.1]]),
        five.at("eigenvectors", 0)[:, 0, :2],
    )
    every = [np.sum((v.T @ phi[list(order)]) ** 2) / np.sum(phi**2) for order in itertools.permutations(range(5))]
    found = feature_atlas(five, {"phi": phi}, k=2, draws=4000)
    assert found.null[0, 0] == pytest.approx(np.mean(every), rel=1e-12)
    z = (every[0] - np.mean(every)) / np.std(every)
    assert found.energy[0, 0] == pytest.approx(every[0], rel=1e-12)
    assert found.score[0, 0] == pytest.approx(z, rel=5 / np.sqrt(8000))


def test_a_function_that_no_permutation_changes_has_no_score(five):
    assert np.isnan(feature_atlas(five, {"one": np.ones(5)}, k=2).score).all()


def test_a_cluster_has_one_energy_whatever_its_basis():
    """The mean over bases of a cluster: any rotation inside it leaves E and its null."""
    rng = np.random.default_rng(0)
    vectors, ends, phi = np.linalg.qr(rng.normal(size=(8, 8)))[0], np.array([1, 4, 8]), rng.normal(size=(8, 1))
    turned = vectors.copy()
    turned[:, 1:4] = vectors[:, 1:4] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    orders = [rng.permutation(8) for _ in range(20)]
    before, after = (_told(v, ends, phi, 2, "trace", orders) for v in (vectors, turned))
    np.testing.assert_allclose(before, after, rtol=1e-10)
    inside = [float(np.sum((vectors[:, i] @ phi) ** 2) / np.sum(phi**2)) for i in range(4)]
    assert before[0] == pytest.approx(inside[0] + sum(inside[1:]) / 3, rel=1e-12)


def test_the_only_layer_is_the_whole_kernel(five):
    """Its kernel is decomposed anew, in float64: the same energies to 1e-6 of float32 vectors."""
    phi = np.arange(5.0) ** 2
    whole, layer = feature_atlas(five, {"f": phi}, k=2), feature_atlas(five, {"f": phi}, k=2, layer="0")
    np.testing.assert_allclose(layer.energy, whole.energy, atol=1e-6)
    np.testing.assert_allclose(layer.score, whole.score, atol=1e-4)


def test_a_full_kernel_takes_a_function_of_every_output(tmp_path):
    """A linear network's is k ⊗ I₂: every eigenvalue comes twice, so one mode holds half of its own direction, two hold all."""
    run = tracked(tmp_path / "run.h5", points=6, outputs=2, output="full")
    v = run.at("eigenvectors", 1)[:, :, 0]
    for k, energy in ((1, 0.5), (2, 1.0)):
        assert feature_atlas(run, {"v": v}, k=k).energy[0, 1] == pytest.approx(energy, abs=1e-6)
    with pytest.raises(AnalysisError, match=r"does not fit.*\(6, 2\)"):
        feature_atlas(run, {"f": np.arange(6.0)})
    own, y = own_features(run), run.values("targets")
    np.testing.assert_array_equal(own["target 2"], np.stack([0 * y[:, 1], y[:, 1]], axis=1))
    np.testing.assert_array_equal(own["norm of x"][:, 0], own["norm of x"][:, 1])
    scores = feature_atlas(run, own, k=3).score
    (image,) = choose("feature-atlas")(Scene(run)).axes[0].images
    assert np.ma.filled(image.get_array(), np.nan) == pytest.approx(scores, nan_ok=True)
    softmax = stored(run, settings={"gauge": "softmax"})
    assert list(own_features(softmax)) == ["target 1", "target 2"]  # a function of all outputs alike is not seen


def test_what_does_not_fit_is_refused(five):
    for features, message in (
        ({"f": np.ones(4)}, "does not fit"), ({"f": np.zeros(5)}, "no direction"), ({"f": [np.nan] * 5}, "no direction"),
        ({}, "needs a function"),
    ):  # fmt: skip
        with pytest.raises(AnalysisError, match=message):
            feature_atlas(five, features, k=1)
    with pytest.raises(AnalysisError, match="too few modes"):
        feature_atlas(five, {"f": np.arange(5.0)}, k=9)
    with pytest.raises(AnalysisError, match="no such layer"):
        feature_atlas(five, {"f": np.arange(5.0)}, k=1, layer="9")


def test_the_first_step_that_stands_out_is_told(five):
    found = feature_atlas(five, {"v": five.at("eigenvectors", 1)[:, 0, 0], "one": np.ones(5)}, k=1)
    assert found.first(-10.0) == {"v": 0, "one": None}
    assert found.first(1e9) == {"v": None, "one": None}


def test_an_archive_has_functions_of_its_own_and_they_are_drawn(five):
    assert list(own_features(five)) == ["target", "mean of x", "norm of x"]
    drawn = choose("feature-atlas")(Scene(five))
    (image,) = drawn.axes[0].images
    scores = feature_atlas(five, own_features(five), k=2).score
    np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), scores)


@pytest.fixture
def told(five, monkeypatch):
    """The statement of an atlas with these scores (functions, moments), of steps 0 and 3, and of which moments it was asked."""
    asked = []

    def of(score, *, seen="no"):
        atlas = SimpleNamespace(names=["a", "b", "c"], score=np.array(score), steps=[0, 3][: len(score[0])], k=2)

        def made(run, functions, *, k, steps):
            asked.append((k, steps))
            return atlas

        monkeypatch.setattr(told_of, "feature_atlas", made)
        monkeypatch.setattr(told_of, "seen", lambda run: seen)
        return told_of.known_functions(five)

    return of, asked


def test_it_is_told_how_many_functions_stand_out_and_which_most(told, five):
    """By hand: above five deviations; the atlas is asked of the first and the last moment."""
    of, asked = told
    found = of([[6.0, 5.1], [-9.0, 7.0], [0.0, 4.9]])
    assert asked == [(2, (0, 3))]
    assert found.value == "2 of 3"
    assert found.sentence == (
        "At step 3 2 of 3 named functions stand out of the first 2 eigenfunctions, b most (z = 7.0); at step 0 it was 1."
    )
    assert of([[6.0, 5.1]] * 3, seen="yes").sentence.endswith("In-sample: these points are trained on.")
    none = of([[0.0], [4.9], [np.nan]])
    assert none.sentence == "At step 0 none of 3 named functions stand out of the first 2 eigenfunctions."


def test_of_functions_that_no_permutation_changes_nothing_is_told(told, monkeypatch):
    of, _ = told
    assert of([[1.0, np.nan]] * 3) is None
    monkeypatch.setattr(told_of, "own_features", lambda run: {})
    assert of([[6.0, 6.0]] * 3) is None
