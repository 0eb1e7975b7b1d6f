"""The page of very many archives is made of a run."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_the_page_says_what_was_measured(tmp_path, monkeypatch):
    """A line for each number, with more memory for more archives, and no more files than are open at once."""
    from kerneltrack.archive import shelf

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    spec = importlib.util.spec_from_file_location("many_archives", Path(__file__).with_name("many_archives.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.page(tmp_path, (2, 20), points=6, snapshots=2)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(("| 2 |", "| 20 |"))]
    assert [row[0].strip() for row in rows] == ["2", "20"]
    two, twenty = (int(row[5]) for row in rows)
    assert twenty - two == shelf.OPEN - 2
    assert "3 snapshots of 6 points" in text
    sys.modules.pop("archive_cost", None)
