"""Forks: which states are kept, what they hold, and that the training does not notice. Oracle: copies taken by the loop itself."""

import math
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.tracking import ForkLimits
from tests.tracking.forked_runs import Run, generators, same, update

CHANGE, UPDATES = 17, 26


class Streams:
    """A loader of another make, which goes on from its own state: batches of a generator, without an end to look at."""

    def __init__(self, data, batch_size, generator=None, shuffle=None):
        self.data, self.size, self.at = data, batch_size, 0

    def __iter__(self):
        while True:
            self.at += 1
            yield [part[torch.arange(self.at, self.at + self.size) % len(self.data)] for part in self.data.tensors]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(CHANGE, UPDATES).tracked(tmp_path_factory.mktemp("fork") / "run.h5")


def test_the_state_before_the_first_update_at_the_new_rate(run):
    (fork,) = run.kept.forks
    assert (fork.step, fork.epoch, fork.reason) == (CHANGE, CHANGE // 7, "step")
    assert (fork.old_rates, fork.new_rates) == ((0.05,), (0.01,))
    kept = {**fork.weights.parameters, **fork.weights.buffers}
    assert same({name: kept[name] for name in run.seen[CHANGE]}, run.seen[CHANGE])
    (optimizer,) = fork.optimizers
    assert optimizer["param_groups"][0]["lr"] == 0.05
    momenta = [optimizer["state"][i]["momentum_buffer"] for i in range(4)]
    theirs = [run.states[CHANGE]["state"][i]["momentum_buffer"] for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(momenta, theirs, strict=True))
    assert sum(p.nbytes for p in kept.values()) < fork.nbytes < 100_000


def test_the_training_does_not_notice(run):
    """Every state on the way, the optimizer's, and the generators afterwards."""
    bare = Run(CHANGE, UPDATES).train()
    assert all(same(a, b) for a, b in zip(bare.seen, run.seen, strict=True))
    for ours, theirs in zip(run.states, bare.states, strict=True):
        assert ours["param_groups"] == theirs["param_groups"]
        for i, state in theirs["state"].items():
            assert torch.equal(ours["state"][i]["momentum_buffer"], state["momentum_buffer"])
    assert "_get_iterator" not in vars(run.loader)


def test_generators_are_left_as_without_forks(tmp_path):
    Run(CHANGE, UPDATES, generator=3).train()
    left = generators()
    tracked = Run(CHANGE, UPDATES, generator=3).tracked(tmp_path / "run.h5", fork_at=[2])
    assert generators() == left
    assert [fork.step for fork in tracked.kept.forks] == [2, CHANGE]


LOADERS = {
    "shuffled by torch's generator": {},
    "shuffled by a generator of its own": {"generator": 5},
    "in order": {"shuffle": False},
    "without a last batch": {"drop_last": True, "batch_size": 5},
    "a loader that knows its state": {"make": Streams},
    "something drawn between epochs": {"between": lambda: torch.rand(3)},
    "a validation between epochs": {"between": lambda: list(DataLoader(range(3), shuffle=True))},
    "workers": {"num_workers": 1},
}


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_are_given_again(tmp_path, kind):
    """From a fork in mid-epoch the loader gives what it gave, to the end of the epoch. Oracle: the batches themselves."""
    run = Run(CHANGE, CHANGE + 3, **LOADERS[kind]).tracked(tmp_path / "run.h5", schedule=1000)
    (fork,) = run.kept.forks
    torch.rand(7)
    again = fork.replay.begin(run.loader, lambda: iter(run.loader))
    for batch in run.batches[CHANGE:]:
        assert all(torch.equal(a, b) for a, b in zip(next(again), batch, strict=True))


def test_a_loader_that_cannot_be_asked_gives_no_replay(tmp_path):
    class Plain:
        def __init__(self, data, batch_size, **_):
            self.batches = [[part[i : i + batch_size] for part in data.tensors] for i in range(0, 28, batch_size)]

        def __iter__(self):
            return iter(self.batches)

    run = Run(CHANGE, UPDATES, make=Plain).tracked(tmp_path / "run.h5")
    assert run.kept.forks[0].replay is None


def test_where_forks_are_kept(tmp_path):
    """A cosine: its first fall alone; steps; what was asked for, at or after; each once."""

    def steps(rates, updates=60, **options):
        run = Run(None, updates, rates=rates).tracked(tmp_path / "run.h5", if_exists="replace", **options)
        return [(fork.step, fork.reason) for fork in run.kept.forks]

    def cosine(t):
        return 0.05 if t < 20 else 0.025 * (1 + math.cos((t - 20) / 40))

    assert steps(cosine) == [(21, "decay")]
    assert steps(lambda t: 0.05 * 0.5 ** (t // 15)) == [(15, "step"), (30, "step"), (45, "step")]
    assert steps(lambda t: 0.05, fork_at=[0, 4, 40]) == [(0, "asked"), (4, "asked"), (40, "asked")]
    assert steps(lambda t: 0.001 * (t + 1), updates=30) == []  # a warm-up


def test_the_oldest_is_dropped_and_that_is_said(tmp_path, capsys):
    at = [1, 2, 3, 5, 8, 13]
    run = Run(None, 15).tracked(tmp_path / "run.h5", fork_at=at, log=True)
    assert [fork.step for fork in run.kept.forks] == [3, 5, 8, 13]
    said = capsys.readouterr().err
    assert "the fork at step 1 is dropped" in said
    assert "the fork at step 2 is dropped" in said
    assert "at step 13: kt.control_run(tracker.forks[3], update)" in said
    each = run.kept.forks[-1].nbytes
    few = Run(None, 15).tracked(tmp_path / "few.h5", fork_at=at, keep_forks=ForkLimits(memory=2 * each + 100))
    assert [fork.step for fork in few.kept.forks] == [8, 13]
    none = Run(None, 15).tracked(tmp_path / "none.h5", fork_at=[3], keep_forks=ForkLimits(memory=100), log=True)
    assert none.kept.forks == ()
    assert "no fork is kept at step 3" in capsys.readouterr().err


def test_a_rate_that_changes_within_an_update_is_no_fork(tmp_path, capsys):
    """The update has used the new rate already: what is left would not be the state before it."""

    def body(model, optimizer, batch):
        optimizer.param_groups[0]["lr"] = 0.05 if len(run.seen) <= 18 else 0.01
        return update(model, optimizer, batch)

    run = Run(None, 26, rates=lambda t: 0.05 if t <= 18 else 0.01)
    run.tracked(tmp_path / "run.h5", body=body, log=True)
    assert run.kept.forks == ()
    assert "no fork is kept at step 19: the rates changed within the update before it" in capsys.readouterr().err


def test_a_resumed_run_knows_what_the_rates_did(tmp_path):
    """0.02 for six updates, 0.05 for eight, four of them before the checkpoint: that is no ten, so the fall is no step."""
    first = Run(None, 10, rates=lambda t: 0.02 if t < 6 else 0.05).tracked(tmp_path / "run.h5")
    saved = pickle.loads(pickle.dumps(first.kept.state_dict()))
    second = Run(None, 6, rates=lambda t: 0.05 if t < 4 else 0.01)
    after = second.tracker(tmp_path / "run.h5", keep_forks=True)
    after.load_state_dict(saved)
    with after:
        second.train(after)
    assert [(fork.step, fork.reason) for fork in after.forks] == [(14, "decay")]


def test_forks_are_of_the_last_run_alone(tmp_path):
    run = Run(None, 4).tracked(tmp_path / "run.h5", fork_at=[2])
    (fork,) = run.kept.forks
    with pytest.warns(UserWarning, match="made no update"), run.kept:
        assert run.kept.forks == ()
    assert fork.step == 2  # who holds one goes on holding it


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep_forks": 3}, "keep_forks: expected True, False or kt.ForkLimits"),
        ({"keep_forks": "yes"}, "keep_forks: expected True, False or kt.ForkLimits"),
        ({"fork_at": [3]}, "fork_at without keep_forks: expected keep_forks=True"),
        ({"keep_forks": True, "fork_at": [-1]}, "fork_at: expected steps, integers from 0"),
        ({"keep_forks": True, "fork_at": 3}, "fork_at: expected steps"),
        ({"keep_forks": True, "fork_at": "12"}, "fork_at: expected steps"),
        ({"keep_forks": True, "fork_at": [True]}, "fork_at: expected steps"),
    ],
)
def test_wrong_arguments_are_refused(given, message):
    with pytest.raises(TrackerError, match=message):
        Run(None, 1).tracker("run.h5", **given)


@pytest.mark.parametrize("given", [{"count": 0}, {"count": True}, {"count": 1.5}, {"memory": "much"}, {"memory": None}])
def test_wrong_limits_are_refused(given):
    with pytest.raises(TrackerError, match=r"ForkLimits\((count|memory)=…\): expected"):
        ForkLimits(**given)


def test_several_processes_are_refused():
    tracker = Run(None, 1).tracker("run.h5", keep_forks=True)
    with pytest.raises(TrackerError, match="keep_forks in a training of 2 processes: expected one process"):
        tracker._begin(Ranks(rank=0, size=2))
