"""Residence: whether what has N² numbers stays where the kernel was computed, or goes to the CPU as NumPy's.

On a card the products of the observables take milliseconds, and on the way to the host a kernel of 10,000 rows takes as long as
its eigensystem. A run compares its states with up to three earlier ones, which stay there too, beside the training: where all of
them would take more than a tenth of the card they are kept on the host, and the observables are computed there.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from kerneltrack.observables import Need
from kerneltrack.spectrum import Place

#: States that a run holds at once: this one, the first, the last one and the one at the lag.
STATES = 4
#: Fields of a state that are as large as the kernel.
_AS_LARGE = {"cross_time", "optimizer_kernel", "conjugate"}
#: Of all the memory of a device.
SHARE = 10


def stays(kernel: Tensor | None, *, rows: int, wanted: Collection[Need], place: Place, layers: int = 0) -> bool:
    """Whether kernels and eigenvectors stay where the kernel is.

    Args:
        kernel: Θ in its reduced shape; None where none was formed, and nothing stays.
        rows: M, of its matrix.
        wanted: what a state is to hold; some of it has N² numbers too.
        layers: how many kernels of layers were computed.
        place: "host": no; "kept": yes; "auto": where that is a CUDA device with the memory for it.
    """
    if kernel is None or place == "host":
        return False
    if place == "kept":
        return True
    if kernel.device.type != "cuda":
        return False
    fields = {need.field for need in wanted}
    kernels = 1 + len(fields & _AS_LARGE) + (layers if "layer_kernels" in fields else 0)
    held = 8 * (kernels * kernel.numel() + rows**2) * STATES
    return held * SHARE <= torch.cuda.get_device_properties(kernel.device).total_memory
