"""The kernel equals plain autograd's, for every problem, reduction, method, shape and tiling.

Oracle: the double loop of ``oracles.jacobian``, computed once per problem in float64 and reduced by NumPy.
Quick: every problem meets two reductions in turn, Jacobians and products, both shapes and tilings, and every third one "auto",
which is "structured" wherever that applies: test_exact_parts.py has that of every problem. One problem
of each rule meets every pair of a reduction, a method, a shape and a tiling. The other combinations of all problems are nightly.
Precisions, metrics and layers: test_exact_parts.py.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.ntk.exact_kernels import OUTPUTS, exact, measured
from tests.ntk.oracles import EXACT, distance
from tests.ntk.problems import PROBLEMS, RULES

#: torch's own, for even kernels and for what it computes the slow way.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")

METHODS = ("auto", "jacobian", "products")
ALL = tuple(itertools.product(OUTPUTS, METHODS, (True, False), (True, False)))
#: Every reduction with every method; the four of shape and tiling along the diagonals, so that all pairs are met.
PAIRS = tuple(
    (output, method, (i + j) % 2 == 0, (i + j) // 2 % 2 == 0)
    for i, output in enumerate(OUTPUTS)
    for j, method in enumerate(METHODS)
)


def in_turn(number):
    """The quick combinations of the problem with this number: Jacobians and products of two reductions, each with its own shape
    and tiling, and "auto" of every third problem.
    """
    reductions, square, tight = list(OUTPUTS), number % 2 == 0, number // 2 % 2 == 0
    yield reductions[number % 5], "jacobian", square, tight
    yield reductions[(number + 1 + number // 5 % 4) % 5], "products", not square, not tight
    if number % 3 == 0:
        turn = number // 3
        yield reductions[turn % 5], "auto", turn % 2 == 0, turn // 2 % 2 == 0


def quick(number, name):
    return PAIRS if name in RULES else tuple(in_turn(number))


def combinations():
    for number, name in enumerate(PROBLEMS):
        for output, method, square, tight in quick(number, name):
            shape, room = "square" if square else "rectangle", "tight" if tight else "roomy"
            yield pytest.param(name, output, method, square, tight, id=f"{name}-{output}-{method}-{shape}-{room}")


def test_the_quick_combinations_leave_nothing_out():
    """Oracle: enumeration. Every problem meets Jacobians and products, both shapes and tilings, and two reductions; any twenty
    problems in a row meet every pair of values.
    """
    cases = [tuple(in_turn(number)) for number in range(150)]
    for case in cases:
        assert {"jacobian", "products"} <= {method for _, method, *_ in case}
        assert len({output for output, *_ in case}) >= 2
        for k in (2, 3):
            assert {values[k] for values in case} == {True, False}
    for start in range(len(cases) - 20):
        met = list(itertools.chain(*cases[start : start + 20]))
        for a, b in itertools.combinations(range(4), 2):
            assert {(values[a], values[b]) for values in met} == {(values[a], values[b]) for values in ALL}


def test_problems_of_the_rules_meet_every_pair():
    """Oracle: enumeration."""
    for a, b in itertools.combinations(range(4), 2):
        assert {(values[a], values[b]) for values in PAIRS} == {(values[a], values[b]) for values in ALL}


@pytest.mark.parametrize(("name", "output", "method", "square", "tight"), list(combinations()))
def test_kernel(name, output, method, square, tight):
    kernel = measured(name, output=OUTPUTS[output], method=method, square=square, tight=tight)
    assert kernel.dtype == torch.float64
    assert not kernel.requires_grad
    assert distance(kernel, exact(name, output, square)) < EXACT


@pytest.mark.nightly
@pytest.mark.parametrize(("number", "name"), list(enumerate(PROBLEMS)), ids=PROBLEMS)
def test_every_other_combination(number, name):
    """One test for each problem, so that the quick run need not collect eight thousand."""
    errors = {}
    for output, method, square, tight in set(ALL) - set(quick(number, name)):
        kernel = measured(name, output=OUTPUTS[output], method=method, square=square, tight=tight)
        errors[output, method, square, tight] = distance(kernel, exact(name, output, square))
    assert {case: error for case, error in errors.items() if not error < EXACT} == {}
