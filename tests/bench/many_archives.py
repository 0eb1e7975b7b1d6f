"""What it takes to load and compare very many archives; writes docs/benchmarks-many-archives.md.

    python tests/bench/many_archives.py [--folder DIR] [--output FILE.md]      # some ten minutes and 2 GB

One small run is trained and measured, and its archive copied. Each number of copies is loaded and compared in a process of its
own; memory is what the process has afterwards beyond its imports, descriptors what it holds. "Opened again" reads an
array of each that is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

OUTPUT = Path(__file__).parents[2] / "docs" / "benchmarks-many-archives.md"
COUNTS = (20, 200, 2000)
POINTS, SNAPSHOTS = 64, 10


def train(path: Path, *, points: int = POINTS, snapshots: int = SNAPSHOTS) -> None:
    """A small run with every default observable."""
    import torch

    import kerneltrack as kt

    torch.manual_seed(0)
    x = torch.randn(points, 8)
    y = x[:, :1].sin()
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe, schedule = kt.Probe(x, y), kt.schedule.Every(5)
    with kt.Tracker(path, model, optimizer, probe=probe, loss="half_mse", schedule=schedule, top_k=8) as tracker:
        for _ in range(5 * snapshots - 1):
            tracker.before()
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean() / 2
            loss.backward()
            optimizer.step()
            tracker.after(loss.detach())


def measure(paths: Sequence[Path]) -> dict[str, float]:
    """Seconds, MB and descriptors, in this process."""
    from kerneltrack.analysis import load
    from kerneltrack.analysis.comparison.comparison import compare

    compare(load(paths[:2]))  # imports, and what the libraries keep for good
    before, runs = memory(), []

    def seconds(action: Callable[[], object]) -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return {
        "load": seconds(lambda: runs.append(load(paths))),
        "compare": seconds(lambda: compare(runs[0])),
        "again": seconds(lambda: [run.at("eigenvectors", 0) for run in runs[0]]),
        "megabytes": memory() - before,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def memory() -> float:
    """What this process has, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def page(folder: Path, counts: Sequence[int], **sizes: int) -> str:
    from archive_cost import file_system, machine

    import kerneltrack

    first = folder / "run-0.h5"
    train(first, **sizes)
    for number in range(1, max(counts)):
        shutil.copy(first, folder / f"run-{number}.h5")
    rows = []
    for count in counts:
        command = [sys.executable, __file__, "--measure", str(count), "--folder", str(folder)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            f"| {count:,} | {found['load']:.1f} | {found['compare']:.1f} | {found['again']:.1f} | "
            f"{found['megabytes']:.0f} | {found['descriptors']:.0f} |"
        )
    from kerneltrack.archive import open_archive

    with open_archive(first) as archive:
        (record,) = archive.probes.values()
        what = f"{len(archive)} snapshots of {record.count} points with {len(archive.columns)} columns"
    when, software = time.strftime("%Y-%m-%d"), f"kerneltrack {kerneltrack.__version__}"
    text = [
        "# What very many archives cost\n",
        f"Made by `make bench` (`tests/bench/many_archives.py`) on {when}: {machine()}, {file_system(folder)}, {software}.\n",
        f"Copies of one archive of {what} ({first.stat().st_size / 1e3:.0f} kB) are loaded, then compared "
        "(`load`, `compare`), then one array of each that is not kept in memory is read. MB are what the process has "
        "afterwards beyond its imports. Of all archives a few are open at a time, and a few numbers of each are kept.\n",
        "| archives | load s | compare s | opened again s | MB | descriptors |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure([options.folder / f"run-{number}.h5" for number in range(options.measure)])))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        text = page(Path(name), options.counts)
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
