"""Every installed peer on every workload, one fresh process at a time; writes docs/benchmarks.md.

    python tests/bench/run.py [--workloads M1,C1] [--peers kerneltrack,torch_func] [--output FILE.md]

This checkout and torch.func run in this interpreter. Another peer runs in the interpreter that an
environment variable names (BENCH_NNGEOMETRY=/path/to/python, BENCH_NEURAL_TANGENTS=…), or in this one where
it is installed here; else it is left out, and the report says so. Weights, inputs and truths are kept under
out/bench/ and reused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path.insert(0, str(HERE))

from peers import PEERS  # noqa: E402
from prepare import prepare  # noqa: E402
from report import write_report  # noqa: E402
from workloads import STANDARD, WORKLOADS  # noqa: E402

MIB = 2**20


def environment(name: str) -> dict[str, str]:
    """This checkout first on the path, and the workload's numbers for a peer without torch."""
    numbers = {key: value for key, value in dataclasses.asdict(WORKLOADS[name]).items() if key != "build"}
    return dict(os.environ, PYTHONPATH=str(ROOT), BENCH_WORKLOAD=json.dumps(numbers), PYTHONWARNINGS="ignore")


def interpreter(peer: str) -> str | None:
    """The Python that has this peer, or None."""
    python = os.environ.get(f"BENCH_{peer.upper()}", sys.executable)
    if peer == "kerneltrack":
        return python
    asked = f"import importlib.metadata as m; m.version({PEERS[peer][0]!r})"
    found = subprocess.run([python, "-c", asked], capture_output=True, check=False)
    return python if found.returncode == 0 else None


def resident_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def watched(command: list[str], name: str, timeout: float, limit: int) -> dict[str, Any]:
    """Run a measurement; kill it when it takes too long or too much memory, and say which."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, env=environment(name), cwd=ROOT)
        reason = ""
        while child.poll() is None and not reason:
            time.sleep(0.1)
            if time.monotonic() - started > timeout:
                reason = f"over {timeout:.0f} s"
            elif resident_of(child.pid) > limit or available() < 512 * MIB:
                reason = f"out of memory (over {limit / 2**30:.0f} GiB)"
        if reason:
            child.kill()
            child.wait()
            return {"failed": reason}
        out.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if lines:
            return json.loads(lines[-1])
        err.seek(0)
        return {"failed": f"exit {child.returncode}", "why": err.read()[-300:]}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default=",".join(STANDARD))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=15.0, help="repeat each until this long")
    parser.add_argument("--timeout", type=float, default=150.0, help="for one process")
    parser.add_argument("--memory", type=float, default=18.0, help="GiB for one process")
    parser.add_argument("--add", action="store_true", help="keep what the last call measured of other workloads")
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    return parser.parse_args()


def keep_others(results: dict[str, Any], given: argparse.Namespace) -> None:
    """What the last call measured of workloads that this one does not run."""
    before = json.loads((given.cache / "results.json").read_text())
    again = given.workloads.split(",")
    results["rows"] += [row for row in before["rows"] if row["workload"] not in again]
    results["rates"] |= {name: rate for name, rate in before["rates"].items() if name not in again}


def main() -> None:
    given = arguments()
    pythons = {peer: interpreter(peer) for peer in given.peers.split(",")}
    script, threads = str(HERE / "measure.py"), ["--threads", str(given.threads), "--device", given.device]
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor(),
        "threads": given.threads,
        "device": given.device,
        "missing": [peer for peer, python in pythons.items() if python is None],
        "rows": [],
        "rates": {},
    }
    if given.add:
        keep_others(results, given)
    for name in given.workloads.split(","):
        if (needed := WORKLOADS[name].needs) and find_spec(needed) is None:
            results["missing"].append(f"{needed}, for {name}")
            continue
        path = str(prepare(name, given.cache))
        command = [sys.executable, script, "yardstick", "-", name, path, *threads]
        results["rates"][name] = watched(command, name, 60, int(given.memory * 2**30)).get("rate", float("nan"))
        for peer, python in pythons.items():
            for method, workloads in PEERS[peer][1].items():
                if python is None or name not in workloads:
                    continue
                command = [python, script, peer, method, name, path, *threads, "--seconds", str(given.seconds)]
                found = watched(command, name, given.timeout, int(given.memory * 2**30))
                results["rows"].append({"workload": name, "peer": peer, "method": method, **found})
                shown = found.get("failed") or f"{sorted(found['times'])[len(found['times']) // 2]:.3f} s"
                print(f"{name:12} {peer:16} {method:16} {shown}", flush=True)
        given.cache.mkdir(parents=True, exist_ok=True)
        (given.cache / "results.json").write_text(json.dumps(results, indent=1))
        write_report(results, given.cache, given.output)


if __name__ == "__main__":
    main()
