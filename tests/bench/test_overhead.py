"""The overhead benchmark's arithmetic, on trainings whose times are given. Oracle: the same numbers worked out by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import overhead
import ratio


def test_shares_follow_from_the_two_times(monkeypatch):
    """64 updates in 6.4 s; with the tracker 16.4 s for 10 snapshots: 0.1 s an update, 1 s a snapshot."""
    monkeypatch.setattr(
        overhead,
        "train",
        lambda build, steps, folder: (6.4, {}, []) if folder is None else (16.4, {"kernel": 5.0}, [1.0] * 10),
    )
    found = overhead.measure("demo", 64, 3)
    assert found["step"] == pytest.approx(0.1)
    assert found["each"] == pytest.approx(1.0)
    assert found["pieces"]["kernel"] == pytest.approx(0.5)
    # 0 and round(2^(j/2)) below 3000 are 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, …, 2048, 2896: 24 states; every third begins a
    # pair, and 9, 24, 65, 182, 513 and 1449 are no points themselves: 30; the last makes 31
    assert found["shares"][3000] == (31, pytest.approx(31 / (31 + 300)))
    # up to 5000 there are 4096 and 4097 besides, 33 in all; up to 2000 they are 29 of 229 s
    assert overhead.share(5000, 0.1, 1.0) == (33, pytest.approx(33 / 533))
    assert overhead.share(2000, 0.1, 1.0) == (29, pytest.approx(29 / 229))
    assert found["kept"] == 10000  # 5000 are not kept: 33 of 533 s are 6.2 %
    page = overhead.page([found], 2)
    assert "| 10,000 updates on |" in page
    assert "9.4% of 3,000 updates (31 snapshots)" in page
    assert "| 0.500 |" in page
    assert "| 0.500 | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 | 0.500 |" in page


def test_pieces_name_functions_that_exist():
    import pkgutil

    assert all(callable(pkgutil.resolve_name(target)) for target in overhead.PIECES.values())


def test_a_snapshot_is_divided_by_what_stands_beside_it():
    """Medians of ratios, each of one state; the first is told apart. Oracle: by hand."""
    states = [
        ratio.State(0, 0.1, 0.3, 2.0),
        ratio.State(1, 0.1, 0.4, 0.75),
        ratio.State(4, 0.2, 0.8, 1.2),
        ratio.State(9, 0.1, 0.4, 0.7),
    ]
    assert ratio.line("demo", states) == "| demo | 3 | 0.100 | 0.400 | 0.750 | 1.40 | 2.00 | 2.7 |"
    small = [ratio.State(step, 0.01, 0.01, 0.05) for step in range(2)]
    assert "(2.50: below 0.2 s)" in ratio.line("demo", small)
