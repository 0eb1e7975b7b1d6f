"""Choosing, registering and computing observables."""

import dataclasses
import math
import re

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import Observable, catalogue, compute, needs, register, registry, select
from kerneltrack.observables.observable import observable
from kerneltrack.observables.readings import READINGS


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def mine(**changes):
    fields = {
        "name": "mean_output",
        "formula": "mean f_t",
        "units": "1",
        "source": "here",
        "needs": frozenset({"outputs"}),
        "compute": lambda state: state.outputs.mean(),
        "reading": "Higher: larger outputs. Typical: any. Beside it: nothing.",
    }
    return Observable(**fields | changes)


def test_every_entry_says_what_it_is():
    for name, entry in catalogue().items():
        assert name == entry.name
        assert entry.formula
        assert entry.units
        assert entry.source
        assert entry.long_name
        assert entry.needs
    assert len({entry.long_name for entry in catalogue().values()}) == len(catalogue())


def test_every_entry_says_how_it_is_read():
    """Three parts, each said; names that a reading sends the reader to exist, or are columns of the archive."""
    names = {*catalogue(), *READINGS, "eigenvalues", "training_loss", "stability_scope", "probe_in_training", "_null"}
    for name, entry in catalogue().items():
        parts = re.fullmatch(r"Higher: (.{4,}?)\. Typical: (.{2,}?)\. Beside it: (.{1,}?)\.", entry.reading)
        assert parts, (name, entry.reading)
        assert set(re.findall(r"`(\w+)`", entry.reading)) <= names, (name, entry.reading)
        assert name not in re.findall(r"`(\w+)`", parts[3]), name


def test_one_without_a_reading_is_refused():
    """Asked for by the dataclass; an empty one, or one of the package that the table lacks, by name."""
    with pytest.raises(TypeError, match="reading"):
        Observable("mine", "1", "1", "here", frozenset(), float)
    with pytest.raises(
        ObservableError, match=r"'mean_output' does not say how it is read: expected what a higher value"
    ):
        mine(reading="  ")
    with pytest.raises(ObservableError, match="'nobody_wrote_one' does not say how it is read"):
        observable("nobody_wrote_one", float, "1", "outputs", long_name="one")


def test_the_catalogue_cannot_be_changed_from_outside():
    with pytest.raises(TypeError, match="item assignment"):
        catalogue()["trace"] = mine()


def test_sets_and_names_mix_in_the_order_of_the_catalogue():
    names = [entry.name for entry in select(["probe_loss", "trace", "trace"])]
    assert names == ["trace", "probe_loss"]
    assert set(select("default")) == set(select(["default", "trace"])) <= set(select("all"))


LOSS = {f"loss_weighted_{name}" for name in ("eigenvalues", "effective_rank", "participation_ratio", "stable_rank")}
OPTIMIZER = {f"optimizer_{name}" for name in ("eigenvalues", "effective_rank", "participation_ratio", "factor")}


def test_an_archive_has_the_spectra_of_two_kernels_at_most():
    """Names of both further kernels are refused; "all" has the optimizer's, or the one that is named beside it."""
    for names in (("loss_weighted_stable_rank", "optimizer_eigenvalues"), ("all", *LOSS, *OPTIMIZER)):
        with pytest.raises(
            ObservableError, match=r"more than two kernels.*'loss_weighted_\w+' of the loss-weighted.*second tracker"
        ):
            select(names)
    whole = [entry.name for entry in select("all")]
    assert whole == [name for name in catalogue() if name not in LOSS]
    assert set(catalogue()) - {entry.name for entry in select(["all", "loss_weighted_stable_rank"])} == OPTIMIZER
    # what compares two kernels has the spectrum of none
    assert len(select(["loss_weighted_eigenvalues", "optimizer_kernel_distance", "optimizer_target_alignment"])) == 3


def test_an_unknown_name_names_its_neighbours():
    with pytest.raises(ObservableError, match=r"target_energy.*got 'target_energi'"):
        select(["trace", "target_energi"])
    with pytest.raises(ObservableError, match="unknown observable"):
        select("zzz")


def test_needs_are_the_union():
    assert needs(select(["trace", "target_energy"])) == {"size", "eigenvectors", "targets"}
    assert needs(()) == frozenset()


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_observable_is_like_the_others(problem):
    entry = register(mine())
    assert register(entry) is entry
    assert select("mean_output") == (entry,)
    assert entry not in select("default")
    assert compute(select("mean_output"), problem.state())["mean_output"] == problem.outputs.mean()


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("name", ["trace", "eigenvalues", "mode", "inputs", "default", "all"])
def test_taken_names_are_refused(name):
    with pytest.raises(ObservableError, match="is taken"):
        register(mine(name=name))


@pytest.mark.usefixtures("clean_registry")
def test_a_second_observable_of_one_name_is_refused():
    register(mine())
    with pytest.raises(ObservableError, match="is taken"):
        register(mine())


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("name", ["", "Trace", "a/b", "../x", "a b", "x" * 65, "1st"])
def test_names_that_no_archive_can_hold_are_refused(name):
    with pytest.raises(ObservableError, match="name of an observable"):
        register(mine(name=name))


@pytest.mark.usefixtures("clean_registry")
def test_unknown_dimensions_are_refused():
    with pytest.raises(ObservableError, match="dimension"):
        register(mine(dims=("pixel",)))


def test_a_shape_that_contradicts_its_dims_is_an_error(problem):
    with pytest.raises(ObservableError, match=r"shape of observable 'mean_output'.*\(7, 3\)"):
        compute([mine(dims=("sample", "output"))], problem.state())
    found = compute([mine(dims=("sample", "output"), compute=lambda s: s.outputs)], problem.state())
    np.testing.assert_array_equal(found["mean_output"], problem.outputs)


def test_missing_arrays_are_nan_in_their_shape(problem):
    entry = mine(dims=("mode", "coefficient"), needs=frozenset({"initial"}))
    values = compute([entry], problem.state("trace"))
    assert values["mean_output"].shape == (7, 3)
    assert np.isnan(values["mean_output"]).all()


def test_an_error_that_is_no_observable_s_is_not_swallowed(problem):
    with pytest.raises(ZeroDivisionError):
        compute([mine(compute=lambda state: 1 / 0)], problem.state())


def test_everything_has_a_value_or_a_reason(problem, reduction):
    # The barest state there is: outputs and a few eigenpairs.
    bare = dataclasses.replace(problem.state(reduction), targets=None, residual=None, kernel=None, probe_loss=math.nan)
    for state in (bare, problem.state(reduction), problem.state(reduction).as_initial()):
        values = compute(tuple(catalogue().values()), state)
        assert list(values) == list(catalogue())
        for name, value in values.items():
            if np.isnan(value).all():
                # a function that is zero, such as f_0 − f_0, has no energy; nothing is missing there
                assert values.reasons.get(name) or name == "displacement_energy_by_output", name
