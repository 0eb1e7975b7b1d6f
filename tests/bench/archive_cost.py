"""What appending and opening cost, by how much is there already; writes docs/benchmarks-archive.md.

    python tests/bench/archive_cost.py [--folder DIR] [--output FILE.md]      # some six minutes and 6 GB

Appending is timed with 1, 100 and 10,000 snapshots there, with joining and without (parts stay as they are), beside
the least that durability costs: a file of as many bytes, written, synced and renamed in the same folder. Bytes are what
the process handed to write calls. The opening of a large archive is timed with its pages in memory and without.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import h5py
import numpy as np

import kerneltrack
from kerneltrack.archive import ArchiveWriter, durable, layout, open_archive, rows, scales
from kerneltrack.archive import header as headers
from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.spool import Spool
from kerneltrack.snapshot import ProbeRecord, Snapshot

OUTPUT = Path(__file__).parents[2] / "docs" / "benchmarks-archive.md"
THERE = (1, 100, 10_000)
SAMPLES, VECTORS = 300, 16  # of the appends
RUNS = (64, 512, 4096)  # lengths of whole runs
LARGE = (10_000, 2_000, 64)  # snapshots, samples, vectors of the opening


@dataclass(frozen=True)
class Row:
    """One measured setting: milliseconds of each append, bytes written by all."""

    there: int
    joining: bool
    took: list[float]
    written: int
    floor: list[float]

    def line(self) -> str:
        cells = [
            f"{self.there:,}",
            "with" if self.joining else "without",
            f"{median(self.took):.1f}",
            f"{np.percentile(self.took, 99):.1f}",
            f"{mean(self.took):.1f}",
            f"{self.written / len(self.took) / 1000:,.0f}",
            f"{median(self.floor):.1f}",
            f"{median(self.took) / median(self.floor):.2f}×",
        ]
        return f"| {' | '.join(cells)} |"


def snapshot(step: int, samples: int, vectors: int) -> Snapshot:
    values = {
        "eigenvalues": np.linspace(samples, 0, samples),
        "eigenvectors": np.full((samples, 1, vectors), 0.5, np.float32),
        "target_coefficients": np.ones((samples, 1)),
        "outputs": np.ones((samples, 1)),
        "trace": np.float64(1.0),
    }
    return Snapshot(step=step, learning_rates=(0.1,), probes={"train": values})


def prepare(path: Path, count: int, samples: int, vectors: int) -> ProbeRecord:
    """An archive with so many rows, laid out as joining lays it out: the same measurement under other steps."""
    probe = ProbeRecord(name="train", fingerprint="sha256:0", count=samples)
    ArchiveWriter(path, probes=[probe]).close()
    empty = Piece(path)
    header = empty.header
    empty.close()
    first = rows.encode(snapshot(0, samples, vectors), index=0, segment=0)
    changing = {"snapshot": np.arange(count), "step": np.arange(count)}
    changing["snapshot_id"] = np.random.default_rng(0).integers(0, 256, (count, 16), dtype="u1")
    same = {name: value for name, (_, value) in first.items()}
    digests = [rows.digest(same | {name: each[i] for name, each in changing.items()}) for i in range(count)]
    changing["content_sha256"] = np.array(digests)
    with h5py.File(path, "w", libver=layout.LIBVER) as file:
        headers.write(file, header)
        for name, (field, value) in first.items():
            data = layout.create(file, name, layout.Column(field, value.shape), count)
            for start in range(0, count, 1024):
                stop = min(start + 1024, count)
                many = np.broadcast_to(value, (stop - start, *value.shape))
                data[start:stop] = changing[name][start:stop] if name in changing else many
        scales.add(file)
    return probe


def transferred(name: str) -> int:
    """Bytes that this process has handed to (wchar) or taken from (rchar) the system so far."""
    return int(Path("/proc/self/io").read_text().split(f"{name}: ")[1].split()[0])


def timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


@contextmanager
def without_joining(asked: bool) -> Iterator[None]:
    tidy = Spool.tidy
    try:
        if asked:
            Spool.tidy = lambda self, header: None
        yield
    finally:
        Spool.tidy = tidy


def appending(folder: Path, there: int, *, joining: bool, appends: int) -> Row:
    """Append beside the floor, one after the other, so that both meet the same disk."""
    path, aside = folder / f"{there}-{joining}.h5", folder / "floor"
    probe = prepare(path, there, SAMPLES, VECTORS)
    took, floor, written = [], [], 0
    with without_joining(not joining):
        writer = ArchiveWriter.resume(path, probes=[probe], resumed_from_step=there)
        image = writer._images.of(rows.encode(snapshot(0, SAMPLES, VECTORS), index=0, segment=0))
        for step in range(there, there + appends):
            given, before = snapshot(step, SAMPLES, VECTORS), transferred("wchar")
            took.append(timed(lambda given=given: writer.append(given)))
            written += transferred("wchar") - before
            floor.append(timed(lambda: durable.put(aside, image, workplace=folder)))
    writer.close()
    path.unlink()
    return Row(there, joining, took, written, floor)


def growing(folder: Path, appends: int) -> str:
    """How often a row's bytes are written in a run of so many snapshots, from the first to the closed archive."""
    path, small = folder / f"growing-{appends}.h5", (64, 8)
    before, started = transferred("wchar"), time.perf_counter()
    with ArchiveWriter(path, probes=[ProbeRecord(name="train", fingerprint="sha256:0", count=small[0])]) as writer:
        size = len(writer._images.of(rows.encode(snapshot(0, *small), index=0, segment=0)))
        for step in range(appends):
            writer.append(snapshot(step, *small))
    seconds, written = time.perf_counter() - started, transferred("wchar") - before
    final = path.stat().st_size / appends
    path.unlink()
    share = written / appends
    return (
        f"| {appends:,} | {1000 * seconds / appends:.1f} | {share / 1000:.0f} | {size / 1000:.0f} | "
        f"{final / 1000:.1f} | {(share - size) / final:.1f} |"
    )


