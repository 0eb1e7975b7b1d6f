"""Kill a writer as often as asked and look for what it had acknowledged.

    python tests/archive/kill.py --kills 500                # at random times, with a reader at work all the while
    python tests/archive/kill.py --kills 0 --calls          # before every call that changes a file, and in its middle
    python tests/archive/kill.py --kills 0 --calls --writer in-place      # the negative control: must lose something

The writer appends groups of consecutive states, joins, closes and resumes. It acknowledges each snapshot through a pipe
after ``append`` returned. After each kill every acknowledged snapshot must be there, bit for bit; the archive must be in
order, and must resume.
SIGKILL leaves what the operating system holds, so this is the death of a process; for a loss of power see
test_power_cut.py.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # run by path, a file's own folder comes first, not the root

from kerneltrack.archive import ArchiveWriter, layout, open_archive, rows
from kerneltrack.archive.checking import problems
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot
from tests.archive.same_snapshot import same_measurement

SIZE = 64
GROUP = 3
MEAN_SECONDS = 0.15  # of processor time between a writer's start, or its first snapshot, and its end
PROBE = ProbeRecord(name="train", fingerprint="sha256:0", count=SIZE)
RUN = Provenance(run={"run_id": "killed"})
HERE = Path(__file__).parent


def snapshot(step: int) -> Snapshot:
    """A state of a group of three consecutive ones, which begins where the step is a multiple of three; the others are light."""
    draw, place = np.random.default_rng(step), step % GROUP
    values = {"trace": np.asarray(draw.normal())}
    if place == 0:
        values["eigenvalues"] = -np.sort(-draw.normal(size=SIZE))
        values["eigenvectors"] = draw.normal(size=(SIZE, 1, 4)).astype(np.float32)
    probes = {"train": values}
    return Snapshot(step=step, learning_rates=(0.1,), trigger=f"step {step}", window=place, lag=place, probes=probes)


class InPlaceWriter:
    """The faulty writer: one HDF5 file held open, every dataset extended by a row, then flushed."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            ArchiveWriter(path, probes=[PROBE], provenance=RUN).close()
        self.file = h5py.File(path, "r+", locking=False, libver=layout.LIBVER)

    @classmethod
    def resume(cls, path: Path, **_: Any) -> InPlaceWriter:
        return cls(path)

    def append(self, given: Snapshot) -> None:
        count = self.file["snapshot"].shape[0]
        for path, (field, value) in rows.encode(given, index=count, segment=0).items():
            if path not in self.file:
                layout.create(self.file, path, layout.Column(field, value.shape), 0)
            self.file[path].resize(count + 1, axis=0)
            self.file[path][count] = value
        self.file.flush()

    def close(self) -> None:
        self.file.close()


WRITERS: dict[str, Any] = {"archive": ArchiveWriter, "in-place": InPlaceWriter}


def opened(kind: str, path: Path, step: int) -> Any:
    """The writer of that kind: a new archive, or the one that is there continued after ``step``."""
    writer = WRITERS[kind]
    if kind == "in-place":
        return writer(path)
    if path.exists():
        return writer.resume(path, probes=[PROBE], provenance=RUN, resumed_from_step=step)
    return writer(path, probes=[PROBE], provenance=RUN)


# -- children --------------------


