"""Checkpoints measured by worker processes of dask.distributed.

Oracle: the archive of the same checkpoints measured one after the other, byte for byte by tests/archive/same.py. Workers are
processes in one test that kills one of them; elsewhere they are threads of this process behind the same sockets and the
same pickles, which start at once.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import dask
import distributed
import pytest
import torch

import kerneltrack as kt
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands import MeasuringOptions, workers
from kerneltrack.analysis.commands.saved_run import SavedRun
from kerneltrack.analysis.commands.workers import Workers, spans
from kerneltrack.archive import check
from tests.archive.same import differences as unequal_archives

X = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
STEPS = (0, 2, 4, 6, 9)
#: What a user has in the working directory. ``deadly`` ends the process that calls it a fourth time, once in all; ``cursed``
#: ends every worker.
NETS = """
import multiprocessing, os, signal
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

built = 0

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def deadly():
    global built
    built += 1
    if built == 4 and multiprocessing.parent_process():
        try:
            open("killed", "x").close()
        except FileExistsError:
            pass
        else:
            end()
    return Net()

def cursed():
    return end() if multiprocessing.parent_process() else Net()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five states of a training, a probe, the modules, and the archive of all states."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("saved_nets.py").write_text(NETS)
        kt.Probe(X, X[:, :1].sin(), name="train").save("probe.npz")
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
        os.mkdir("ckpt")
        for step in range(STEPS[-1] + 1):
            if step in STEPS:
                torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, f"ckpt/step-{step}.pt")
            optimizer.zero_grad()
            (module(X) - X[:, :1].sin()).square().mean().backward()
            optimizer.step()
        assert track("whole.h5") == 0
    yield folder
    sys.modules.pop("saved_nets", None)


