"""What a loop is told where it does something else than its tracker needs, and with which remedy."""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.errors import ProbeError, TrackerError
from kerneltrack.schedule import Epochs
from tests.tracking.own_loop import PROBE, Loop, X, rows


def twice(loop, tracker):
    tracker.before()
    tracker.before()


def nested(loop, tracker):
    with tracker.update(), tracker.update():
        pass


def ends_nothing(loop, tracker):
    tracker.after()


def adds_to_nothing(loop, tracker):
    tracker.add()


def clips_nothing(loop, tracker):
    tracker.clipped(1.0)


def steps_outside(loop, tracker):
    loop.update()


def clips_without_a_bound(loop, tracker):
    with tracker.update():
        tracker.clipped(1.0)


def saves_inside(loop, tracker):
    with tracker.update():
        tracker.state_dict()


def loads_late(loop, tracker):
    with tracker.update():
        loop.update()
    tracker.load_state_dict(tracker.state_dict())


def enters_twice(loop, tracker):
    with tracker:
        pass


def gives_a_loss_for_each_sample(loop, tracker):
    with tracker.update() as update:
        loop.update()
        update.loss = torch.ones(3)


MISUSES = {
    twice: r"(?s)before\(\) is out of turn.*after\(\) of the update before.*add\(batch\)",
    nested: r"(?s)before\(\) is out of turn.*Call after\(\)",
    ends_nothing: r"(?s)after\(\) is out of turn.*Call before\(\) ahead of the forward pass",
    adds_to_nothing: r"(?s)add\(\) is out of turn.*tracker\.update\(\)",
    clips_nothing: r"(?s)clipped\(\) is out of turn.*tracker\.update\(\)",
    steps_outside: r"(?s)optimizer\.step\(\) is out of turn.*tracker\.update\(\)",
    clips_without_a_bound: r"(?s)clip=.*clip_grad_norm_",
    saves_inside: r"(?s)state_dict\(\) is out of turn.*after the update has ended",
    loads_late: r"(?s)load_state_dict\(\) is out of turn.*before the first update",
    enters_twice: r"(?s)with tracker is out of turn.*once at a time",
    gives_a_loss_for_each_sample: r"(?s)loss of an update.*one number.*\(3,\)",
}


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda f: f.__name__)
def test_misuse_is_told_with_its_remedy(tmp_path, misuse):
    """The archive is closed as a run that ended so: valid, with every row that there was."""
    loop = Loop()
    with pytest.raises(TrackerError, match=MISUSES[misuse]), loop.tracker(tmp_path / "run.h5") as tracker:
        misuse(loop, tracker)
    if (tmp_path / "run.h5").exists():
        assert not list(check(tmp_path / "run.h5"))
    before = [p.clone() for p in loop.model.parameters()]
    loop.update()  # no hook is left on the optimizer
    assert not all(map(torch.equal, before, loop.model.parameters()))


def test_outside_of_the_with():
    with pytest.raises(TrackerError, match=r"(?s)before\(\) is out of turn.*Write `with kt.Tracker"):
        Loop().tracker("run.h5").before()


WRONG = [
    ({"probe": 5}, TrackerError, r"(?s)probe=5.*loader=.*got none"),
    ({"probe": {"train": PROBE, "val": 5}, "loader": [X]}, TrackerError, r"(?s)'val': 5.*from_dataloader"),
    ({"probe": 5, "loader": [X]}, TrackerError, r"(?s)probe=5.*got list"),
    ({"probe": X}, ProbeError, rf"a Probe or the path.*got a Tensor of shape \({len(X)}, .*Probe\(inputs, targets\)"),
    ({"probe": (X, X, X)}, ProbeError, "got a tuple of a Tensor of shape .*, a Tensor of shape .*, …"),
    ({"probe": iter([X])}, ProbeError, "got a list_iterator. Make one"),
    ({"probe": "val"}, ProbeError, "probe={'val': 256}"),
    ({"steps": 0}, TrackerError, "steps"),
    ({"clip": "norm"}, TrackerError, r"(?s)clip.*clip_grad_norm_"),
    ({"clip": -1.0}, TrackerError, "clip"),
    ({"clip": ("all", 1.0)}, TrackerError, "clip"),
    ({"loss": "mae"}, TrackerError, "loss"),
    ({"log": 1}, TrackerError, "log"),
    ({"max_overhead": 2}, TrackerError, "max_overhead"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG)
def test_wrong_arguments_are_refused_when_the_tracker_is_made(given, error, message):
    with pytest.raises(error, match=message):
        Loop().tracker("run.h5", **given)


def test_what_is_no_optimizer_is_refused():
    model = nn.Linear(3, 1)
    for given in (None, [], [model], 0.1):
        with pytest.raises(TrackerError, match=r"(?s)optimizer.*torch\.optim\.Optimizer"):
            kt.Tracker("run.h5", model, given, probe=PROBE)


def test_an_optimizer_of_another_network_is_refused_before_the_first_update(tmp_path):
    tracker = kt.Tracker(tmp_path / "run.h5", nn.Linear(3, 1), Loop().optimizer, probe=PROBE)
    with pytest.raises(TrackerError, match=r"(?s)model's parameters.*after the model was moved"), tracker:
        tracker.before()


def test_epochs_that_nobody_tells_are_asked_for(tmp_path):
    loop = Loop()
    with (
        pytest.raises(TrackerError, match=r"(?s)epoch.*loader=.*epoch=epoch"),
        loop.tracker(tmp_path / "a.h5", schedule=Epochs(1)) as tracker,
    ):
        tracker.before()
    with loop.tracker(tmp_path / "b.h5", schedule=Epochs(2)) as tracker:
        for epoch in range(4):
            for _ in range(2):
                with tracker.update(epoch=epoch):
                    loop.update()
    assert [(s.step, s.epoch) for s in rows(tmp_path / "b.h5")] == [(0, 0), (4, 2), (8, 3)]


def test_a_loop_without_an_update_is_told_so(tmp_path):
    with pytest.warns(UserWarning, match=r"no update.*tracker\.update\(\)"), Loop().tracker(tmp_path / "run.h5"):
        pass
    assert not (tmp_path / "run.h5").exists()
