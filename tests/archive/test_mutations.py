"""Damage is found, never read as data. Oracle: a digest of everything that the undamaged archive says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("corruptions.py")


def mutate(*options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def test_no_mutation_reads_as_something_else():
    """All truncations where an object begins, and half as many at random; `test_thousands_of_mutations` has more."""
    done = mutate("--count", "250")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'refused'" in done.stdout


def test_without_checksums_damage_is_silent():
    """Negative control: damage at random of an archive whose data carry no checksum; a truncation is never silent."""
    done = mutate("--first", "160", "--count", "400", "--unprotected")
    assert done.returncode == 1
    assert "'silent'" in done.stdout


@pytest.mark.nightly
def test_thousands_of_mutations():
    done = mutate("--count", "10000", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
