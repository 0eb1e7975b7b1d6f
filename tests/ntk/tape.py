"""A tape for the CPU: the operators below autograd, written down and run again on the same memory, as a CUDA graph would.

Python takes no part in a replay, so a decision that would now be another one is not seen there either.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def place(tensor):
    return tensor.untyped_storage().data_ptr()


class OperatorTape(TorchDispatchMode):
    """Keeps every operator with the tensors that it was given and has made."""

    def __init__(self, device=None):
        super().__init__()
        self._operators, self.replays = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map(named_anew, (args, kwargs or {}))
        result = func(*args, **kwargs)
        self._operators.append((func, args, kwargs, tree_map(named_anew, result)))
        return result

    def record(self, work):
        with self:
            self._left = work()
        return []

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, kept in self._operators:
            given = {place(t) for t in tensors((args, kwargs))}
            for old, new in zip(tensors(kept), tensors(func(*args, **kwargs)), strict=True):
                if place(old) not in given:  # no view, and nothing that was changed in place
                    old.copy_(new)
        return self._left


def named_anew(value):
    """Another name for the same memory: a tensor may be resized or written into a graph later."""
    return value.detach() if isinstance(value, Tensor) else value
