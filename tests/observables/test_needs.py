"""The table of needs. Oracles: the fields of State, and states that lack one thing each, made by hand."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import NEEDS, EdgeMode, Observable, State, Update, compute, in_order, is_light
from kerneltrack.regression import laplace
from kerneltrack.spectrum import eigensystem, kernel_estimates, unsolved

#: Need → the field without which a state does not have it. The last is looked at inside the field.
WITHOUT = {
    "kernel": "kernel", "targets": "targets", "residual": "residual", "operator": "stability", "initial": "initial",
    "weights": "layer_weights",
    "halves": "stability_halves", "sharpness": "sharpness", "hessian": "hessian_sharpness", "hessian_ratio": "hessian_ratio",
    "batches": "batch_curvatures", "batch_ratios": "batch_ratios",
    "previous": "previous", "lagged": "lagged", "update": "update", "layers": "layer_traces", "layer_kernels": "layer_kernels",
    "activations": "activations", "gates": "gates", "cross_time": "cross_time", "parameters": "parameter_distance",
    "anchored": "anchored_outputs", "extension": "extension", "regression": "regression", "conjugate": "conjugate",
    "optimizer_kernel": "optimizer_kernel", "training_outputs": "training_outputs",
    "logistic": "logistic", "estimates": "estimates", "laplace": "laplace", "edge_mode": "edge_mode",
}  # fmt: skip
ALWAYS = {"eigenvalues", "eigenvectors", "outputs", "size", "matrix"}
INSIDE = {"spectrum", "loss", "layer_changes", "update_curvature", "update_batch"}


def test_every_need_is_held_by_fields_of_a_state():
    fields = {field.name for field in dataclasses.fields(State)}
    assert {field for need in NEEDS.values() for field in need.fields} <= fields
    assert {name: need.name for name, need in NEEDS.items()} == {name: name for name in NEEDS}


def whole(problem):
    """A state that has everything."""
    change, rows = problem.outputs / 9, {"a": problem.outputs / 7}
    state = problem.state()
    numbers = dict.fromkeys(
        ("stability", "stability_halves", "sharpness", "hessian_sharpness", "hessian_ratio", "parameter_distance"), 0.0
    )  # zero is a number like others
    arrays = dict.fromkeys(("cross_time", "optimizer_kernel"), state.kernel)
    functions = dict.fromkeys(("anchored_outputs", "regression", "logistic", "training_outputs"), problem.outputs)
    return dataclasses.replace(
        state,
        **numbers,
        **arrays,
        **functions,
        initial=state,
        previous=state,
        lagged=state,
        update=Update(
            output_change=change,
            linear_change=change,
            layer_linear_changes=rows,
            slope=-1.0,
            bend=0.0,
            batch_slope=-1.0,
            batch_bend=0.0,
        ),
        batch_curvatures=np.ones(2),
        batch_ratios=np.ones(2),
        layer_traces={"a": 1.0},
        layer_kernels={"a": state.kernel},
        activations={},
        layer_weights={"a": np.ones(4)},
        gates={},
        extension=np.ones((21, 2)),
        estimates=kernel_estimates(np.eye(21)),
        edge_mode=EdgeMode(seen=0.0, balance=0.0),
        laplace=laplace(np.ones((21, 3)), np.ones(21), eigensystem(np.eye(3)), np.ones((3, 1))),
        conjugate=np.ones((7, 7)),
    )


def reason(need, state):
    """What an observable is told that asks for the need alone; "" where it gets it."""
    entry = Observable("mine", "1", "1", "here", frozenset({need}), lambda state: 1.0, reading="none")
    return compute([entry], state).reasons.get("mine", "")


def test_a_state_that_has_everything_has_every_need(problem):
    assert {need: reason(need, whole(problem)) for need in NEEDS} == dict.fromkeys(NEEDS, "")


@pytest.mark.parametrize("need", sorted(WITHOUT))
def test_what_was_not_measured_is_said_and_nothing_else_is(problem, need):
    lacking = dataclasses.replace(whole(problem), **{WITHOUT[need]: None})
    found = {name for name in NEEDS if reason(name, lacking)}
    assert found == {need} | ({"layer_changes", "update_curvature", "update_batch"} if need == "update" else set())
    assert reason(need, lacking) == f"not measured: {need}"


def test_what_a_field_holds_is_looked_at(problem):
    state = whole(problem)
    change = problem.outputs / 9
    few = dataclasses.replace(state.eigensystem, complete=False)
    lacking = dataclasses.replace(
        state, probe_loss=math.nan, eigensystem=few, update=Update(output_change=change, linear_change=change)
    )
    assert {name for name in NEEDS if reason(name, lacking)} == INSIDE


def test_every_need_is_tried():
    assert {*WITHOUT, *ALWAYS, *INSIDE} == set(NEEDS)


def test_a_need_that_no_measurement_offers_is_refused_at_once():
    with pytest.raises(ObservableError, match=r"unknown need.*targets.*got 'tragets'"):
        Observable("mine", "1", "1", "here", frozenset({"tragets"}), lambda state: 1.0, reading="none")


def test_needs_come_once_and_in_the_table_s_order():
    assert [need.name for need in in_order(["regression", "kernel", "regression"])] == ["kernel", "regression"]


def test_every_entry_of_the_kernel_is_known_from_it_or_from_every_mode(problem):
    state = whole(problem)
    few = dataclasses.replace(state.eigensystem, complete=False)
    for lacking in (dataclasses.replace(state, kernel=None), dataclasses.replace(state, eigensystem=few)):
        assert reason("matrix", lacking) == ""
    assert reason("matrix", dataclasses.replace(state, kernel=None, eigensystem=few)) == "not measured: matrix"


def test_a_light_state_has_its_kernel_and_outputs_and_no_eigenpair(problem):
    """Its needs are those that it is told to have; nothing else is computed of it."""
    light = dataclasses.replace(whole(problem), eigensystem=unsolved(problem.state("trace").kernel, 21))
    lacking = {name for name in NEEDS if reason(name, light)}
    assert lacking == {"eigenvalues", "eigenvectors", "spectrum"}
    assert not any(is_light([name], "kernel") for name in lacking)
    assert is_light(["matrix", "initial"], "kernel")
    assert not is_light(["matrix", "initial"], "outputs")
    assert is_light(["outputs", "targets"], "outputs")
