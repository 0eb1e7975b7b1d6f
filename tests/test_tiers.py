"""What the quick tier leaves out of a product. Oracle: enumeration."""

import pytest

from tests.tiers import diagonals, one_in


def quick(cases):
    marked = [case for case in cases if isinstance(case, type(pytest.param()))]
    plain = [case for case in cases if case not in marked]
    return [*plain, *(case.values for case in marked if not any(mark.name == "nightly" for mark in case.marks))]


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("sizes", [(3, 3), (27, 6), (12, 9), (5, 12)])
def test_diagonals_meet_every_value_and_keep_every_pair(stride, sizes):
    first, second = ([f"{letter}{i}" for i in range(size)] for letter, size in zip("ab", sizes, strict=True))
    cases = diagonals(stride, first, second)
    assert [case.values for case in cases] == [(a, b) for a in first for b in second]
    met = quick(cases)
    assert {a for a, _ in met} == set(first)
    assert {b for _, b in met} == set(second)
    assert sizes[0] * (sizes[1] // stride) <= len(met) <= sizes[0] * -(-sizes[1] // stride)


def test_a_nightly_value_stays_so():
    cases = diagonals(2, ["a", "b"], ["x", "y", pytest.param("z", marks=pytest.mark.nightly)])
    assert quick(cases) == [("a", "x"), ("b", "y")]
    assert len(cases) == 6


def test_one_in_three_is_a_third():
    assert quick(one_in(3, "abcdefg")) == ["a", "d", "g"]
