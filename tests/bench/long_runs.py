"""What each command takes of a long run, and a page of very many runs; writes docs/benchmarks-long-runs.md.

    python tests/bench/long_runs.py [--folder DIR] [--output FILE.md]      # some five minutes and 1 GB

One small run is trained and measured. Its rows stand in a cycle for a run of thousands of snapshots, with new steps; the last of
them are appended one by one by a process that is killed, so that there is something to merge. Each command runs in a process
of its own, its imports included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "benchmarks-long-runs.md"
SNAPSHOTS, POINTS, TOP_K, LEFT, RUNS, EACH = 5000, 128, 64, 300, 200, 50
KERNELTRACK = Path(sys.executable).with_name("kerneltrack")
#: Seconds that a command may take.
GOALS = {"report": 15.0}
GOAL = 10.0


def train(path: Path, *, points: int, states: int) -> None:
    """A small run with every default observable, and a change of the rate half way."""
    import torch

    import kerneltrack as kt

    torch.manual_seed(0)
    x = torch.rand(points, 2)
    y = torch.sin(6 * x[:, :1]) * x[:, 1:]
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 48), torch.nn.Tanh(), torch.nn.Linear(48, 48), torch.nn.Tanh(), torch.nn.Linear(48, 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    probe, schedule = kt.Probe(x, y), kt.schedule.Every(10)
    given = {
        "probe": probe,
        "loss": "half_mse",
        "schedule": schedule,
        "top_k": TOP_K,
        "keep_inputs": True,
        "log": False,
    }
    with kt.Tracker(path, model, optimizer, **given) as tracker:
        for update in range(10 * states - 1):
            optimizer.param_groups[0]["lr"] = 0.2 if update < 5 * states else 0.1
            tracker.before()
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean() / 2
            loss.backward()
            optimizer.step()
            tracker.after(loss.detach())


def rows_of(path: Path, count: int) -> Iterator[object]:
    """``count`` snapshots of a run in which each measured state stands for several; kernels are left out."""
    from kerneltrack import open_archive

    with open_archive(path) as archive:
        states = [archive[i] for i in range(len(archive))]
    for step in range(count):
        state = states[step * len(states) // count]
        probes = {probe: {k: v for k, v in held.items() if k != "kernel"} for probe, held in state.probes.items()}
        yield replace(state, step=step, window=0, lag=0, wall_time=state.wall_time + step, probes=probes)


def write(first: Path, path: Path, count: int, **metadata: object) -> None:
    """An archive of that many snapshots, written at once."""
    from kerneltrack import open_archive
    from tests.archive import at_once

    with open_archive(first) as archive:
        records, provenance = list(archive.probes.values()), archive.provenance
    at_once.write(path, rows_of(first, count), *records, provenance=replace(provenance, metadata=metadata))


def append(first: Path, path: Path, start: int, count: int) -> None:
    """What a run does after ``start`` snapshots, until it is killed: its last snapshots lie beside the archive."""
    from kerneltrack import ArchiveWriter, open_archive

    with open_archive(first) as archive:
        records = list(archive.probes.values())
    writer = ArchiveWriter.resume(path, probes=records, resumed_from_step=start)
    for row in list(rows_of(first, start + count))[start:]:
        writer.append(row)
    os._exit(0)


def spent(words: Sequence[str | Path]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time, of a command that must end well."""
    started = time.perf_counter()
    child = subprocess.Popen([KERNELTRACK, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {child.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def commands(folder: Path) -> Iterator[tuple[str, list[str | Path]]]:
    """What is run, in this order: merge first, which the others read the outcome of."""
    run, other = folder / "run.h5", folder / "other.h5"
    yield "merge", ["merge", run]
    yield "show", ["show", run]
    yield "check", ["check", run]
    yield "plot", ["plot", run, "--figure", "stability", "-o", folder / "stability.svg"]
    yield "compare", ["compare", run, other]
    yield "export", ["export", run, "--to", "csv", "-o", folder / "run.csv"]
    yield "export", ["export", run, "--to", "netcdf", "-o", folder / "run.nc"]
    named = ["--licence", "CC0-1.0", "--author", "A. Author", "--contact", "a@example.org"]
    yield "publish", ["publish", run, "-o", folder / "public.h5", *named]
    yield "report", ["report", run, "-o", folder / "run.html"]


def page(folder: Path, *, snapshots: int, points: int, runs: int, states: int = 40, left: int = LEFT) -> str:
    from archive_cost import file_system, machine

    import kerneltrack
    from kerneltrack import open_archive

    first, run, other = (folder / f"{name}.h5" for name in ("first", "run", "other"))
    if not first.exists():
        train(first, points=points, states=states)
    if not other.exists():
        write(first, other, snapshots, width=1)
    run.unlink(missing_ok=True)  # it is merged anew each time
    write(first, run, snapshots - left, width=2)
    child = [sys.executable, __file__, "--append", str(left), "--after", str(snapshots - left), "--folder", str(folder)]
    subprocess.run(child, check=True)
    rows = [
        _row(f"`{' '.join(_shown(words))}`", spent(words), GOALS.get(name, GOAL)) for name, words in commands(folder)
    ]
    many = folder / "many"
    many.mkdir(exist_ok=True)
    for number in range(runs):
        if not (path := many / f"run-{number}.h5").exists():
            write(first, path, EACH, width=2 ** (number % 4), seed=number // 4)
    found = spent(["report", *sorted(many.glob("*.h5")), "-o", folder / "many.html"])
    rows.append(_row(f"`report` of {runs:,} runs of {EACH} snapshots", found, None))
    with open_archive(run) as archive:
        what = f"{len(archive):,} snapshots of {points} points, {len(archive.columns)} columns, {TOP_K} eigenvectors"
        assert len(archive) == snapshots
    one, all_ = ((folder / f"{name}.html").stat().st_size / 1e6 for name in ("run", "many"))
    when, software = time.strftime("%Y-%m-%d"), f"kerneltrack {kerneltrack.__version__}"
    text = [
        "# What a long run costs to read\n",
        f"Made by `make bench` (`tests/bench/long_runs.py`) on {when}: {machine()}, {file_system(folder)}, {software}.\n",
        f"An archive of {what} ({run.stat().st_size / 1e6:.0f} MB), of which {left:,} snapshots lay beside it before `merge`, as a "
        "killed run leaves them. Each command runs in a process of its own, loading of the libraries included. Processor time "
        f"beside the clock's, since the machine does other things too. Its page has {one:.1f} MB, that of many runs {all_:.1f} MB. "
        f"The goal is {GOAL:.0f} s, "
        f"for a report {GOALS['report']:.0f} s, on a machine that does nothing else.\n",
        "| command | clock s | processor s | goal s | met in processor time |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(text) + "\n"


def _shown(words: Sequence[str | Path]) -> Iterator[str]:
    for word in words:
        yield word.name if isinstance(word, Path) else word


def _row(name: str, found: tuple[float, float], goal: float | None) -> str:
    clock, processor = found
    told = ("", "") if goal is None else (f"{goal:.0f}", "yes" if processor <= goal else "no")
    return f"| {name} | {clock:.1f} | {processor:.1f} | {told[0]} | {told[1]} |"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=SNAPSHOTS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to write; archives that are there are taken; the system's temporary folder by default",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--append", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--after", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.append:
        append(options.folder / "first.h5", options.folder / "run.h5", options.after, options.append)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        (folder / "public.h5").unlink(missing_ok=True)  # a copy replaces nothing
        text = page(folder, snapshots=options.snapshots, points=POINTS, runs=options.runs)
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
