"""Damage an archive a thousand times and see what a reader makes of it.

    python tests/archive/corruptions.py --count 5000 --seed 0

Every mutation is one flipped bit, one overwritten byte, one stretch of zeros or a truncation (at every structural
offset of the file first: where an HDF5 object begins). Each is read whole in a child process with a limit on memory.
A mutation is *refused* (an ArchiveError), *harmless* (everything reads as before), *fatal* (the library took the child
down or asked for all memory: what isolation is for) or *silent*: read without an error and different. The last must
not happen.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from kerneltrack.archive import ArchiveWriter, open_archive
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot

SIGNATURES = (
    b"OHDR",
    b"OCHK",
    b"FRHP",
    b"FHDB",
    b"BTHD",
    b"BTLF",
    b"EAHD",
    b"EAIB",
    b"EADB",
    b"FAHD",
    b"FADB",
    b"GCOL",
)
MEMORY_BYTES = 2 << 30


def write(path: Path) -> None:
    draw = np.random.default_rng(0)
    probe = ProbeRecord(
        name="train", fingerprint="sha256:0", count=6, targets=draw.normal(size=(6, 1)), settings={"energy_k": [1, 2]}
    )
    provenance = Provenance(run={"run_id": "r", "seed": 3}, metadata={"width": 64}, private={"host": "h"})
    with ArchiveWriter(path, probes=[probe], provenance=provenance) as writer:
        for step in range(10):
            values = {"eigenvalues": -np.sort(-draw.normal(size=6)), "outputs": draw.normal(size=(6, 1))}
            writer.append(Snapshot(step=step, learning_rates=(0.1,), probes={"train": values}))


def write_unprotected(path: Path) -> None:
    """The same archive without checksums on its data: the negative control."""
    checked = h5py.h5d.create

    def bare(group, name, kind, space, dcpl, **options):
        dcpl = dcpl.copy()
        if dcpl.get_nfilters():
            dcpl.remove_filter(h5py.h5z.FILTER_FLETCHER32)
        return checked(group, name, kind, space, dcpl, **options)

    h5py.h5d.create = bare
    try:
        write(path)
    finally:
        h5py.h5d.create = checked


def digest(path: Path) -> str:
    """Everything that a reader can see of an archive, in one number."""
    with open_archive(path) as archive:
        seen = hashlib.sha256(repr((archive.attrs, archive.provenance, archive.segments)).encode())
        seen.update(repr(archive.probes).encode())
        for snapshot in archive:
            seen.update(repr(snapshot).encode())
        for name in sorted(archive.columns):
            values = archive.column(name)
            seen.update(f"{name} {archive.columns[name]}".encode() + values.tobytes())
    return seen.hexdigest()


def mutated(data: bytes, number: int, seed: int) -> bytes:
    """The mutation of that number: truncations at every structural offset, then damage at random."""
    structure = [i for signature in SIGNATURES for i in occurrences(data, signature)]
    if number < len(structure):
        return data[: structure[number]]
    draw = random.Random(f"{seed} {number}")
    changed, where = bytearray(data), draw.randrange(len(data))
    kind = draw.choice(["bit"] * 6 + ["byte", "zeros", "cut"])
    if kind == "bit":
        changed[where] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        changed[where] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif kind == "zeros":
        changed[where : where + 16] = bytes(len(changed[where : where + 16]))
    else:
        del changed[where:]
    return bytes(changed)


def occurrences(data: bytes, signature: bytes) -> list[int]:
    found, start = [], data.find(signature)
    while start >= 0:
        found.append(start)
        start = data.find(signature, start + 1)
    return found


def child(folder: Path, first: int, last: int, seed: int) -> None:
    """Read mutations first … last-1 and print what became of each."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data, expected = (folder / "good.h5").read_bytes(), digest(folder / "good.h5")
    for number in range(first, last):
        path = folder / "mutation.h5"
        path.write_bytes(mutated(data, number, seed))
        started = time.monotonic()
        try:
            outcome = "harmless" if digest(path) == expected else "silent"
        except ArchiveError:
            outcome = "refused"
        sys.stdout.write(json.dumps([number, outcome, time.monotonic() - started]) + "\n")
        sys.stdout.flush()


def run(
    count: int, seed: int, *, protected: bool = True, seconds: float = 60.0, first: int = 0
) -> dict[str, list[int]]:
    """The numbers of the mutations of each outcome, from number ``first`` on."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        (write if protected else write_unprotected)(Path(name) / "good.h5")
        while first < count:
            last = min(first + 500, count)
            command = [sys.executable, __file__, "--child", name, str(first), str(last), "--seed", str(seed)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
            try:
                done = subprocess.run(command, capture_output=True, env=environment, timeout=seconds + 500, check=False)
                output = done.stdout
            except subprocess.TimeoutExpired as expired:
                output = expired.stdout or b""
            lines = [json.loads(line) for line in output.decode().splitlines() if line.endswith("]")]
            for number, outcome, took in lines:
                found["slow" if took > seconds else outcome].append(number)
            first += len(lines)
            if first < last:
                found["fatal"].append(first)
                first += 1
    return dict(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="begin with that number; truncations come first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unprotected", action="store_true", help="without checksums: must find silent mutations")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "FIRST", "LAST"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, first, last = options.child
        child(Path(folder), int(first), int(last), options.seed)
        return 0
    found = run(options.count, options.seed, protected=not options.unprotected, first=options.first)
    print(f"{options.count} mutations, seed {options.seed}:", {name: len(each) for name, each in found.items()})
    for name in ("silent", "fatal", "slow"):
        if found.get(name):
            print(f"{name}: {found[name][:50]}")
    return 1 if found.get("silent") or found.get("slow") else 0


if __name__ == "__main__":
    raise SystemExit(main())
