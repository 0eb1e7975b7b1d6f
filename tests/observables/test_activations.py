"""Deviations of hidden activations by hand, and how they scale with width."""

import math

import numpy as np
import pytest

from kerneltrack.observables import (
    compute,
    gate_flips,
    largest_deviation,
    layer_deviation,
    neuron_deviation,
    relative_deviation,
    select,
)

NAMES = [
    "activation_neuron_deviation",
    "activation_largest_deviation",
    "activation_layer_deviation",
    "activation_relative_deviation",
    "gate_flips",
]

STATISTICS = [neuron_deviation, largest_deviation, layer_deviation, relative_deviation, gate_flips]

BEFORE = np.array([[0.0, 1.0], [2.0, 0.0]])
AFTER = np.array([[3.0, 5.0], [2.0, 0.0]])
BY_HAND = [math.sqrt(25 / 4), 4.0, 2.5, 5 / math.sqrt(5), 0.25]


def test_by_hand():
    np.testing.assert_allclose([statistic(AFTER, BEFORE) for statistic in STATISTICS], BY_HAND)


def test_the_norm_of_a_layer_stays_while_its_neurons_freeze():
    # Derived: Δ with entries of size m^{-½} has a norm that does not depend on the width m.
    found = []
    for width in (100, 10_000):
        change = np.random.default_rng(0).choice([-1, 1], size=(4, width)) / math.sqrt(width)
        found.append((neuron_deviation(change, 0 * change), layer_deviation(change, 0 * change)))
    (narrow_neuron, narrow_layer), (wide_neuron, wide_layer) = found
    assert wide_neuron == pytest.approx(narrow_neuron / 10)
    assert wide_layer == pytest.approx(narrow_layer) == pytest.approx(1)


def test_the_order_of_neurons_and_points_does_not_matter():
    rng = np.random.default_rng(0)
    now, start = rng.standard_normal((2, 6, 9))
    points, neurons = rng.permutation(6), rng.permutation(9)
    for statistic in STATISTICS:
        shuffled = statistic(now[points][:, neurons], start[points][:, neurons])
        assert shuffled == pytest.approx(statistic(now, start), rel=1e-14)


def test_layers_without_activations_are_nan(problem):
    start = problem.state(activations={"first": BEFORE}, gates={"first": BEFORE})
    layers = {"layer_traces": {"first": 1.0, "head": 2.0}, "settings": {"layers": ["first", "head"]}}
    state = problem.state(activations={"first": AFTER}, gates={"first": AFTER}, initial=start, **layers)
    values = compute(select(NAMES), state)
    for name, expected in zip(NAMES, BY_HAND, strict=True):
        np.testing.assert_allclose(values[name], [expected, np.nan])


def test_gates_are_of_what_a_nonlinearity_is_given(problem):
    """Not of the layer's own result: here that crossed zero, and the input of the nonlinearity did not."""
    fields = {"settings": {"layers": ["first", "norm"]}}
    start = problem.state(activations={"first": -AFTER - 1}, gates={"norm": BEFORE}, **fields)
    state = problem.state(activations={"first": AFTER + 1}, gates={"norm": AFTER}, initial=start, **fields)
    np.testing.assert_allclose(compute(select("gate_flips"), state)["gate_flips"], [np.nan, BY_HAND[-1]])


def test_a_silent_layer_has_no_relative_deviation():
    assert math.isnan(relative_deviation(AFTER, 0 * BEFORE))


def test_activations_that_were_not_measured_say_so(problem):
    layers = {"layer_traces": {"first": 1.0}, "gates": {"first": AFTER}}
    state = problem.state(initial=problem.state(), **layers)
    assert "initial one" in compute(select("gate_flips"), state).reasons["gate_flips"]
    strange = problem.state(initial=problem.state(**layers), settings={"layers": ["x"]}, **layers)
    assert "parameter table" in compute(select("gate_flips"), strange).reasons["gate_flips"]
