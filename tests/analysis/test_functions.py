"""Eigenfunctions as functions. Oracles: closed forms of projections, plane waves, rotations of a span."""

import dataclasses
import json

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived.eigenfunctions import (
    mean_frequencies,
    output_in_top_modes,
    span_overlaps,
    spread_points,
)
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.errors import AnalysisError


@pytest.fixture(scope="module")
def run(archives):
    return load(archives[0]).only


def test_the_output_in_the_top_modes_is_the_projection_on_the_basis(run, truth, synthetic):
    row, k = run.row(100), 7
    output = truth.target + truth.basis @ truth.coefficients[100]
    basis = truth.basis[:, :k]
    # Eigenvectors are stored in float32: 2^-24 each, a few of them.
    np.testing.assert_allclose(output_in_top_modes(run, row, k), basis @ (basis.T @ output), atol=1e-6)


def test_more_modes_than_are_stored_are_refused(run, synthetic):
    with pytest.raises(AnalysisError, match=f"k ≤ {synthetic.TOP_K}.*got 17"):
        output_in_top_modes(run, 0, synthetic.TOP_K + 1)


def test_a_kernel_of_summed_outputs_has_no_projection_of_one_output(run):
    dataset = run.dataset.copy()
    dataset.attrs = {**dataset.attrs, "settings": json.dumps({**run.settings, "output": "sum"})}
    with pytest.raises(AnalysisError, match="no projection on a 'sum' kernel"):
        output_in_top_modes(dataclasses.replace(run, dataset=dataset), 0, 3)


def test_the_mean_frequency_is_the_double_loop_over_the_whole_plane():
    """The definition, written out over all of the plane; the function uses half of it, by symmetry."""
    generator = np.random.default_rng(3)
    points = generator.random((100, 2)) * [2.0, 5.0] - 1
    phi = np.cos(4 * points[:, 0]) + 0.3 * generator.standard_normal(100)
    unit, phi0 = (points - points.min(axis=0)) / np.ptp(points, axis=0), phi - phi.mean()
    radii = power = 0.0
    for a in range(-5, 6):  # √100 / 2
        for b in range(-5, 6):
            if (a, b) != (0, 0):
                transform = np.mean(phi0 * np.exp(-2j * np.pi * (a * unit[:, 0] + b * unit[:, 1])))
                p = abs(transform) ** 2 - np.mean(phi0**2) / 100
                radii += np.hypot(a, b) * p
                power += p
    np.testing.assert_allclose(mean_frequencies(points, phi[:, None]), [radii / power], rtol=1e-11)


@pytest.mark.parametrize("frequency", [1, 3, 7])
def test_a_wave_has_its_own_frequency_and_noise_has_none(frequency):
    """Standard error: √(Σ|ξ|²) floor / power = √(480·150) (1/6000) / (1/4) = 0.18 periods; three of them are 0.54.

    Without the subtracted floor the mean for frequency 1 would lie above 3.
    """
    points = np.random.default_rng(0).random((3000, 2))
    wave = np.cos(2 * np.pi * frequency * points[:, 0])
    noise = np.random.default_rng(1).standard_normal(3000)
    found = mean_frequencies(points, np.stack([wave, noise], axis=1))
    assert found[0] == pytest.approx(frequency, abs=0.54)
    assert np.isnan(found[1])


def test_spans_overlap_fully_with_themselves_and_their_rotations(run, synthetic):
    same = span_overlaps(run, [0, 3, 7], 5)  # the synthetic eigenbasis stands still
    np.testing.assert_allclose(same, 1, atol=1e-6)


def test_unrelated_spans_overlap_by_k_over_the_dimension(run, synthetic):
    """Haar-random spans: E‖V_sᵀV_t‖²/k = k/N exactly; one draw of 16 in 48 lies within 10 % of it."""
    other = np.linalg.qr(np.random.default_rng(1).standard_normal((synthetic.N, synthetic.TOP_K)))[0]
    vectors = run.dataset["eigenvectors"].load().copy()
    vectors[1] = other[:, None]
    turned = dataclasses.replace(run, dataset=run.dataset.assign(eigenvectors=vectors))
    overlap = span_overlaps(turned, [0, 1], synthetic.TOP_K)
    assert overlap[0, 1] == pytest.approx(synthetic.TOP_K / synthetic.N, rel=0.1)
    assert overlap[0, 1] == pytest.approx(overlap[1, 0])


def test_spread_points_start_in_the_middle_and_keep_apart():
    points = np.array([[0.5, 0.5], [0.52, 0.5], [0, 0], [1, 1], [0, 1]])
    assert spread_points(points, 3).tolist()[0] in (0, 1)
    assert set(spread_points(points, 4).tolist()[1:]) == {2, 3, 4}


def test_slices_are_drawn_at_the_ends_where_the_kernel_was_kept(run, truth):
    figure = choose("kernel-slices")(Scene(run))
    labels = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert labels == ["step 0", "step 700"]
    kernel = (truth.basis * truth.eigenvalues[0]) @ truth.basis.T
    low, high = (float(v.replace("−", "-")) for v in figure.axes[0].get_title().split(" to "))
    assert min(abs(np.min(row) - low) + abs(np.max(row) - high) for row in kernel) < 0.1  # two digits of one row


def test_projections_say_what_is_left_out(run, truth, synthetic):
    title = choose("projections")(Scene(run)).axes[1].get_title()
    last = truth.target + truth.basis @ truth.coefficients[synthetic.LAST]
    share = 1 - np.sum((truth.basis[:, :3].T @ last) ** 2) / np.sum(last**2)
    assert title == f"k = 3\n{share:.2g} missing"


def test_the_rotation_of_one_moment_is_refused(synthetic, truth, tmp_path):
    rows = list(synthetic.snapshots(truth))[:1]
    one = load(synthetic.write(tmp_path / "one.h5", rows, synthetic.record(truth))).only
    with pytest.raises(AnalysisError, match="two measured snapshots"):
        choose("rotation")(Scene(one))
