"""What a kernel costs by each of our methods: FLOPs that torch counts, the tensors that are held, and time.

``FlopCounterMode`` counts matrix products, convolutions and attention; elementwise work (the Hadamard product of two Gram
matrices is some) is not in it. Three of its counts are put right here: its formula for the backward pass of a convolution leaves
the groups out of the weights' gradient, which is wrong by their number wherever vmap makes groups of a batch; it does not know
the CPU's attention, nor products that are added in place, as Gram products are. A kernel is computed a few times before it is
counted: the first call of a network checks the network, and calls 1, 2, 4, 8 are audited. The count of the first is kept beside it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fast_networks import Point
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import kerneltrack as kt

METHODS = ("structured", "jacobian", "products")
#: The call that is counted, the first that is not audited; of products by factors, which begin with the second, the next one.
COUNTED = 3
#: Processor seconds after which there is no further turn.
LIMIT = 8.0


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


class Held(TorchDispatchMode):
    """The most bytes of tensors that were alive at one time, of those that are made inside; what is there already is not counted.

    Attributes:
        peak: the most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        # By address; a weak reference keeps the address from being used again.
        self._there: dict[int, StorageWeakRef] = {}
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made:
                self._there.setdefault(storage._cdata, StorageWeakRef(storage))
        found = func(*args, **(kwargs or {}))
        for storage in _storages(found):
            if storage._cdata not in self._there and storage._cdata not in self._made:
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self._now += storage.nbytes()
        if self._now > self.peak:  # what is gone is looked for only where it decides
            self._made = {address: kept for address, kept in self._made.items() if not kept[0].expired()}
            self._now = sum(size for _, size in self._made.values())
            self.peak = max(self.peak, self._now)
        return found


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def forward_flops(point: Point) -> int:
    """FP: one forward pass of one sample. With gradients on: without, torch's encoder layer is a call that is not counted."""
    model, x = point.problem()
    return counted(lambda: model(x[:1]))


def cost(point: Point, method: str, *, symmetric: bool = False) -> dict[str, Any]:
    """Counted FLOPs of the kernel of N samples with N others, of its first call, what the plan said, peak bytes, P and FP.

    With others, because of a ``symmetric`` kernel every method leaves out what is below the diagonal, in blocks.

    ``product`` instead of a method: Θv by an ``NTKOperator`` that has no room for factors, like the first of any, and, as
    ``again``, by one that holds them from the second on.
    """
    model, x = point.problem()
    what = {"kind": "cost", "point": dataclasses.asdict(point), "method": method, "symmetric": symmetric}
    size = {"parameters": sum(p.numel() for p in model.parameters()), "forward": forward_flops(point)}
    if method == "product":
        v = torch.randn(point.samples * point.outputs)
        passes, factors = kt.NTKOperator(model, x, memory_budget=1), kt.NTKOperator(model, x)
        *_, by_passes = [counted(lambda: passes.matvec(v)) for _ in range(COUNTED)]
        *_, by_factors = [counted(lambda: factors.matvec(v)) for _ in range(COUNTED + 1)]
        with Held() as held:
            passes.matvec(v)
        return {**what, "flops": by_passes, "again": by_factors, "bytes": held.peak, **size}
    others = None if symmetric else point.others()
    planned = kt.ntk_plan(model, x, others, method=method).flops
    first, *_ = [counted(lambda: kt.empirical_ntk(model, x, others, method=method)) for _ in range(COUNTED - 1)]
    with Held() as held:
        again = counted(lambda: kt.empirical_ntk(model, x, others, method=method))
    return {**what, "flops": again, "first": first, "planned": planned, "bytes": held.peak, **size}


def kernels_agree(point: Point) -> dict[str, Any]:
    """Largest difference between the kernels of all methods, in float64, over the largest entry."""
    model, x = point.problem()
    model, x = model.double(), x.double()
    found = [kt.empirical_ntk(model, x, method=method) for method in METHODS]
    largest = max(float((k - found[0]).abs().max() / found[0].abs().max()) for k in found[1:])
    return {"kind": "agreement", "architecture": point.architecture, "error": largest}


def times(point: Point, methods: Sequence[str], *, turns: int) -> dict[str, Any]:
    """Processor seconds of every method in every turn, one call of each a turn, on one thread; the first turn is not kept.

    In turns, because what else a machine does changes the seconds of a call, and of the calls beside it alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, x = point.problem()
        calls = {method: _call(model, x, method) for method in methods}
        taken: dict[str, list[float]] = {method: [] for method in methods}
        while len(taken[methods[0]]) <= turns and sum(map(sum, taken.values())) < LIMIT:
            for method, call in calls.items():
                start = time.process_time()
                call()
                taken[method].append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    kept = {method: [float(f"{v:.4g}") for v in found[1:] or found] for method, found in taken.items()}
    return {"kind": "times", "point": dataclasses.asdict(point), "seconds": kept}


def _call(model: torch.nn.Module, x: Tensor, method: str) -> Callable[[], Any]:
    if method == "product":
        operator = kt.NTKOperator(model, x)
        v = torch.randn(operator.shape[0])
        return lambda: operator.matvec(v)
    return lambda: kt.empirical_ntk(model, x, method=method)
