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


def later(case: Any) -> Any:
    """The case, in the nightly run only."""
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.nightly], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.nightly)
