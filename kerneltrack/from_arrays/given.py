"""Given: the arrays of one state, checked, and as the observables take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import Gauge, GaugeChoice, helmert
from kerneltrack.errors import KernelError, ObservableError, ProbeError
from kerneltrack.snapshot import TargetEncoding
from kerneltrack.spectrum import EPSILON

Array = NDArray[np.float64]
ArrayOutput = Literal["auto", "full", "diagonal", "trace", "sum"]
ArrayReduction = Literal["full", "diagonal", "trace", "sum"]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was handed over of one state.

    Attributes:
        kernel: Θ as it came, in its own dtype.
        outputs: f (N, O) float64.
        targets: y (N, O) float64, one-hot for classes, or None.
        encoding: how the targets came.
        dtypes: names of the dtypes of outputs and kernel.
    """

    kernel: NDArray[Any]
    outputs: Array
    targets: Array | None
    encoding: TargetEncoding
    dtypes: tuple[str, str]

    @classmethod
    def of(cls, kernel: Any, outputs: Any, targets: Any | None) -> Given:
        """The arrays, checked.

        Raises:
            ProbeError: outputs or targets of another shape, not real, or not finite.
            KernelError: a kernel of another shape, or not real. (Symmetry and finite entries are the eigensystem's check.)
        """
        f = _array(outputs, "outputs")
        if f.ndim not in (1, 2) or not f.size:
            raise ProbeError("outputs", expected="shape (N, O), or (N,) of one output", got=f.shape)
        numbers = _finite(f.reshape(len(f), -1).astype(np.float64), "outputs")
        theta = _array(kernel, "the kernel", KernelError)
        _check_shape(theta, *numbers.shape)
        y, encoding = _targets(targets, *numbers.shape)
        return cls(kernel=theta, outputs=numbers, targets=y, encoding=encoding, dtypes=(f.dtype.name, theta.dtype.name))

    @property
    def coarsest(self) -> str:
        """The dtype of the largest spacing: outputs are no finer than what they were computed with."""
        return max(self.dtypes, key=lambda name: EPSILON.get(name, 0.0))

    @property
    def whole(self) -> Array | None:
        """Θ (N, N, O, O) float64 over every pair of outputs; None where what came is a part of it or a sum."""
        if (self.kernel.ndim == 2 and self.outputs.shape[1] > 1) or self.kernel.ndim == 3:
            return None
        count, width = self.outputs.shape
        return np.asarray(self.kernel.reshape(count, count, width, width), dtype=np.float64)

    def reduction(self, output: ArrayOutput) -> ArrayReduction:
        """Which reduction of the outputs the measured kernel is.

        Raises:
            KernelError: one that the kernel's shape does not hold.
        """
        if output not in get_args(ArrayOutput):
            raise KernelError("output", expected=f"one of {', '.join(get_args(ArrayOutput))}", got=repr(output))
        axes, width = self.kernel.ndim, self.outputs.shape[1]
        of_axes: dict[int, tuple[ArrayReduction, ...]] = {
            2: ("full", "trace", "sum", "diagonal") if width == 1 else ("trace", "sum"),
            3: ("diagonal", "trace"),
            4: ("full", "diagonal", "trace", "sum"),
        }
        if output == "auto":
            return of_axes[axes][0]
        if output not in of_axes[axes]:
            raise KernelError(
                f"output={output!r}",
                expected=f"one of {', '.join(of_axes[axes])}",
                got=f"a kernel of shape {self.kernel.shape} beside outputs {self.outputs.shape}",
                remedy="Give the kernel of every pair of outputs, (N, N, O, O): it holds all reductions.",
            )
        return output

    def gauge(self, choice: GaugeChoice, loss: str | None, reduction: str) -> Gauge:
        """The gauge: "auto" is "softmax" where the loss is a cross-entropy and the kernel of all pairs of outputs is there.

        Raises:
            ObservableError: "softmax" where that kernel is not there, or there is one output, or of the sum of them.
        """
        if choice not in get_args(GaugeChoice):
            raise ObservableError("gauge", expected=f"one of {', '.join(get_args(GaugeChoice))}", got=repr(choice))
        possible = self.whole is not None and self.outputs.shape[1] > 1 and reduction != "sum"
        if choice == "auto":
            return "softmax" if loss == "cross_entropy" and possible else "raw"
        if choice == "softmax" and not possible:
            raise ObservableError(
                'gauge="softmax"',
                expected="the kernel (N, N, O, O) of every pair of several outputs, of which no sum is taken",
                got=f"shape {self.kernel.shape}, output={reduction!r}",
                remedy='Give that kernel, or say gauge="raw".',
            )
        return choice

    def measured(self, gauge: Gauge, reduction: ArrayReduction) -> NDArray[Any]:
        """The kernel in that gauge and reduction; what came, untouched, where that is what it is."""
        theta, axes = self.kernel, {"full": 4, "diagonal": 3, "trace": 2, "sum": 2}[reduction]
        if gauge == "raw" and (theta.ndim == axes or self.outputs.shape[1] == 1):
            return theta
        if gauge == "softmax":
            theta = _between(theta, helmert(theta.shape[2]))
            if reduction == "diagonal":
                theta = _between(theta, helmert(theta.shape[2] + 1).T)
        if reduction == "full":
            return theta
        if reduction == "sum":
            return np.asarray(theta.sum(axis=(2, 3)))
        diagonal = theta if theta.ndim == 3 else np.einsum("nmoo->nmo", theta)
        return np.ascontiguousarray(diagonal) if reduction == "diagonal" else np.asarray(diagonal.sum(axis=2))


