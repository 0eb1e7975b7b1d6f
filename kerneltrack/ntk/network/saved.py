"""What autograd saves of one forward pass for the backward one, in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

#: What is saved of a forward pass that cannot be watched, as a multiple of inputs and parameters together.
_UNWATCHED = 16


def saved_bytes(
    evaluate: Callable[[], Tensor], parameters: Iterable[Tensor], given: Iterable[Tensor]
) -> tuple[Tensor, int]:
    """The outputs of ``evaluate``, and what stays for the backward pass: storages once, those of parameters left out.

    Args:
        evaluate: the forward pass.
        parameters: of the module.
        given: what the pass is run with, samples and leaves, for a bound where it cannot be watched.
    """
    seen: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in parameters}

    def note(tensor: Tensor) -> Tensor:
        if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = 0 if storage.data_ptr() in own else storage.nbytes()
        return tensor

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            return evaluate(), sum(seen.values())
    except RuntimeError:  # torch.func transforms inside the model do not admit the hooks
        with torch.enable_grad():
            return evaluate(), _UNWATCHED * total_bytes(given)


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of dense tensors together."""
    return sum(t.numel() * t.element_size() for t in tensors)
