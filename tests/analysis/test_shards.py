"""Checkpoints measured in shares, as the jobs of an array do, and joined.

Oracle: the archive of the same checkpoints measured one after the other, byte for byte by tests/archive/same.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands.saved_run import leads_in
from kerneltrack.analysis.commands.shard import Shard
from kerneltrack.archive import check
from kerneltrack.errors import TrackerError
from tests.archive.same import differences as unequal_archives
from tests.tiers import later

X = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
STEPS = (0, 2, 4, 6, 9, 12, 20)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Seven states of a training, a probe, and the archive of all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "nets", sys.modules[Net.__module__])
    kt.Probe(X, X[:, :1].sin(), name="train").save("probe.npz")
    torch.manual_seed(0)
    module = Net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    os.mkdir("ckpt")
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, f"ckpt/step-{step}.pt")
        optimizer.zero_grad()
        (module(X) - X[:, :1].sin()).square().mean().backward()
        optimizer.step()
    return tmp_path


def track(to, *words):
    command = ["track", "--checkpoints", "ckpt/*.pt", "--factory", "nets:Net", "--probe", "probe.npz", "--loss", "mse"]
    return main([*command, "-o", to, *words])


@pytest.mark.parametrize("of", [3, later(7)])
def test_shards_join_to_what_one_job_writes(here, capsys, of):
    assert track("whole.h5") == 0
    names = [f"out/shard-{i}.h5" for i in range(1, of + 1)]
    for i in reversed(range(of)):
        assert track(names[i], "--shard", f"{i + 1}/{of}") == 0
    assert main(["merge", *names, "-o", "joined.h5"]) == 0
    assert f"7 snapshots of {of} shards in joined.h5" in capsys.readouterr().out
    assert unequal_archives(Path("whole.h5"), Path("joined.h5")) == []
    assert check("joined.h5") == []
    with kt.open_archive("joined.h5") as archive:
        assert archive.steps.tolist() == list(STEPS)
        assert archive.provenance.run["joined_from"] == of


JOB = """
import sys, types
sys.path.insert(0, {root!r})
from tests.analysis import test_shards
sys.modules["nets"] = test_shards
from kerneltrack.archive import ArchiveWriter
append = ArchiveWriter.append
def slow(self, snapshot):
    append(self, snapshot)
    print(snapshot.step, flush=True)
    sys.stdin.readline()
ArchiveWriter.append = slow
test_shards.track("shard-2.h5", "--shard", "2/2")
"""


def test_a_shard_that_is_killed_loses_nothing_and_goes_on(here, capsys):
    """Killed after its second row was stored, before the third. Oracle: the archive of one job."""
    root = str(Path(__file__).parents[2])
    words = [sys.executable, "-W", "ignore", "-c", JOB.format(root=root)]
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
        try:
            assert job.stdout.readline() == "6\n"
            print(file=job.stdin, flush=True)
            assert job.stdout.readline() == "9\n"
        finally:
            job.kill()
    with kt.open_archive("shard-2.h5") as archive:
        assert archive.steps.tolist() == [6, 9]
    assert track("whole.h5") == 0
    assert track("shard-1.h5", "--shard", "1/2") == 0
    assert main(["merge", "shard-1.h5", "shard-2.h5", "-o", "joined.h5"]) == 2
    assert "shard 2 is not complete: expected 4 snapshots, got 2" in capsys.readouterr().err
    for _ in range(2):  # a shard that is complete is left as it is
        assert track("shard-2.h5", "--shard", "2/2") == 0
    assert main(["merge", "shard-1.h5", "shard-2.h5", "-o", "joined.h5"]) == 0
    assert unequal_archives(Path("whole.h5"), Path("joined.h5")) == []


@pytest.mark.parametrize(("bad", "left"), [("step-6.pt", []), ("step-9.pt", ["s.h5"])])
def test_a_shard_that_fails_keeps_its_rows_and_leaves_nothing_else(here, bad, left):
    before = sorted(os.listdir())
    path = Path("ckpt") / bad
    good = path.read_bytes()
    torch.save({"model": {"layers.0.weight": torch.ones(2, 2)}}, path)
    assert track("s.h5", "--shard", "2/2") == 2
    assert sorted(set(os.listdir()) - set(before)) == left
    path.write_bytes(good)
    assert track("s.h5", "--shard", "2/2") == 0
    with kt.open_archive("s.h5") as archive:
        assert archive.steps.tolist() == [6, 9, 12, 20]


def test_what_does_not_belong_together_is_not_joined(here, capsys):
    assert track("a-1.h5", "--shard", "1/2") == 0
    assert track("a-2.h5", "--shard", "2/2") == 0
    assert track("b-2.h5", "--shard", "2/2", "--params", "layers.0.weight") == 0
    assert track("whole.h5") == 0
    before = sorted(os.listdir())
    for given, said in [
        (["a-1.h5"], "a shard is missing: expected all 2, got none of 2"),
        (["a-1.h5", "a-2.h5", "a-2.h5"], "a shard is there twice"),
        (["a-1.h5", "b-2.h5"], "shards of different runs"),
        (["a-1.h5", "whole.h5"], "this archive is no shard"),
    ]:
        assert main(["merge", *given, "-o", "joined.h5"]) == 2
        assert said in capsys.readouterr().err
    assert sorted(os.listdir()) == before
    assert track("whole.h5", "--shard", "1/2") == 2
    assert "there is another archive already; nothing was touched" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(TrackerError, match="i/n with i from 1 to n"):
        Shard.read(text)


@pytest.mark.parametrize(("count", "of"), [(7, 3), (2, 5), (10, 1)])
def test_shares_are_all_there_is_and_nothing_twice(count, of):
    bounds = [Shard(i, of).bounds(count) for i in range(1, of + 1)]
    assert [position for start, stop in bounds for position in range(start, stop)] == list(range(count))
    assert leads_in(0) == []
    assert leads_in(1) == [0]
    assert leads_in(5) == [0, 1, 4]
