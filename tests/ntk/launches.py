"""What one call makes the device do: operations that are neither views nor allocations, and numbers that the host reads.

A launch is a property of the program, not of the card: a dispatch mode sees below autograd and torch.func, so it counts on
a CPU what an accelerator would be asked for. An operator that starts several kernels counts once; a fill counts, because it
is a kernel. What only gives a new name, shape or memory to numbers does not.

    python -m tests.ntk.launches [M1,C1,…]      the table at the benchmarks' own sizes (minutes)
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

#: Operators that give another shape, or another name, to memory that is there.
VIEWS = frozenset(
    (
        "alias",
        "as_strided",
        "chunk",
        "detach",
        "diagonal",
        "expand",
        "expand_as",
        "flatten",
        "lift_fresh",
        "movedim",
        "narrow",
        "permute",
        "real",
        "reshape",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "swapaxes",
        "t",
        "transpose",
        "unbind",
        "unflatten",
        "unfold",
        "unsqueeze",
        "view",
        "view_as",
        "view_as_real",
        "view_as_complex",
        "_conj",
        "_neg_view",
        "_reshape_alias",
        "_unsafe_view",
    )
)
#: Operators that reserve memory and write nothing into it.
ALLOCATIONS = frozenset(("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"))
#: Questions about types and sizes, answered without a look at numbers.
QUESTIONS = frozenset(("promote_types", "result_type", "is_same_size", "sym_size", "sym_stride", "sym_numel"))
UNCOUNTED = VIEWS | ALLOCATIONS | QUESTIONS


class Launches(TorchDispatchMode):
    """Counts the operators that are launched, by name."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.counted[name] += name not in UNCOUNTED
        return func(*args, **(kwargs or {}))


#: Of a warm call at the benchmarks' sizes: what the engine was to reach, and what a sketch without norms, embeddings and checks
#: takes.
GOALS = {"M1": 120, "M2": 150, "C1": 200, "D1": 500, "T1": 800, "L1": 500, "C2": 1000}
SKETCH = {"M1": 33, "M2": 59, "C1": 74, "D1": 283, "T1": 500, "L1": 240, "C2": 638}
#: M2 is counted at the size of the study; no other size is changed for the table.
SAMPLES = {"M2": 10_000}


def launches(run):
    """Operators that one call launches, by name."""
    with Launches() as mode:
        run()
    return +mode.counted


def workload(name, samples=None):
    """A benchmark's network, its samples, and which kernel of it."""
    folder = str(Path(__file__).parents[1] / "bench")
    sys.path.insert(0, folder)
    try:
        from workloads import WORKLOADS
    finally:
        sys.path.remove(folder)
    work = WORKLOADS[name] if samples is None else replace(WORKLOADS[name], samples=samples)
    return work.model(), work.inputs(), work.kind


def warm_call(name, samples=None):
    """The third call of a benchmark, after two; a call is audited on calls 1, 2, 4, 8, … of a plan, so this one is not."""
    import kerneltrack as kt

    model, x, kind = workload(name, samples)

    def call():
        return kt.empirical_ntk(model, x, output=kind)

    call()
    call()
    return call


def main(names):
    """Prints the table."""
    from kerneltrack.ntk.machine import Machine, use

    print("| workload | launches of a warm call | goal | sketch |\n| --- | --- | --- | --- |")
    for name in names:
        with use(replace(Machine.accelerator(memory=80e9), recorded_bytes=0)):
            found = launches(warm_call(name, SAMPLES.get(name)))
        print(f"| {name} | {found.total()} | {GOALS[name]} | {SKETCH[name]} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1].split(",") if len(sys.argv) > 1 else list(GOALS))
