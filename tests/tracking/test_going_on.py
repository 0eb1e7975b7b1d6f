"""A loop of one's own that goes on with its archive, and what it does not load."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.errors import ArchiveError, TrackerError
from tests.callbacks.comparisons import unequal
from tests.tracking.own_loop import NUMBERS, Loop, X, Y, rows


def resumable(path, upto, state=None, **options):
    """A training over a loader without shuffling to step ``upto``; from ``state`` on, where one is given."""
    loop = Loop()
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    tracker = loop.tracker(path, loader=loader, probe=5, **options)
    first = 0
    if state is not None:
        loop.model.load_state_dict(state["model"])
        loop.optimizer.load_state_dict(state["optimizer"])
        tracker.load_state_dict(state["tracker"])
        first = tracker.step
    batches = [batch for _ in range(4) for batch in loader]
    with tracker:
        for batch in batches[first:upto]:
            with tracker.update(batch) as update:
                update.loss = loop.update(*batch)
            if tracker.step == 5:
                kept = torch.tensor([]), loop.model.state_dict(), loop.optimizer.state_dict(), tracker.state_dict()
                torch.save(dict(zip(("", "model", "optimizer", "tracker"), kept, strict=True)), path.with_suffix(".pt"))
    return loop


NIGHTLY = [pytest.param(schedule, marks=pytest.mark.nightly) for schedule in (2, "log")]


@pytest.mark.parametrize("schedule", ["epoch", kt.schedule.Every(3, window=2), *NIGHTLY], ids=str)
def test_a_resumed_run_continues_its_archive_bit_for_bit(tmp_path, schedule):
    """In the middle of an epoch, through a file. Oracle: the run that was not interrupted, its weights and its archive."""
    options = {
        "schedule": schedule,
        "observables": [*NUMBERS, "anchored_linearization_error", "kernel_angular_velocity"],
    }
    whole = resumable(tmp_path / "whole.h5", 12, **options)
    resumable(tmp_path / "run.h5", 8, **options)  # goes on beyond the checkpoint, and is lost there
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    resumed = resumable(tmp_path / "run.h5", 12, state, **options)
    assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))
    with kt.open_archive(tmp_path / "whole.h5") as expected, kt.open_archive(tmp_path / "run.h5") as found:
        assert unequal(expected, found) == []


def test_another_run_finds_the_archive_there(tmp_path):
    resumable(tmp_path / "run.h5", 3)
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(ArchiveError, match="exists"):
        resumable(tmp_path / "run.h5", 3)
    assert (tmp_path / "run.h5").read_bytes() == before
    resumable(tmp_path / "run.h5", 2, if_exists="replace")
    assert [s.step for s in rows(tmp_path / "run.h5")] == [0, 1, 2]


def test_entering_again_goes_on(tmp_path):
    """A second phase of the same loop: one archive."""
    loop = Loop()
    tracker = loop.tracker(tmp_path / "run.h5")
    for _ in range(2):
        with tracker, tracker.update():
            loop.update()
    assert [s.step for s in rows(tmp_path / "run.h5")] == [0, 1, 2]


def test_the_state_of_another_tracker_is_refused():
    with pytest.raises(TrackerError, match=r"(?s)state_dict\(\) of a kerneltrack\.Tracker.*NTKTracker"):
        Loop().tracker("run.h5").load_state_dict({"run_id": "a", "step": 3})


def test_no_lightning_is_loaded():
    """Oracle: the modules of a fresh process."""
    import subprocess
    import sys

    code = "import sys, kerneltrack as kt; kt.Tracker; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pytorch_lightning", "lightning", "matplotlib"} & set(done.stdout.split())
    assert "torch" in done.stdout.split()  # negative control


def test_a_quiet_loop_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumable(tmp_path / "run.h5", 2)
