"""What is said and drawn of a kernel that was not formed. Oracle: the numbers put in, by hand."""

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived import assess, assessment_table
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report.estimated import estimated
from tests.analysis.altered import stored
from tests.analysis.h5_by_hand import numbers


@pytest.fixture(scope="module")
def run(archives):
    """The synthetic run, 13 snapshots from step 0 to 700, with estimates 7, 8, …, 19 and errors 0.1, 0.2, …, 1.3."""
    found = load(archives[0]).only
    value, error = 7.0 + np.arange(len(found)), 0.1 * (1 + np.arange(len(found)))
    return stored(found, participation_ratio_estimate=value, participation_ratio_estimate_error=error)


def test_the_sentence_has_its_errors_and_says_that_it_is_an_estimate(run):
    found = estimated(run)
    assert numbers(found.value) == [19, 1.3]
    assert numbers(found.sentence) == [run.dimension, 700, 19, 1.3, 0, 7, 0.1]
    assert "estimate" in found.null


@pytest.mark.parametrize("error", [0.0, np.nan])
def test_nothing_is_said_where_nothing_was_estimated(run, error):
    assert estimated(stored(run, participation_ratio_estimate_error=error)) is None
    assert estimated(stored(run, without=["participation_ratio_estimate"])) is None


def test_the_band_is_two_standard_errors(run):
    ax = choose("estimates")(Scene(run)).axes[0]
    (band,) = ax.collections
    corners = {(round(x), round(y, 9)) for x, y in band.get_paths()[0].vertices}
    assert {(0, 6.8), (0, 7.2), (700, 16.4), (700, 21.6)} <= corners


def test_the_estimator_s_field_is_filled_and_explained(run):
    found = assess(run)
    assert found.uncertainties["participation_ratio_estimate"].estimator == pytest.approx(1.3)
    assert found.uncertainties["effective_rank"].estimator is None
    assert "one standard error over random vectors" in found.notes[1]
    row = next(r for r in assessment_table(found).rows if r[0] == "participation ratio estimate")
    assert row[3] == "1.3"
