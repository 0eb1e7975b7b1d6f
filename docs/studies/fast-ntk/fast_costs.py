"""What a kernel costs by each of our methods: FLOPs that torch counts, and time.

``FlopCounterMode`` counts matrix products, convolutions and attention; elementwise work (the Hadamard product of two Gram
matrices is some) is not in it. Three of its counts are put right here: its formula for the backward pass of a convolution leaves
the groups out of the weights' gradient, which is wrong by their number wherever vmap makes groups of a batch; it does not know
the CPU's attention, nor products that are added in place, as Gram products are. A kernel is computed a few times before it is
counted: the first call of a network checks the network, and calls 1, 2, 4, 8 are audited. The count of the first is kept beside it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_networks import Point
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import kerneltrack as kt

METHODS = ("structured", "jacobian", "products")
#: The call that is counted, the first that is not audited; of products by factors, which begin with the second, the next one.
COUNTED = 3
ROOT = Path(__file__).parents[3]


def convolution_backward(
    gradient: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """As much as the forward pass for the inputs' gradient, and again for the weights': 2 · positions · weights a position."""
    return 2 * math.prod(inputs if transposed else gradient) * math.prod(weight[1:]) * sum(wanted[:2])


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Scores and their product with the values."""
    return sdpa_flop_count(query, key, value)


def attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Scores again, and a product for each of the four gradients."""
    return sdpa_backward_flop_count(gradient, query, key, value)


def added_in_place(_into: Sequence[int], left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    """2 · rows · depth · columns, for each of a batch."""
    return 2 * math.prod(left) * right[-1]


def counted(call: Callable[[], Any]) -> int:
    """The FLOPs of a call, a multiply-add being two."""
    aten = torch.ops.aten
    right = {
        aten.convolution_backward: convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        aten.addmm_: added_in_place,
        aten.baddbmm_: added_in_place,
    }
    with FlopCounterMode(display=False, custom_mapping=right) as counter:
        call()
    return int(counter.get_total_flops())


def forward_flops(point: Point) -> int:
    """FP: one forward pass of one sample. With gradients on: without, torch's encoder layer is a call that is not counted."""
    model, x = point.problem()
    return counted(lambda: model(x[:1]))


def flops(point: Point, method: str, *, symmetric: bool = False) -> dict[str, float]:
    """Counted FLOPs of the kernel of N samples with N others, those of its first call, what the plan said, P and FP.

    With others, because of a ``symmetric`` kernel every method leaves out what is below the diagonal, in blocks.

    ``product`` instead of a method: Θv by an ``NTKOperator`` that has no room for factors, like the first of any, and, as
    ``again``, by one that holds them from the second on.
    """
    model, x = point.problem()
    size = {"parameters": sum(p.numel() for p in model.parameters()), "forward": forward_flops(point)}
    if method == "product":
        v = torch.randn(point.samples * point.outputs)
        passes, factors = kt.NTKOperator(model, x, memory_budget=1), kt.NTKOperator(model, x)
        *_, by_passes = [counted(lambda: passes.matvec(v)) for _ in range(COUNTED)]
        *_, by_factors = [counted(lambda: factors.matvec(v)) for _ in range(COUNTED + 1)]
        return {"flops": by_passes, "again": by_factors, **size}
    others = None if symmetric else point.others()
    planned = kt.ntk_plan(model, x, others, method=method).flops
    first, *_, again = [counted(lambda: kt.empirical_ntk(model, x, others, method=method)) for _ in range(COUNTED)]
    return {"flops": again, "first": first, "planned": planned, **size}


def kernels_agree(point: Point) -> float:
    """Largest difference between the kernels of all methods, in float64, over the largest entry."""
    model, x = point.problem()
    model, x = model.double(), x.double()
    found = [kt.empirical_ntk(model, x, method=method) for method in METHODS]
    return max(float((k - found[0]).abs().max() / found[0].abs().max()) for k in found[1:])


def times(point: Point, method: str, *, repeats: int, limit: float = 4.0) -> dict[str, Any]:
    """Wall seconds of each repeat; no further one once ``limit`` seconds are used; the first counts only if it is alone."""
    model, x = point.problem()
    call = _call(model, x, method)
    taken: list[float] = []
    while len(taken) <= repeats and sum(taken) < limit:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    taken = taken[1:] or taken
    return {"seconds": taken, "median": float(np.median(taken)), "threads": torch.get_num_threads()}


def _call(model: torch.nn.Module, x: Tensor, method: str) -> Callable[[], Any]:
    if method == "product":
        operator = kt.NTKOperator(model, x)
        v = torch.randn(operator.shape[0])
        return lambda: operator.matvec(v)
    return lambda: kt.empirical_ntk(model, x, method=method)


class Ledger:
    """Measurements by key in one JSON file; what is there is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        if key not in self.found:
            self.found[key] = measure()
            draft = self._path.with_suffix(".tmp")
            draft.write_text(json.dumps(self.found, indent=1))
            os.replace(draft, self._path)
        return self.found[key]


def peers(workloads: tuple[str, ...], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """This package beside neural-tangents, by the benchmark's own harness; [] where neural-tangents is not installed.

    BENCH_NEURAL_TANGENTS names the Python that has it, as for ``make bench``.
    """
    script = ROOT / "tests" / "bench" / "run.py"
    command = [
        sys.executable,
        str(script),
        "--workloads",
        ",".join(workloads),
        "--peers",
        "kerneltrack,neural_tangents",
        "--seconds",
        str(seconds),
        "--cache",
        str(folder),
        "--output",
        str(folder / "peers.md"),
    ]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"}, stdout=sys.stderr)
    results = json.loads((folder / "results.json").read_text())
    return [] if "neural_tangents" in results["missing"] else results["rows"]
