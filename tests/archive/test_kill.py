"""A small version of `make kill-test`; kill.py says what is done, and its oracle: what the writer acknowledged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill.py")


def kill(*options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)


@pytest.mark.parametrize("kills", [5, pytest.param(40, marks=pytest.mark.nightly)])
def test_kills_at_random_times_lose_nothing(kills):
    done = kill("--kills", str(kills))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler for the preloaded library")
class TestBeforeEveryCall:
    @pytest.mark.parametrize(
        ("append", "join"), [("60", "800"), pytest.param("2", "20", marks=pytest.mark.nightly)], ids=["some", "many"]
    )
    def test_nothing_is_lost_by_an_append(self, append, join):
        """Some calls of an append, and of one that also joins; `make kill-test` takes all, of every stage."""
        done = kill("--kills", "0", "--calls", "--stage", "append", "--stride", append)
        assert done.returncode == 0, done.stdout + done.stderr
        done = kill("--kills", "0", "--calls", "--stage", "append and join all", "--stride", join)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.nightly
    def test_a_writer_that_works_in_place_loses_something(self):
        """Negative control: one file that is extended and flushed; it is torn at some of the same calls.

        A quick one, of a writer that forgets to flush, is in test_power_cut.py.
        """
        done = kill("--kills", "0", "--calls", "--stage", "append", "--stride", "18", "--writer", "in-place")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "unreadable" in done.stdout or "lost" in done.stdout or "damaged" in done.stdout
