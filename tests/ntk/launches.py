"""What one call makes the device do: operations that are neither views nor allocations, and numbers that the host reads.

A launch is a property of the program, not of the card: a dispatch mode sees below autograd and torch.func, so it counts on
a CPU what an accelerator would be asked for. An operator that starts several kernels counts once; a fill counts, because it
is a kernel. What only gives a new name, shape or memory to numbers does not.
"""

from collections import Counter

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


def launches(run):
    """Operators that one call launches, by name."""
    with Launches() as mode:
        run()
    return +mode.counted