@pytest.fixture(autouse=True)
def here(folder, monkeypatch, tmp_path):
    """In that folder, with temporary files of its own and the module paths as they were."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(os.listdir()), environment()
    yield folder
    for path in folder.glob("new*.h5"):
        path.unlink()
    assert (sorted(os.listdir()), environment()) == before
    assert os.listdir(tmp_path) == []
    assert multiprocessing.active_children() == []


def environment():
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@contextlib.contextmanager
def cluster(threads):
    """The address of two workers that are threads of this process."""
    local = functools.partial(distributed.LocalCluster, processes=False, protocol="tcp://", silence_logs=50)
    with (
        tempfile.TemporaryDirectory() as scratch,
        dask.config.set({"temporary-directory": scratch}),
        local(n_workers=2, threads_per_worker=threads, memory_limit=0, dashboard_address="127.0.0.1:0") as running,
    ):
        yield running.scheduler_address


@pytest.fixture(scope="module")
def address():
    with cluster(threads=1) as running:
        yield running


def track(to, *words, factory="Net"):
    command = ["track", "--checkpoints", "ckpt/*.pt", "--factory", f"saved_nets:{factory}", "--probe", "probe.npz"]
    return main([*command, "--loss", "mse", "-o", to, *words])


@pytest.mark.parametrize("number", ["1", pytest.param("2", marks=pytest.mark.nightly)])
def test_a_worker_that_is_killed_loses_nothing(capfd, number):
    """It is killed between two checkpoints of its task, and what it had measured before is gone with it."""
    assert track("new.h5", "--workers", number, factory="deadly") == 0
    os.remove("killed")  # there: it was
    assert capfd.readouterr().err.splitlines()[1:] == ["5 snapshots in new.h5"]  # dask says nothing
    assert unequal_archives(Path("whole.h5"), Path("new.h5")) == []
    assert check("new.h5") == []


@pytest.mark.nightly
def test_workers_that_all_die_are_told_by_the_checkpoint(capfd):
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        assert track("new.h5", "--workers", "1", factory="cursed") == 2
    said = capfd.readouterr().err
    assert "1 workers died while they measured step-0.pt to step-2.pt: expected workers that live (in tcp://" in said
    assert said.count("\n") == 1


LEADING = pytest.param(("--eigenpairs", "leading", "--params", "2.*"), marks=pytest.mark.nightly)


@pytest.mark.parametrize("words", [(), LEADING], ids=str)
def test_a_clusters_archive_is_that_of_one_process(address, words):
    if words:
        assert track("new-whole.h5", *words) == 0
    assert track("new.h5", "--cluster", address, *words) == 0
    assert unequal_archives(Path("new-whole.h5" if words else "whole.h5"), Path("new.h5")) == []


def test_a_share_is_spread(address):
    """Compared with the beginning, which another share has the rows of."""
    assert track("new-1.h5", "--shard", "2/2") == 0
    assert track("new-2.h5", "--shard", "2/2", "--cluster", address) == 0
    assert unequal_archives(Path("new-1.h5"), Path("new-2.h5")) == []


def test_what_a_worker_meets_is_what_one_process_says_and_nothing_is_left(address, capsys):
    path = Path("ckpt/step-6.pt")
    good = path.read_bytes()
    torch.save({"model": {"0.weight": torch.ones(2, 2)}}, path)
    try:
        assert track("new.h5") == 2
        alone = capsys.readouterr().err
        assert track("new.h5", "--cluster", address) == 2
        assert capsys.readouterr().err == alone.replace("ckpt/", f"{Path.cwd()}/ckpt/")
    finally:
        path.write_bytes(good)


def test_workers_that_could_disturb_each_other_are_refused(capsys):
    with cluster(threads=2) as running:
        assert track("new.h5", "--cluster", running) == 2
    said = capsys.readouterr().err
    assert "a worker of the cluster runs several tasks at once: expected one thread, got 2 (in tcp://127.0.0.1:" in said
    assert "`dask worker --nthreads 1`" in said


def test_workers_with_other_packages_are_refused(address, monkeypatch, capsys):
    ours = iter([("kerneltrack 0.0", "torch 0.0")])
    real = workers._versions
    monkeypatch.setattr(workers, "_versions", lambda: next(ours, real()))
    assert track("new.h5", "--cluster", address) == 2
    assert f"expected kerneltrack 0.0, torch 0.0, got {', '.join(real())} (in tcp://" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", ""])
def test_a_cluster_that_is_not_there_is_one_line(address, capsys):
    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}):
        assert track("new.h5", "--cluster", address) == 2
    said = capsys.readouterr().err
    assert f"--cluster {address} cannot be reached: expected the address of a dask scheduler" in said
    assert said.count("\n") == 1


def test_both_are_refused_and_the_package_is_named(monkeypatch, capsys):
    assert track("new.h5", "--cluster", "tcp://x:1", "--workers", "2") == 2
    assert "--workers or --cluster: expected one of them, got both" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert track("new.h5", "--workers", "2") == 2
    assert "needs distributed, which is not installed. `pip install 'kerneltrack[cluster]'`" in capsys.readouterr().err


def test_nothing_is_served_while_workers_run(monkeypatch):
    """Neither a dashboard nor dask's pages of facts. Oracle: a plain client of the address that dask opens all the same."""
    monkeypatch.setattr(distributed, "LocalCluster", threads_for(distributed.LocalCluster))
    with Workers(1).client() as client:
        host = client.dashboard_link.removesuffix("/status")
        for page in ("/status", "/info/main/workers.html", "/json/counts.json", "/metrics"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(host + page)


def threads_for(local):
    """LocalCluster whose workers are threads of this process."""
    return lambda **options: local(**{**options, "processes": False, "protocol": "tcp://"})


def test_threads_and_memory_are_shared_by_the_workers(folder):
    """So many workers together take what one process takes, and a budget that is given is each one's."""
    options = MeasuringOptions
    saved = functools.partial(SavedRun, (), None, "saved_nets:Net", Path("probe.npz"))
    assert Workers(4).fitting(saved(options(memory_budget="1KiB"))).options.memory_budget == "1024"
    assert Workers(None, "tcp://x:1").fitting(saved(options())).options.memory_budget is None
    free = int(Workers(1).fitting(saved(options())).options.memory_budget)
    quarter = int(Workers(4).fitting(saved(options())).options.memory_budget)
    assert quarter == pytest.approx(free / 4, rel=0.2)  # other processes take and give memory meanwhile


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("number", [0, 3, 64])
def test_spans_are_all_positions_in_order_and_short(count, number):
    positions = range(5, 5 + count)
    found = spans(positions, number)
    assert [position for span in found for position in span] == list(positions)
    assert max(map(len, found), default=0) <= 16
    assert len(found) >= min(count, number)
