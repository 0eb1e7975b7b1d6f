"""Which cases of a table are quick, and which are left to `make nightly`."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(stride: int, cases: Iterable[Any], first: int = 0) -> list[Any]:
    """All cases: from number ``first`` on every ``stride``-th is quick, the others are nightly.

    In a product of tables the last one turns fastest. Where its length and the stride have no common factor, every value of
    every table is met.
    """
    return [case if number % stride == first else later(case) for number, case in enumerate(cases)]


def diagonals(stride: int, first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """All pairs of two tables: quick are those on every ``stride``-th diagonal, the others are nightly.

    Every value of the first table is met with one in ``stride`` of the second, and the next value with the next of them,
    so that every value of either is met if both have ``stride`` or more. A case that is nightly already stays so.
    """
    columns = list(second)
    return [
        both(one, other) if (i + j) % stride == 0 else later(both(one, other))
        for i, one in enumerate(first)
        for j, other in enumerate(columns)
    ]


def both(*cases: Any) -> Any:
    """One case of several, with all of their marks."""
    params = [case if isinstance(case, type(pytest.param())) else pytest.param(case) for case in cases]
    marks = [mark for param in params for mark in param.marks]
    return pytest.param(*(value for param in params for value in param.values), marks=marks)


def later(case: Any) -> Any:
    """The case, in the nightly run only."""
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.nightly], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.nightly)
