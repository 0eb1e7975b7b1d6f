"""A run that is killed (SIGKILL) between the rows of one group. Oracles: what its writer had acknowledged before, and the run
that went through, bit for bit."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from kerneltrack.analysis import load
from kerneltrack.archive import check
from kerneltrack.schedule import Every
from tests.callbacks.killed_runs import PLACES
from tests.callbacks.test_groups import fit, plain, rows

#: Lightning's word on a checkpoint beside an archive that has moved: the tracker finds its state by the file's name.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLD = {  # the rows, and the first states of whole groups with their third one or -1
    "after the first state": ([0, 1, 2, 4], [(0, 2)]),
    "in the second's update": ([0, 1, 2, 4], [(0, 2)]),
    "after the second state": ([0, 1, 2, 4, 5], [(0, 2), (4, -1)]),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder, what was acknowledged at each place, and the weights of the run that went through."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.killed_runs", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    weights = fit(folder / "through.h5", Every(4, window=3))
    return folder, json.loads(done.stdout.splitlines()[-1]), weights


@pytest.mark.parametrize("place", PLACES)
def test_every_acknowledged_row_is_there_and_a_lone_first_state_is_in_no_group(killed, place):
    """As the kill left it: nothing is joined or resumed first."""
    folder, acknowledged, _ = killed
    path = folder / str(list(PLACES).index(place)) / "run.h5"
    steps, groups = TOLD[place]
    assert acknowledged[place] == steps
    assert [problem for problem in check(path) if problem.severity == "problem"] == []
    found, through = rows(path), {row.step: row for row in rows(folder / "through.h5")}
    assert [row.step for row in found] == steps
    assert [plain(row) for row in found] == [plain(through[row.step]) for row in found]
    run = load(path).only
    thirds = [-1 if row < 0 else int(run.steps[row]) for row in run.groups.third]
    assert list(zip(run.steps[run.groups.first].tolist(), thirds, strict=True)) == groups
    starts, mean, _ = run.pairs(run.values("trace"))
    assert starts.tolist() == [first for first, _ in groups]
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("place", PLACES)
def test_the_resumed_run_goes_on_within_the_group(killed, tmp_path, place):
    folder, _, weights = killed
    left = shutil.copytree(folder / str(list(PLACES).index(place)), tmp_path / "left")
    assert torch.equal(fit(left / "run.h5", Every(4, window=3), ckpt_path=left / "last.ckpt"), weights)
    assert list(check(left / "run.h5")) == []
    assert [plain(row) for row in rows(left / "run.h5")] == [plain(row) for row in rows(folder / "through.h5")]
