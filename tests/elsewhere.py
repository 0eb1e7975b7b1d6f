"""Tensors that are as far away as a card's: NumPy cannot read one unasked, and nothing mixes with it that is not brought there."""

import numpy as np
import torch


class Elsewhere(torch.Tensor):
    """A CPU tensor that refuses what a CUDA tensor refuses: to become a NumPy array behind one's back."""

    def __array__(self, *_, **__):
        raise TypeError("can't convert a tensor that lives elsewhere to numpy: use to_numpy() where it may leave")

    def __array_wrap__(self, *_, **__):
        raise TypeError("a NumPy function was given a tensor that lives elsewhere")


class OutOfMemory(Elsewhere):
    """One whose device has no memory left for a solver."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.linalg.eigh:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.9 GiB.")
        return super().__torch_function__(function, types, args, kwargs or {})


def elsewhere(array, kind=Elsewhere):
    """An array or a tensor as such a tensor, in its own dtype."""
    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    return tensor.as_subclass(kind)
