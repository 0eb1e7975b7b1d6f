"""The overhead benchmark's arithmetic, on trainings whose times are given. Oracle: the same numbers worked out by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import overhead


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
    # 0 and round(2^(j/2)) below 3000 are 0, 1, 2, 3, 4, 6, 8, 11, 16, 23, …, 2048, 2896: 24 states; the last makes 25
    assert found["shares"][3000] == (25, pytest.approx(25 / (25 + 300)))
    # up to 5000 there is 4096 besides, 26 in all: 26 of 526 s are 4.9 %; up to 2000 they are 23 of 223 s
    assert overhead.share(5000, 0.1, 1.0) == (26, pytest.approx(26 / 526))
    assert overhead.share(2000, 0.1, 1.0) == (23, pytest.approx(23 / 223))
    assert found["kept"] == 5000
    page = overhead.page([found], 2)
    assert "| 5,000 updates on |" in page
    assert "7.7% of 3,000 updates (25 snapshots)" in page
    assert "| 0.500 |" in page
    assert "| 0.500 | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 | 0.000 | 0.500 |" in page


def test_pieces_name_functions_that_exist():
    import pkgutil

    assert all(callable(pkgutil.resolve_name(target)) for target in overhead.PIECES.values())
