"""The judge of other programs' reading, without the programs: `make other-readers` runs them.

Oracle: what the script stored, printed by Python as the programs print it, and one number changed.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.archive import other_readers

GOOD = [
    json.dumps(value)
    for value in (
        list(other_readers.STEPS),
        other_readers.eigenvalues().ravel().tolist(),
        other_readers.SETTINGS,
        other_readers.eigenvalues()[:, 0].tolist(),
    )
]


def test_what_was_stored_is_right():
    assert other_readers.difference(GOOD) == ""


@pytest.mark.parametrize("line", range(4))
def test_one_thing_that_is_read_otherwise_is_told(line):
    wrong = list(GOOD)
    wrong[line] = wrong[line].replace("0", "1", 1)
    assert wrong != GOOD
    assert other_readers.difference(wrong)
    assert "not four lines" in other_readers.difference(wrong[:3])


@pytest.mark.parametrize(
    ("stderr", "outcome"),
    [
        ("Error in library(ncdf4) : there is no package called ‘ncdf4’", "skipped: octave-cli has no package ncdf4"),
        ("error: package netcdf is not installed\nerror: called from", "skipped: octave-cli has no package netcdf"),
        ("error: NetCDF: Variable not found", "FAILED: not four lines"),
    ],
)
def test_a_missing_package_is_skipped_and_an_error_is_not(monkeypatch, tmp_path, stderr, outcome):
    monkeypatch.setattr(other_readers.shutil, "which", lambda name: name)
    done = SimpleNamespace(stdout="", stderr=stderr, returncode=1)
    monkeypatch.setattr(other_readers.subprocess, "run", lambda *_, **__: done)
    assert other_readers.read_with("matlab", tmp_path).startswith(outcome)


def test_a_missing_program_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setattr(other_readers.shutil, "which", lambda name: None)
    assert other_readers.read_with("r", tmp_path) == "skipped: no Rscript"
    assert other_readers.dumped_with(("ncdump", "-h"), tmp_path) == "skipped: no ncdump"
