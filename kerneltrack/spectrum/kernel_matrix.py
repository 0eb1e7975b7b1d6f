"""The matrix of a kernel: its blocks, its dtype's rounding, and the checks that it is one. It stays where the kernel lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import KernelError
from kerneltrack.linear_algebra import finite_count, inner, is_numpy, permuted, to_numpy
from kerneltrack.memory_budget import available_bytes

Array = NDArray[np.float64]

#: Where a kernel is solved: "auto" on a CUDA device where it lives there and fits, "kept" wherever it lives, "host" by SciPy.
Place = Literal["auto", "kept", "host"]

#: Spacing of numbers around 1 in the dtypes that networks compute in. NumPy knows no bfloat16 (8 bits of significand).
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}

#: What a solver on a card takes, in float64 copies of the matrix: 4.9 GiB at 10,000 rows and 19 GiB at 20,000 (an H200, cuSOLVER),
#: which is 6.6 and 6.4 of them.
_COPIES = 7


def as_float64(kernel: Any, place: Place = "host", room: int | None = None) -> tuple[Any, float]:
    """The kernel as a finite float64 array, and the spacing of the dtype it came in.

    Args:
        kernel: an array or a tensor.
        place: where it is to be.
        room: bytes that its device has for a solver; None asks the device.
    """
    array = _in_float64(kernel) if _stays(kernel, place, room) else to_numpy(kernel).astype(np.float64, copy=False)
    size = int(np.prod(array.shape))
    if bad := size - finite_count(array):
        raise KernelError(
            "the kernel holds entries that are not finite",
            expected="finite numbers",
            got=f"{bad} of {size} NaN or infinite",
            remedy="Look at the model's outputs and gradients on the probe; training may have diverged.",
        )
    return array, spacing(getattr(kernel, "dtype", None))


def _in_float64(kernel: Any) -> Any:
    return kernel.detach().double()


def _stays(kernel: Any, place: Place, room: int | None) -> bool:
    """Whether the kernel is solved where it lives: another library holds it, and its device has float64 and the memory."""
    if place == "host" or is_numpy(kernel) or not hasattr(kernel, "detach"):
        return False
    # Of the accelerators CUDA's alone (ROCm calls itself that too) is known to solve in float64; Apple's has no float64.
    if place == "auto" and kernel.device.type != "cuda":
        return False
    needed = _COPIES * 8 * _rows(kernel.shape) ** 2
    return needed <= (available_bytes(kernel.device) if room is None else room)


def _rows(shape: Sequence[int]) -> int:
    """Of the largest matrix that is solved by itself: each output's where there is a block of each."""
    return int(shape[0]) * (int(shape[2]) if len(shape) == 4 else 1) if len(shape) else 1


def spacing(dtype: Any) -> float:
    """ε of a dtype of any library; float64's where it is not known."""
    return EPSILON.get(str(dtype).rpartition(".")[2], EPSILON["float64"])


def blocks_of(array: Any) -> list[Any]:
    """The blocks of the block-diagonal kernel matrix: one per output for (N, N, O), else a single one."""
    shape = tuple(array.shape)
    square = len(shape) in (2, 3, 4) and shape[0] == shape[1] >= 1 and (len(shape) < 4 or shape[2] == shape[3])
    if not square or 0 in shape:
        raise KernelError(
            "the shape of the kernel",
            expected="(N, N), (N, N, O) or (N, N, O, O)",
            got=shape,
            remedy="An eigensystem needs the kernel of one set of points with itself.",
        )
    if len(shape) == 2:
        return [array]
    if len(shape) == 3:
        return [array[:, :, output] for output in range(shape[2])]
    return [permuted(array, (0, 2, 1, 3)).reshape(shape[0] * shape[2], shape[1] * shape[3])]


def check_symmetric(blocks: Sequence[Any], epsilon: float) -> float:
    """‖Θ − Θᵀ‖_F/‖Θ‖_F.

    Raises:
        KernelError: it is more than rounding leaves.
    """
    scale = frobenius(blocks)
    asymmetry = frobenius([block - block.T for block in blocks]) / scale if scale else 0.0
    # Rounding leaves a few ε; √ε is far above that and far below any kernel of two different sets of points.
    if asymmetry > epsilon**0.5:
        raise KernelError(
            "the kernel is not symmetric",
            expected=f"‖Θ − Θᵀ‖/‖Θ‖ below {epsilon**0.5:.1e}",
            got=f"{asymmetry:.1e}",
            remedy="An eigensystem needs the kernel of one set of points with itself.",
        )
    return asymmetry


def frobenius(blocks: Sequence[Any]) -> float:
    """‖Θ‖_F of all blocks."""
    return float(np.sqrt(sum(inner(block, block) for block in blocks)))
