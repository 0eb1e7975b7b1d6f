"""The kernel beside the loss-weighted one, and the place of every statement. Oracle: spectra in closed form, λ and λ²(1 + t/T)."""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived import weighted_spectrum
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.metrics import weighted
from kerneltrack.errors import AnalysisError


@pytest.fixture(scope="module")
def run(synthetic, tmp_path_factory):
    rows, record = synthetic.one_more_kind("dials")
    return load(synthetic.write(tmp_path_factory.mktemp("metrics") / "run.h5", rows, record)).only


def participation(values):
    return values.sum() ** 2 / np.sum(values**2)


def test_both_spectra_have_their_participation_ratios_drawn_and_told(run, truth, synthetic):
    own = [truth.eigenvalues[step] for step in synthetic.STEPS]
    found = weighted_spectrum(run)
    assert found.kernel == "the loss-weighted kernel"
    assert list(found.steps) == list(synthetic.STEPS)
    np.testing.assert_allclose(found.own_ratio, list(map(participation, own)), rtol=1e-9)
    np.testing.assert_allclose(found.other_ratio, [participation(values**2) for values in own], rtol=1e-9)
    said = weighted(run)
    assert said.value == f"{participation(own[-1] ** 2):.2g} modes, not {participation(own[-1]):.2g}"
    assert said.sentence.startswith(
        f"At step 700 the loss-weighted kernel has a participation ratio of {found.other_ratio[-1]:.2g}"
    )
    assert f"at step 0 of {found.other_ratio[0]:.2g}, the kernel of {found.own_ratio[0]:.2g}." in said.sentence
    left, right = choose("weighted-spectrum")(Scene(run)).axes
    lines = {line.get_label(): line.get_ydata() for line in (*left.lines, *right.lines)}
    np.testing.assert_allclose(lines["step 700"], (own[-1] / own[-1][0]) ** 2, rtol=1e-9)
    np.testing.assert_allclose(lines["Θ, step 0"], own[0] / own[0][0], rtol=1e-9)
    np.testing.assert_allclose(lines["Θ"], found.own_ratio)


def test_one_spectrum_up_to_a_factor_is_no_finding(run):
    """As of a mean of squares, or of plain descent; the factor may change with the step."""
    factor = np.linspace(0.1, 3, len(run))[:, None]
    plain = run.dataset.assign(loss_weighted_eigenvalues=run.dataset["eigenvalues"] * factor)
    same = dataclasses.replace(run, dataset=plain)
    assert weighted_spectrum(same).proportional
    assert weighted(same) is None
    assert not weighted_spectrum(run).proportional


def changed(run, **variables):
    return dataclasses.replace(run, dataset=run.dataset.assign(variables))


def test_rounding_of_float32_does_not_part_two_spectra(run):
    single = run.dataset["eigenvalues"].astype(np.float32).astype(np.float64)
    assert weighted_spectrum(changed(run, loss_weighted_eigenvalues=single)).proportional


def test_moments_come_by_step_and_only_those_that_have_both(run):
    """Rows as a resumed run may leave them, a failed one, and one where the loss has no curvature left."""
    row = np.arange(len(run))
    other = np.where(row[:, None] == 2, 0.0, run.values("loss_weighted_eigenvalues"))
    held = changed(
        run, status=("snapshot", np.where(row == 1, 1, 0)), loss_weighted_eigenvalues=(("snapshot", "mode"), other)
    )
    backwards = dataclasses.replace(held, dataset=held.dataset.isel(snapshot=slice(None, None, -1)))
    found = weighted_spectrum(backwards)
    assert list(found.steps) == [step for i, step in enumerate(run.steps) if i not in (1, 2)]
    np.testing.assert_array_equal(found.own[0], run.values("eigenvalues")[0])


def test_the_optimizer_s_kernel_is_told_by_its_name_and_one_moment_without_a_first(run):
    named = run.dataset.rename(loss_weighted_eigenvalues="optimizer_eigenvalues")
    last = dataclasses.replace(run, dataset=named.isel(snapshot=slice(-1, None)))
    told = weighted(last)
    assert told.sentence.startswith("At step 700 the optimizer's kernel has a participation ratio of ")
    assert told.sentence.count("at step") == 0


def test_without_a_second_spectrum_nothing_is_said_and_the_figure_says_what_to_measure(archives):
    bare = load(archives[0]).only
    assert weighted(bare) is None
    with pytest.raises(
        AnalysisError, match=r"needs 'loss_weighted_eigenvalues' or 'optimizer_eigenvalues'.*observables="
    ):
        choose("weighted-spectrum")(Scene(bare))


def test_what_a_report_finds_stands_in_the_summary(run):
    """Each statement once: by itself, or as what an answer rests on."""
    summary = run.summary()
    told = [f.title for v in summary.verdicts for f in v.findings] + [f.title for f in summary.findings]
    mine = [f.title for f in findings(run)]
    assert {"Weighted kernel", "Known functions", "Sharpness", "Weights"} <= set(mine) <= set(told)
    assert all(told.count(title) == 1 for title in mine)