class Child:
    """A forked process that runs a function with the writing end of a pipe."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            status = 1
            try:
                work(theirs)
                status = 0
            except BaseException:  # noqa: BLE001 — nothing may get out of a forked child
                traceback.print_exc()
            os._exit(status)
        os.close(theirs)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def work_for(self, seconds: float) -> None:
        """Wait until the child has had so much processor time, or is gone; a busy machine makes it live longer.

        The clock stands while the child waits for the disk, but we look at it only now and then, and so a kill may come
        during such a wait.
        """
        clock = ~self.pid << 3 | 2  # Linux's processor clock of another process
        end = time.clock_gettime(clock) + seconds
        while time.clock_gettime(clock) < end and not self._is_over():
            time.sleep(0.001)

    def _is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def acknowledged(self) -> list[int]:
        """The steps that came through the pipe, once the child is gone."""
        data = b""
        while block := os.read(self.pipe, 1 << 16):
            data += block
        os.close(self.pipe)
        return [step for (step,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8])]


def write(kind: str, path: Path, first: int, count: int, pipe: int, *, close_after: int = 0) -> None:
    """Append ``count`` snapshots from step ``first`` on; close and resume after every ``close_after``."""
    warnings.simplefilter("error")
    writer = opened(kind, path, first - 1)
    for step in range(first, first + count):
        writer.append(snapshot(step))
        os.write(pipe, struct.pack("<q", step))
        if close_after and (step - first + 1) % close_after == 0:
            writer.close()
            writer = opened(kind, path, step)
    writer.close()


# -- judges --------------------


def faults(path: Path, acknowledged: Iterable[int]) -> list[str]:
    """What is wrong with an archive of which these steps were acknowledged. In a process of its own: it may crash."""

    def judge(pipe: int) -> None:
        found = [str(problem) for problem in problems(path) if problem.severity == "problem"]
        try:
            with open_archive(path, all_segments=True) as archive:
                steps = archive.steps.tolist()
                lost = sorted(set(acknowledged) - set(steps))
                found += [f"lost: {lost}"] if lost else []
                found += ["a row stands twice"] if len(set(steps)) != len(steps) else []
                found += [f"step {s.step} is torn" for s in archive if not whole(s)]
        except OSError as error:
            found.append(f"unreadable: {error}")
        os.write(pipe, "\n".join(found).encode()[:60_000])

    child = Child(judge)
    data = b""
    while block := os.read(child.pipe, 1 << 16):
        data += block
    os.close(child.pipe)
    status = child.wait()
    return [*data.decode().splitlines(), *([f"the reader ended with {status}"] if status else [])]


def whole(given: Snapshot) -> bool:
    expected = snapshot(given.step)
    told = [(s.trigger, s.window, s.lag) for s in (given, expected)]
    return told[0] == told[1] and same_measurement(given.probes["train"], expected.probes["train"])


def watch(path: Path, pipe: int) -> None:
    """Read an archive over and over; write a byte for each reading, and what was wrong."""
    seen = 0
    while True:
        try:
            with open_archive(path, all_segments=True) as archive:
                torn = [s.step for s in archive[-12:] if not whole(s)]
                complaint = f"torn {torn}" if torn else f"{len(archive)} after {seen}" if len(archive) < seen else ""
                seen = len(archive)
        except Exception as error:  # noqa: BLE001 — whatever a reader meets is the finding
            complaint = "" if not path.exists() else f"{type(error).__name__}: {error}"
        os.write(pipe, (complaint.replace("\n", " ") + "\n").encode())
        time.sleep(0.1)


# -- the two proofs --------------------


def kill_at_random_times(kind: str, kills: int, seed: int) -> list[str]:
    """Kills at exponentially distributed times over appends, joins, closes and resumes, a reader at work meanwhile."""
    draw = random.Random(seed)
    found: list[str] = []
    totals = {"acknowledged": 0, "archives": 0, "readings": 0}
    with tempfile.TemporaryDirectory() as name:
        while kills > 0:
            path = Path(name) / f"{totals['archives']}.h5"
            totals["archives"] += 1
            reader = Child(lambda pipe, path=path: watch(path, pipe))
            acknowledged: list[int] = []
            for _ in range(min(kills, 25)):
                first = GROUP * (
                    max(acknowledged, default=0) // GROUP + 300
                )  # the killed child may have stored one more
                child = Child(lambda pipe, path=path, first=first: write(kind, path, first, 200, pipe, close_after=31))
                if draw.random() < 0.7:  # else the kill may well come while the archive is created or resumed
                    select.select([child.pipe], [], [])  # ends with the first snapshot, or with the child
                child.work_for(draw.expovariate(1 / MEAN_SECONDS))
                child.kill()
                child.wait()
                acknowledged += child.acknowledged()
                reader.send(signal.SIGSTOP)  # nothing is written meanwhile
                if path.exists():
                    found += [f"{path.name}: {fault}" for fault in faults(path, acknowledged)]
                reader.send(signal.SIGCONT)
                kills -= 1
            reader.kill()
            reader.wait()
            found += readings(reader, path, totals)
            totals["acknowledged"] += len(acknowledged)
            print(f"{totals}, {kills} kills to come, {len(found)} faults so far", flush=True)
            shutil.rmtree(name, ignore_errors=True)
            Path(name).mkdir()
    print(f"{totals} and {len(found)} faults")
    return found


def readings(reader: Child, path: Path, totals: dict[str, int]) -> list[str]:
    data = b""
    while block := os.read(reader.pipe, 1 << 16):
        data += block
    os.close(reader.pipe)
    lines = data.decode("utf-8", "replace").splitlines()
    totals["readings"] += len(lines)
    return [f"{path.name}: reader: {line}" for line in lines if line]


STAGES = {  # how many snapshots are there before, how many are appended, whether the writer is closed
    "create": (0, 0, False),
    "append": (4, 1, False),
    "append and join all": (7, 1, False),
    "append and join equal": (39, 1, False),
    "close": (3, 0, True),
}
FINISHED = 7


def kill_before_every_call(kind: str, stride: int, stages: list[str]) -> list[str]:
    """For each stage of an archive's life: a kill before its first changing call, its second, …; in each write's middle.

    Needs killer.c preloaded; see :func:`main`.
    """
    found: list[str] = []
    for stage in stages:
        for half in (0, 1):
            number, killed = 1, True
            while killed:
                with tempfile.TemporaryDirectory() as name:
                    killed, faults_here = killed_once(kind, stage, number, half, Path(name) / "run.h5")
                    where = f"{stage}, {'middle of write' if half else 'call'} {number}"
                    found += [f"{where}: {fault}" for fault in faults_here]
                number += stride
            tried = f"{stage}: every {stride} of {number - stride - 1} {'writes, in the middle' if half else 'calls'}"
            print(f"{tried}: {len(found)} faults so far", flush=True)
    return found


def killed_once(kind: str, stage: str, number: int, half: int, path: Path) -> tuple[bool, list[str]]:
    """Whether the stage had a call of that number, and what was wrong after the kill and after resuming."""
    child = Child(lambda pipe: live(kind, stage, number, half, path, pipe))
    status = child.wait()
    acknowledged = child.acknowledged()
    found = [] if status in (FINISHED, -signal.SIGKILL) else [f"the writer ended with {status}"]
    if path.exists():
        found += faults(path, acknowledged)
    elif stage != "create":
        found.append("the archive is gone")
    return status == -signal.SIGKILL, [*found, *(f"resumed: {fault}" for fault in resumed(kind, path, acknowledged))]


def live(kind: str, stage: str, number: int, half: int, path: Path, pipe: int) -> None:
    """Come to the stage, then live through it, to be killed before the call of that number."""
    before, more, closes = STAGES[stage]
    kill_at = ctypes.CDLL(None).kill_at
    if stage == "create":
        kill_at(ctypes.c_long(number), half)
    writer = opened(kind, path, 0)
    for step in range(before + more):
        if step == before:
            kill_at(ctypes.c_long(number), half)
        writer.append(snapshot(step))
        os.write(pipe, struct.pack("<q", step))
    if closes:
        kill_at(ctypes.c_long(number), half)
        writer.close()
    os._exit(FINISHED)  # closing is no part of the other stages


def resumed(kind: str, path: Path, acknowledged: list[int]) -> list[str]:
    """What is wrong after the run was resumed, wrote one more snapshot, and closed."""
    child = Child(lambda pipe: write(kind, path, 300 * GROUP, 1, pipe))
    status = child.wait()
    if status:
        child.acknowledged()
        return [f"resuming ended with {status}"]
    left = [p.name for p in path.parent.iterdir() if p != path]
    return [*faults(path, [*acknowledged, *child.acknowledged()]), *([f"left behind: {left}"] if left else [])]


def rehearse(kind: str) -> None:
    """One whole life in this process: what it imports and computes once, no child need do again."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "wb") as nowhere:
        for first in (0, 300 * GROUP):
            write(kind, Path(name) / "run.h5", first, 1, nowhere.fileno())
            list(problems(Path(name) / "run.h5"))
            with open_archive(Path(name) / "run.h5", all_segments=True) as archive:
                [whole(row) for row in archive]


def preloaded() -> bool:
    """Whether killer.c is in this process; if not, compile it and start again with it."""
    if hasattr(ctypes.CDLL(None), "kill_at"):
        return True
    if "killer" in os.environ.get("LD_PRELOAD", ""):
        return False
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return False
    library = Path(tempfile.mkdtemp()) / "killer.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "killer.c"), "-ldl"], check=True
    )
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", action="store_true", help="kill before every call that changes a file")
    parser.add_argument("--stride", type=int, default=1, help="take only every so many calls")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this stage; may be repeated")
    parser.add_argument("--writer", choices=WRITERS, default="archive")
    options = parser.parse_args()
    if options.calls and not preloaded():
        print("there is no C compiler: the kills before every call were skipped")
        return 77
    rehearse(options.writer)
    found = kill_at_random_times(options.writer, options.kills, options.seed) if options.kills else []
    if options.calls:
        found += kill_before_every_call(options.writer, options.stride, options.stage or list(STAGES))
    for fault in found[:40]:
        print(fault)
    print(f"{len(found)} faults in all")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