def _between(theta: NDArray[Any], basis: Array) -> NDArray[Any]:
    """BᵀΘB in the dtype of Θ, whose rounding it has."""
    turned = np.einsum("oq,nmop,pr->nmqr", basis, theta.astype(np.float64), basis, optimize=True)
    return np.asarray(turned.astype(theta.dtype))


def leaves(inputs: Any) -> Mapping[str, NDArray[Any]]:
    """Input arrays by key, "" for a single one.

    Raises:
        ProbeError: something else than numbers.
    """
    if inputs is None:
        return {}
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    return {str(key): np.ascontiguousarray(_array(leaf, f"inputs {key}".strip())) for key, leaf in named.items()}


def _array(value: Any, what: str, error: type[KernelError | ProbeError] = ProbeError) -> NDArray[Any]:
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("complex")
        array.ravel()[:1].astype(np.float64)  # of a dtype that NumPy has from another library too
    except (TypeError, ValueError, RuntimeError) as cause:
        raise error(
            what,
            expected="an array of real numbers, or what numpy.asarray makes one of",
            got=f"{type(value).__name__} ({cause})",
            remedy="Of a tensor that requires grad or lives on a device, give tensor.detach().cpu().",
        ) from cause
    return (
        array.astype(np.float64) if array.dtype.kind in "iub" and what != "targets" and "inputs" not in what else array
    )


def _finite(array: Array, what: str) -> Array:
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        raise ProbeError(
            what,
            expected="finite numbers",
            got=f"{bad} of {array.size} NaN or infinite",
            remedy="Training may have diverged: leave this state out, or look at it.",
        )
    return array


def _targets(targets: Any | None, count: int, width: int) -> tuple[Array | None, TargetEncoding]:
    if targets is None:
        return None, "none"
    y = _array(targets, "targets")
    if y.dtype.kind in "iub" and y.ndim == 1:
        return _one_hot(y, count, width), "one-hot"
    if y.shape not in ((count, width), (count,) if width == 1 else (count, width)):
        raise ProbeError(
            "targets",
            expected=f"shape ({count}, {width}) as the outputs, or integer classes ({count},)",
            got=f"{y.dtype.name} {y.shape}",
        )
    return _finite(y.reshape(count, width).astype(np.float64), "targets"), "real"


def _one_hot(classes: NDArray[Any], count: int, width: int) -> Array:
    low, high = (int(classes.min()), int(classes.max())) if classes.size else (0, 0)
    if classes.shape != (count,) or width == 1 or low < 0 or high >= width:
        raise ProbeError(
            "integer targets",
            expected=f"shape ({count},), classes from 0 to {width - 1}",
            got=f"shape {classes.shape}, classes from {low} to {high}",
            remedy="Give real-valued targets as floats; classes need one output each.",
        )
    return np.asarray(np.eye(width)[classes.astype(np.intp)])


def _check_shape(kernel: NDArray[Any], count: int, width: int) -> None:
    allowed = ((count, count), (count, count, width), (count, count, width, width))
    if kernel.shape in allowed:
        return
    remedy = "Its axes are (n, m, o, p): Θ[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ · ∂f_p(x_m)/∂θ, of the points of `outputs`."
    if kernel.shape == (count * width, count * width):
        remedy = "A matrix with rows (n, o) becomes one by kernel.reshape(N, O, N, O).transpose(0, 2, 1, 3)."
    raise KernelError(
        "the shape of the kernel",
        expected=f"{allowed[2]} (every pair of outputs), {allowed[1]} (same output), or {allowed[0]} "
        + ("(one output)" if width == 1 else "(trace or sum of them)"),
        got=kernel.shape,
        where=f"outputs of shape ({count}, {width})",
        remedy=remedy,
    )
