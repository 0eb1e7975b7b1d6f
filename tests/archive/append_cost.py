"""What appending costs, by how much is there already; prints a markdown table.

    python tests/archive/append_cost.py                    # 1, 100 and 10,000 snapshots of 300 probe rows, top 16
    python tests/archive/append_cost.py --samples 2000 --vectors 64 --large    # 5 GB: opening and reading one snapshot

"With joining" times every append as a run would meet it; "without" leaves all parts as they are. Bytes are what the
process handed to write calls, per append.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from kerneltrack.archive import ArchiveWriter, layout, open_archive, rows
from kerneltrack.archive.spool import Spool
from kerneltrack.snapshot import ProbeRecord, Snapshot


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
    """An archive with so many rows, written in bulk: the same measurement under other steps."""
    probe = ProbeRecord(name="train", fingerprint="sha256:0", count=samples)
    with ArchiveWriter(path, probes=[probe]) as writer:
        writer.append(snapshot(0, samples, vectors))
    with h5py.File(path, "r+", libver=layout.LIBVER) as file:
        first = {name: row[1] for name, row in rows.encode(snapshot(0, samples, vectors), index=0, segment=0).items()}
        changing = {"snapshot": np.arange(count), "step": np.arange(count)}
        changing["snapshot_id"] = np.random.default_rng(0).integers(0, 256, (count, 16), dtype="u1")
        digests = []
        for index in range(count):
            row = first | {name: values[index] for name, values in changing.items()}
            digests.append(rows.digest(row))
        changing["content_sha256"] = np.array(digests)
        for name, value in first.items():
            data = file[name]
            data.resize(count, axis=0)
            for start in range(0, count, 256):
                stop = min(start + 256, count)
                many = np.broadcast_to(value, (stop - start, *np.shape(value)))
                data[start:stop] = changing[name][start:stop] if name in changing else many
    return probe


def written() -> int:
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def measure(path: Path, probe: ProbeRecord, first: int, appends: int, vectors: int) -> tuple[float, float, float]:
    """Median and 99th percentile in milliseconds, and kilobytes per append."""
    writer = ArchiveWriter.resume(path, probes=[probe], resumed_from_step=first)
    took, before = [], written()
    for step in range(first, first + appends):
        given = snapshot(step, probe.count, vectors)
        started = time.perf_counter()
        writer.append(given)
        took.append(1000 * (time.perf_counter() - started))
    kilobytes = (written() - before) / appends / 1000
    writer.close()
    return float(np.median(took)), float(np.percentile(took, 99)), kilobytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--vectors", type=int, default=16)
    parser.add_argument("--appends", type=int, default=200)
    parser.add_argument("--there", type=int, nargs="+", default=[1, 100, 10_000])
    parser.add_argument("--large", action="store_true", help="only open the largest and read one snapshot")
    parser.add_argument("--folder", help="where to write; the system's temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.large:
            opening(Path(name) / "large.h5", max(options.there), options.samples, options.vectors)
            return
        print(f"Appending a snapshot of {options.samples} samples, top {options.vectors}, {options.appends} times:\n")
        print("| snapshots there | joining | median ms | 99th percentile ms | kB written per append |")
        print("| --- | --- | --- | --- | --- |")
        tidy = Spool.tidy
        for count in options.there:
            for joining in (False, True):
                path = Path(name) / f"{count}-{joining}.h5"
                probe = prepare(path, count, options.samples, options.vectors)
                Spool.tidy = tidy if joining else (lambda self, header: None)
                median, percentile, size = measure(path, probe, count, options.appends, options.vectors)
                print(
                    f"| {count} | {'with' if joining else 'without'} | {median:.1f} | {percentile:.1f} | {size:.0f} |",
                    flush=True,
                )
                path.unlink()
        print()
        opening(Path(name) / "large.h5", max(options.there), options.samples, options.vectors)


def opening(path: Path, count: int, samples: int, vectors: int) -> None:
    prepare(path, count, samples, vectors)
    started = time.perf_counter()
    archive = open_archive(path)
    opened = time.perf_counter()
    archive[count // 2]
    done = time.perf_counter()
    print(
        f"{count} snapshots of {samples} samples, top {vectors} ({path.stat().st_size / 1e9:.2f} GB): "
        f"opened in {1000 * (opened - started):.0f} ms, one snapshot read in {1000 * (done - opened):.1f} ms"
    )


if __name__ == "__main__":
    main()
