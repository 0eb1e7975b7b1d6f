"""One measurement in one fresh process: a peer's method on a workload; prints one line of JSON.

    python measure.py PEER METHOD WORKLOAD FILE.npz [--threads 2] [--device cpu] [--seconds 20]

One warm-up call, then repeats until the seconds are used (five at least, three where they take over 10 s; a first call of
over 40 s is the measurement). Peak memory is the high-water mark of resident memory during the calls, less what was resident
before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: A call that takes this long is measured once.
LONG = 40.0
#: Repeats of a call that takes longer than this may be three. Of three calls behind the first, kerneltrack audits two: their
#: median would be that of an audited call.
SLOW = 10.0


def limit_threads(threads: int) -> None:
    """Before anything numerical is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


def resident(key: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def reset_high_water_mark() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def load(name: str, path: str, device: str, with_torch: bool) -> SimpleNamespace:
    """What a peer is given: NumPy arrays, and for the torch peers a model and tensors."""
    import numpy as np

    data = np.load(path)
    problem = SimpleNamespace(
        name=name,
        weights={key[2:]: data[key] for key in data.files if key.startswith("w:")},
        trainable=json.loads(str(data["trainable"])),
        inputs=data["x"],
        vector=data["v"],
        which=data["which"],
        truth=data["truth"],
    )
    if with_torch:
        import torch
        from workloads import WORKLOADS

        problem.workload = WORKLOADS[name]
        model = problem.workload.model()
        model.load_state_dict({key: torch.from_numpy(value) for key, value in problem.weights.items()})
        problem.model = model.to(device)
        problem.x, problem.v = (torch.from_numpy(a).to(device) for a in (problem.inputs, problem.vector))
    else:
        problem.workload = SimpleNamespace(**json.loads(os.environ["BENCH_WORKLOAD"]))
    return problem


def error(kernel: Any, problem: SimpleNamespace) -> float:
    """Largest difference from the truth over the truth's largest entry; of shape and order too."""
    import numpy as np

    n, o, kind = problem.workload.samples, problem.workload.outputs, problem.workload.kind
    expected = {"full": (n, o, n, o), "trace": (n, n), "product": (n, o)}[kind]
    if kernel.shape != expected:
        raise ValueError(f"the kernel has shape {kernel.shape}, not {expected}")
    which = problem.which
    part = kernel[which] if kind == "product" else kernel[which].take(which, axis=2 if kind == "full" else 1)
    return float(np.abs(part.astype(np.float64) - problem.truth).max() / np.abs(problem.truth).max())


def repeat(run: Callable[[], Any], seconds: float) -> tuple[list[float], list[float], Any]:
    """Wall times, processor times (what other jobs on the machine cannot stretch), and the last result."""

    def timed() -> tuple[float, float, Any]:
        wall, busy = time.perf_counter(), time.process_time()
        result = run()
        return time.perf_counter() - wall, time.process_time() - busy, result

    wall, busy, result = timed()
    if wall > LONG:
        return [wall], [busy], result
    walls: list[float] = []
    busies: list[float] = []
    while len(walls) < (3 if walls and walls[0] > SLOW else 5) or (sum(walls) < seconds and len(walls) < 15):
        result = None
        wall, busy, result = timed()
        walls.append(wall)
        busies.append(busy)
    return walls, busies, result


def measure(peer: str, method: str, name: str, path: str, device: str, seconds: float) -> dict[str, Any]:
    from peers import PEERS, make

    problem = load(name, path, device, with_torch=peer != "neural_tangents")
    job = make(peer, method, problem)
    found: dict[str, Any] = {"version": version(PEERS[peer][0]), "note": job.note}
    if job.prepare is not None:
        start = time.perf_counter()
        job.prepare()
        found["compile"] = time.perf_counter() - start
    run = job.run
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()

        def run() -> Any:
            result = job.run()
            torch.cuda.synchronize()
            return result

    reset_high_water_mark()
    before = resident("VmRSS")
    found["times"], found["busy"], kernel = repeat(run, seconds)
    found["memory"] = resident("VmHWM") - before
    if device != "cpu":
        found["memory"] = torch.cuda.max_memory_allocated()
    found["error"] = error(job.canonical(kernel), problem)
    return found


def matmul_rate(device: str) -> float:
    """FLOP/s of a square float32 matrix product: the yardstick of the run."""
    import torch

    a = torch.randn(4096, 4096, device=device)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        _ = a @ a
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * 4096**3 / sorted(times[1:])[2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer"), parser.add_argument("method"), parser.add_argument("workload")
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    limit_threads(given.threads)
    sys.path.insert(0, str(Path(__file__).parent))
    if given.peer == "yardstick":
        print(json.dumps({"rate": matmul_rate(given.device)}))
        return
    try:
        found = measure(given.peer, given.method, given.workload, given.file, given.device, given.seconds)
    except Exception as problem:  # noqa: BLE001 -- whatever a peer raises is its result, and is printed in the table
        text = f"{type(problem).__name__}: {problem}"
        memory = any(word in text for word in ("allocate", "RESOURCE_EXHAUSTED", "out of memory"))
        found = {
            "failed": "out of memory" if memory else "error",
            "why": text[:300],
            "trace": traceback.format_exc()[-2000:],
        }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
