"""Worker processes that measure checkpoints for one process that writes: of dask.distributed, started here or on a cluster.

Tasks are spans of consecutive checkpoints. dask gives them to the workers and gives those of a worker that died to another;
what comes back is taken in the order of the steps.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch

import kerneltrack
from kerneltrack.errors import MissingPackageError, TrackerError
from kerneltrack.memory_budget import budget_bytes
from kerneltrack.snapshot import Snapshot

from .model import say
from .saved_run import SavedRun, Share

#: A span begins with the state before it, measured once more: of 16 that is 6 %. A worker that dies loses the time of one.
_LONGEST = 16
#: Spans for each worker, so that none waits long for the last one.
_EACH = 2
#: What BLAS and torch read when a process starts; dask sets them to 1 where they are not set.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: The page of facts that dask serves without its dashboard, too.
_NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}

#: Workers may be threads of one process, and what a measurement guards, generators and modes, belongs to the process.
_MEASURING = threading.Lock()


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        count: processes that are started on this machine, and end with the work; None: a cluster's.
        address: of the cluster's scheduler, such as tcp://host:8786.
    """

    count: int | None = None
    address: str | None = None

    @classmethod
    def asked(cls, count: int | None, address: str | None) -> Workers | None:
        """Of ``--workers`` and ``--cluster``; None where neither is given: this process measures.

        Raises:
            TrackerError: both are.
        """
        if count is not None and address is not None:
            raise TrackerError(
                "--workers or --cluster", expected="one of them", got="both", remedy="A cluster has workers of its own."
            )
        return None if count is None and address is None else cls(count, address)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A connection to the workers.

        Raises:
            MissingPackageError: dask.distributed is not installed.
            TrackerError: the cluster cannot be reached.
        """
        try:
            Client: Any = importlib.import_module("distributed").Client
        except ModuleNotFoundError as error:
            raise MissingPackageError("distributed", "`pip install 'kerneltrack[cluster]'` brings it.") from error
        if self.count is not None:
            with _started(self.count) as cluster, Client(cluster, set_as_default=False) as client:
                yield client
            return
        try:
            client = Client(self.address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise TrackerError(
                f"--cluster {self.address} cannot be reached",
                expected="the address of a dask scheduler, such as tcp://host:8786",
                got=str(error),
                remedy="`dask scheduler` prints it.",
            ) from error
        with client:
            if not client.nthreads():
                say(f"{self.address} has no worker yet; waiting for one")
            yield client

    def fitting(self, saved: SavedRun) -> SavedRun:
        """The run for workers of this machine: they share the memory that is free. A cluster's are not known."""
        if self.count is None:
            return saved
        budget = budget_bytes(saved.options.memory_budget, torch.device("cpu"))
        if saved.options.memory_budget is None:
            budget //= self.count
        return replace(saved, options=replace(saved.options, memory_budget=str(budget)))


def measured(saved: SavedRun, span: range, workers: Workers) -> Generator[Snapshot]:
    """The rows of these checkpoints in their order.

    Args:
        saved: the run.
        span: positions of its checkpoints.
        workers: what measures.

    Raises:
        TrackerError: what a worker met, or so many of them died that dask gave up, or the cluster is gone.
    """
    task = partial(_share, os.getcwd(), _versions(), workers.fitting(saved.absolute()))
    with workers.client() as client:
        beginning = client.submit(task, saved.beginning, None, pure=False)
        rest = range(max(span.start, saved.beginning.stop), span.stop)
        tasks = deque(
            (part, client.submit(task, part, beginning, pure=False)) for part in spans(rest, len(client.nthreads()))
        )
        tasks.appendleft((saved.beginning, beginning))
        while tasks:
            part, future = tasks.popleft()
            rows = _result(future, saved, part).rows
            yield from (row for position, row in zip(part, rows, strict=True) if position in span)


def spans(positions: range, workers: int) -> Sequence[range]:
    """Consecutive positions in spans for so many workers: short enough that all have some, and none has much to lose."""
    size = min(_LONGEST, -(-len(positions) // (_EACH * max(workers, 1)))) or 1
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def _share(folder: str, versions: Sequence[str], saved: SavedRun, span: range, beginning: Share | None) -> Share:
    """In a worker: the rows of a span.

    Raises:
        TrackerError: this worker is not fit for it.
    """
    _require_fit(versions)
    if folder not in sys.path:  # where the command was given: modules are looked for there, as without workers
        sys.path.insert(0, folder)
    with _MEASURING:
        return saved.share(span, {} if beginning is None else beginning.memory)


def _versions() -> tuple[str, ...]:
    return f"kerneltrack {kerneltrack.__version__}", f"torch {torch.__version__}"


def _require_fit(versions: Sequence[str]) -> None:
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:  # all but one would wait
        raise TrackerError(
            "a worker of the cluster runs several tasks at once",
            expected="one thread",
            got=worker.state.nthreads,
            where=worker.address,
            remedy="Start it with `dask worker --nthreads 1`, and several with --nworkers.",
        )
    if tuple(versions) != _versions():
        raise TrackerError(
            "a worker of the cluster has other packages than this process",
            expected=", ".join(versions),
            got=", ".join(_versions()),
            where=worker.address,
            remedy="Install the same on all machines.",
        )


def _result(future: Any, saved: SavedRun, part: range) -> Share:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        found: Share = future.result()
    except KilledWorker as error:
        first, last = (saved.found[position].path.name for position in (part[0], part[-1]))
        raise TrackerError(
            f"{error.allowed_failures + 1} workers died while they measured {first} to {last}",
            expected="workers that live",
            where=error.last_worker.address,
            remedy="It may take more memory than there is: a smaller --memory-budget or fewer workers need less.",
        ) from error
    except CancelledError as error:
        raise TrackerError(
            "the cluster is gone", got=str(error), remedy="Its scheduler has to run until the archive is written."
        ) from error
    return found


@contextmanager
def _started(count: int) -> Iterator[Any]:
    """Processes on this machine; they and what they wrote are gone behind it."""
    dask, distributed = (importlib.import_module(name) for name in ("dask", "distributed"))
    threads = max(1, torch.get_num_threads() // count)
    with (
        _environment(dict.fromkeys(_THREADS, str(threads))),
        TemporaryDirectory(prefix="kerneltrack-") as scratch,  # what a worker that is killed leaves, goes with it
        dask.config.set({**_NO_PAGES, "temporary-directory": scratch}),
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # dask would kill a worker for what the memory budget allows
            # Without an address dask takes port 8787, with a dashboard or not, and warns where that is taken.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for the processes that are started meanwhile; dask sets more of them in this process, too."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
