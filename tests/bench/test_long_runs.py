"""The page of long runs is made of a run."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
def test_the_page_says_what_was_measured(tmp_path, monkeypatch):
    """A line for each command and one for the page of many runs; the snapshots that were left beside the archive are merged."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    spec = importlib.util.spec_from_file_location("long_runs", Path(__file__).with_name("long_runs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.page(tmp_path, snapshots=12, points=70, runs=2, states=4, left=3)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    named = [row[0].strip().strip("`").split()[0] for row in rows]
    assert named == ["merge", "show", "check", "plot", "compare", "export", "export", "publish", "report", "report`"]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
    assert "12 snapshots of 70 points" in text
    sys.modules.pop("archive_cost", None)
