"""Two checkouts side by side, in turn, on the same work: did a change of the engine cost time or memory?

    python tests/bench/compare.py OLD NEW [--workloads M1,C1,T1,D1,V0] [--pairs 5] [--seconds 3]

OLD and NEW are roots of checkouts. Each measurement is a fresh process that makes one first call and then repeats until
its seconds are used; its time is the median of the warm calls, its memory the high-water mark of resident memory over
what was resident before. A pair is one measurement of each, the order changed from pair to pair, so that what else the
machine does meets both alike. The last column is what decides: the median of the ratios, pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import limit_threads, repeat, reset_high_water_mark, resident  # noqa: E402

WORKLOADS = ("M1", "C1", "T1", "D1", "V0")


def measure(name: str, seconds: float) -> dict[str, float]:
    """One workload with the kerneltrack that this process imports."""
    from workloads import WORKLOADS as known

    import kerneltrack

    work = known[name]
    model, x, v = work.model(), work.inputs(), work.vector().reshape(-1)
    if work.kind == "product":
        operator = kerneltrack.NTKOperator(model, x)

        def run() -> Any:
            return operator.matvec(v)
    else:

        def run() -> Any:
            return kerneltrack.empirical_ntk(model, x, output=work.kind)

    reset_high_water_mark()
    before, began = resident("VmRSS"), time.perf_counter()
    run()
    first = time.perf_counter() - began
    times, _, _ = repeat(run, seconds)
    return {"time": statistics.median(times), "first": first, "memory": resident("VmHWM") - before}


def measured(root: Path, name: str, seconds: float, threads: int) -> dict[str, float]:
    """The same in a fresh process, in which ``root`` comes first on the path."""
    call = [sys.executable, __file__, "--measure", name, "--seconds", str(seconds), "--threads", str(threads)]
    environment = dict(os.environ, PYTHONPATH=str(root), PYTHONWARNINGS="ignore")
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{root} on {name}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if Path(found.pop("root")) != root:
        sys.exit(f"{root} was asked for, and another checkout was imported")
    return found


def row(name: str, pairs: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    """One line of the table: medians, and every pair's ratio beside their median."""
    ratios = [new["time"] / old["time"] for old, new in pairs]
    old, new = (
        {key: statistics.median(one[key] for one in side) for key in side[0]} for side in zip(*pairs, strict=True)
    )
    return (
        f"{name:4} {1e3 * old['time']:9.2f} {1e3 * new['time']:9.2f}  {old['memory'] / 2**20:8.0f} {new['memory'] / 2**20:8.0f}"
        f"  {1e3 * old['first']:8.0f} {1e3 * new['first']:8.0f}  {' '.join(f'{r:5.2f}' for r in ratios)}"
        f"  {statistics.median(ratios):6.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("roots", nargs="*", type=lambda text: Path(text).resolve(), metavar="OLD NEW")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--measure", metavar="WORKLOAD", help="measure one workload here and print it (for the script itself)"
    )
    given = parser.parse_args()
    if given.measure:
        limit_threads(given.threads)
        found = measure(given.measure, given.seconds)
        import kerneltrack

        print(json.dumps({**found, "root": str(Path(kerneltrack.__file__).parents[1])}))
        return
    if len(given.roots) != 2:
        parser.error("give two checkouts: OLD NEW")
    print("      old ms    new ms   old MiB  new MiB  first ms      new  new/old, pair by pair, and their median")
    for name in given.workloads.split(","):
        pairs = []
        for number in range(given.pairs):
            order = given.roots if number % 2 == 0 else given.roots[::-1]
            found = {root: measured(root, name, given.seconds, given.threads) for root in order}
            pairs.append((found[given.roots[0]], found[given.roots[1]]))
        print(row(name, pairs), flush=True)


if __name__ == "__main__":
    main()