def opening(folder: Path, count: int, samples: int, vectors: int, repeats: int = 7) -> list[str]:
    path = folder / "large.h5"
    prepare(path, count, samples, vectors)
    lines = []
    for pages in ("in memory", "dropped"):
        found = []
        for repeat in range(repeats):
            if pages == "dropped":
                drop(path)
            start = transferred("rchar")
            opened: list[object] = []
            open_ms = timed(lambda opened=opened: opened.append(open_archive(path)))
            between = transferred("rchar")
            archive, which = opened[0], (repeat * 1237 + 17) % count
            one_ms = timed(lambda archive=archive, which=which: archive[which])
            found.append((open_ms, between - start, one_ms, transferred("rchar") - between))
            archive.close()
        open_ms, open_bytes, one_ms, one_bytes = (sorted(column) for column in zip(*found, strict=True))
        lines.append(
            f"| {pages} | {median(open_ms):.0f} ({open_ms[0]:.0f} – {open_ms[-1]:.0f}) | {median(open_bytes) / 1e6:.1f}"
            f" | {median(one_ms):.1f} ({one_ms[0]:.1f} – {one_ms[-1]:.1f}) | {median(one_bytes) / 1e6:.2f} |"
        )
    size = path.stat().st_size
    path.unlink()
    head = (
        f"{count:,} snapshots of {samples:,} probe rows with their first {vectors} eigenvectors: {size / 1e9:.2f} GB, "
        f"{size / count / 1e6:.2f} MB a snapshot. Median (fastest – slowest) of {repeats} openings."
    )
    return [head, "", *lines]


def drop(path: Path) -> None:
    """Have the system forget the file's pages."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} threads"


def file_system(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [(len(place), kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return max(inside)[1]


def page(folder: Path, *, appends: int, there: Sequence[int], runs: Sequence[int], large: tuple[int, int, int]) -> str:
    when = time.strftime("%Y-%m-%d")
    software = f"kerneltrack {kerneltrack.__version__}, h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    parts = [
        "# What the archive costs\n",
        f"Made by `make bench` (`tests/bench/archive_cost.py`) on {when}: {machine()}, {file_system(folder)}, {software}.\n",
        "## Appending\n",
        f"A snapshot of {SAMPLES} probe rows with {VECTORS} eigenvectors, appended {appends} times to an archive that has so "
        "many already. *With* joining is what a run meets; *without*, parts stay as they are. The floor is the least "
        "that durability costs: a file of as many bytes as the part has, written, synced and renamed between the appends.\n",
        "| snapshots there | joining | median ms | 99th percentile ms | mean ms | kB written per append | floor ms | "
        "append / floor |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    measured = [appending(folder, n, joining=joining, appends=appends) for n in there for joining in (False, True)]
    parts += [row.line() for row in measured]
    ratio = {j: median(measured[-2 + j].took) / median(measured[j].took) for j in (0, 1)}
    parts += [
        f"\nWith {there[-1]:,} snapshots there the median append takes {ratio[0]:.2f}× (without joining) and "
        f"{ratio[1]:.2f}× (with joining) of what it takes with {there[0]}.\n",
        "## Joining\n",
        "A whole run from its first snapshot to the closed archive, with small snapshots (64 probe rows). A row is written "
        "once as a part, which carries a file's overhead, and then copied into ever larger files; parts join by eights, "
        "and the main file is rewritten when as many rows wait as it has: the copies grow as the logarithm of the run.\n",
        "| snapshots | ms per snapshot | kB written per snapshot | kB of a part | kB per row in the end | copies of a row |",
        "| --- | --- | --- | --- | --- | --- |",
        *(growing(folder, count) for count in runs),
        "\n## Opening\n",
    ]
    head, blank, *lines = opening(folder, *large)
    parts += [
        head,
        blank,
        "| pages of the file | open ms | MB read | one snapshot ms | MB read |",
        "| --- | --- | --- | --- | --- |",
        *lines,
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--appends", type=int, default=500)
    parser.add_argument("--there", type=int, nargs="+", default=THERE)
    parser.add_argument("--runs", type=int, nargs="+", default=RUNS)
    parser.add_argument("--large", type=int, nargs=3, default=LARGE, metavar=("SNAPSHOTS", "SAMPLES", "VECTORS"))
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder by default")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        text = page(
            Path(name), appends=options.appends, there=options.there, runs=options.runs, large=tuple(options.large)
        )
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
