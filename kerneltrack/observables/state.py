"""State and Update: what was measured on one probe at one moment, and what the update that leaves it did.

Float64 throughout: NumPy's, but that what has N² numbers, kernels and eigenvectors, may live on the device that computed it.
φ stands for any function on the probe, shape (N, O) (:mod:`.functions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import Gauge, by_output
from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, is_numpy, permuted, to_numpy
from kerneltrack.observables.functions import check_targets, keep, project
from kerneltrack.observables.kernel_sums import KernelSums
from kerneltrack.regression import Laplace
from kerneltrack.snapshot import Reduction
from kerneltrack.spectrum import EPSILON, EigenSystem, KernelEstimates

Array = NDArray[np.float64]
Shared = TypeVar("Shared")
#: What a state knows of other moments.
_PAST = ("initial", "previous", "lagged", "update")


@dataclass(frozen=True, kw_only=True)
class Update:
    """What update t did on the probe, known only after it.

    Attributes:
        output_change: (N, O) f_{t+1} − f_t.
        linear_change: (N, O) J_t (θ_{t+1} − θ_t), the real step through the linearised network.
        kernel_change: (N, O) −g J_t P_t J_tᵀ m_t / N, what kernel gradient flow on the probe's loss would do, g the gain of
            the optimizer's momentum; None if unknown.
        layer_linear_changes: by layer, (N, O) J_t^l Δθ^l; they add up to ``linear_change``. None if unknown.
        layer_kernel_changes: by layer, (N, O) −g J_t^l P_t (J_t^l)ᵀ m_t / N; they add up to ``kernel_change``.
        slope: gᵀu of the update u, g the gradient of the loss on the probe; None if unknown.
        bend: uᵀHu, H the Hessian of that loss; None if unknown.
        batch_slope: gᵀu of the loss on the batch that the update was made from; None if unknown.
        batch_bend: uᵀHu of that loss; None if unknown.
        epsilon: spacing of the coarsest arithmetic that ``output_change`` was computed in; None: as the state says.
        unresolved: why it could not be computed in float64, where rounding decides what linear models miss of it; else "".
    """

    output_change: Array
    linear_change: Array
    kernel_change: Array | None = None
    layer_linear_changes: Mapping[str, Array] | None = None
    layer_kernel_changes: Mapping[str, Array] | None = None
    slope: float | None = None
    bend: float | None = None
    batch_slope: float | None = None
    batch_bend: float | None = None
    epsilon: float | None = None
    unresolved: str = ""

    def __post_init__(self) -> None:
        shape = np.shape(self.output_change)
        for name in ("output_change", "linear_change", "kernel_change"):
            keep(self, name, shape)
        for name in ("layer_linear_changes", "layer_kernel_changes"):
            if any(np.shape(change) != shape for change in (getattr(self, name) or {}).values()):
                raise ObservableError(f"the shapes of {name}", expected=f"(N, O) = {shape} for every layer")


@dataclass(frozen=True, kw_only=True)
class EdgeMode:
    """How much the parameters go to and fro along the top eigenvector of the Hessian, where that is at the edge of stability.

    Attributes:
        seen: ⟨u, δ⟩², δ = (2θ_{t−1} − θ_t − θ_{t−2})/4.
        balance: 2⟨−∇L, ∇λ_1⟩/‖∇λ_1‖² at the three states' mean, 0 where the loss leads to smaller λ_1 by itself.
    """

    seen: float
    balance: float


@dataclass(frozen=True, kw_only=True)
class State:
    """What was measured on one probe at one moment θ_t, before update t.

    Attributes:
        eigensystem: of the kernel matrix (M×M).
        outputs: (N, O) f_t; with a callable reduction g, g(f_t) (N, K), and every function below in that space too. In the
            gauge "softmax" every function is the one that :func:`kerneltrack.conventions.measured` makes of it, f_tB (N, O − 1).
        kernel: the kernel in its reduced shape, (N, N), (N, N, O) or (N, N, O, O); None where it was never formed.
        reduction: which reduction of the outputs the kernel is.
        gauge: "raw", or "softmax" where kernel and functions are without what softmax does not see.
        targets: (N, O) as they are aligned against (one-hot for classes), or None.
        given_targets: (N, O) the same before a gauge took anything off; None: they are ``targets``.
        residual: (N, O) m_t = N ∂L/∂f; f − y where no loss is known; None without targets.
        probe_loss: L on the probe; NaN where no loss is known.
        learning_rates: one per parameter group, in the update that leaves this state.
        stability: ρ_t, from the operator; None where it was not computed.
        stability_halves: its mean over two disjoint halves of the probe.
        sharpness: λ_1(S^½ J Jᵀ S^½), S = ∇²_f L; None where it was not computed.
        hessian_sharpness: λ_1(∇²L) of the loss on the probe; None where it was not computed.
        hessian_ratio: λ_1(P^½ ∇²L P^½)/c; None where it was not computed.
        batch_curvatures: (B,) gᵀHg/‖g‖² of each of B training batches, NaN where g is zero; None where there are none.
        batch_ratios: (B,) (Pg)ᵀH(Pg)/(c gᵀPg) of the same batches.
        layer_traces: trace of each layer's kernel, by layer, in the order of the parameter table.
        initial: the state at initialisation (for the first snapshot: :meth:`as_initial`); None where it is unknown.
        previous: the state of the snapshot before this one.
        lagged: the state ``lag`` updates before this one; None where none was measured.
        update: what the update that leaves this state did, once it is known.
        layer_kernels: the kernel of each layer's parameters, in the reduced shape, by layer; they add up to the kernel.
        activations: a_l (N, m) of the hidden layers on the probe, by layer: what the layer's module returns.
        gates: (N, m) what a nonlinearity is given of it, by layer; layers whose results go elsewhere have none.
        conjugate: (N, N) φφᵀ of the inputs φ of the linear readout.
        readout_parameters: "weight", "bias" or both: what of that readout the kernel is of.
        cross_time: J_t J_0ᵀ in the reduced shape of the kernel.
        jacobian_difference: ‖J_t − J_0‖₂ by products, where the Gram matrices may not tell it; else NaN.
        parameter_distance: ‖θ_t − θ_0‖₂ over the trainable parameters.
        layer_distances: the same of each layer's parameters, by layer.
        layer_weights: (4,) ‖W_0‖₂, ‖W_t‖₂, ‖W_t − W_0‖₂ and √(n_out/n_in) of each layer's matrix, NaN where there is none.
        anchored_outputs: (N, O) f_0 + J_0 (θ_t − θ_0), the network linearised at initialisation.
        extension: (M, k) Θ_t(this probe, other probe) V, the other probe's first eigenvectors carried over here.
        regression: (N, O) the prediction on this probe of regression with Θ_t on another probe's data.
        logistic: (N, O) the prediction on this probe of logistic regression with Θ_t on another probe's data.
        optimizer_kernel: J P_t Jᵀ in the reduced shape of the kernel.
        training_outputs: (N, O) the outputs in training mode, where that differs from the measured one.
        laplace: linearised Laplace of another probe's data at this one's points.
        estimates: what random products tell of the kernel's size.
        edge_mode: how much the one mode at the edge of stability swings, and should; None where there is no such.
        settings: ``loss`` (its name), ``dtype`` of the model's outputs ("float32" unless said), ``layers`` (names in
            the order of the parameter table), ``step``, ``readout`` (the layer whose output is f), ``computed_in`` (the
            coarsest dtype on the way to f, where that is not the outputs' own), ``lag`` (Δ, updates between the run's first
            two states of this probe), ``in_training`` ("yes", "no", "unknown": whether the probe's points are trained on),
            ``optimizers`` (class and groups of each, see :mod:`kerneltrack.conventions`), ``of_every_parameter`` (whether the
            kernel is of all that train), and whatever else the caller knows.
    """

    eigensystem: EigenSystem
    outputs: Array
    kernel: Array | None = None
    reduction: Reduction = "full"
    gauge: Gauge = "raw"
    targets: Array | None = None
    given_targets: Array | None = None
    residual: Array | None = None
    probe_loss: float = float("nan")
    learning_rates: tuple[float, ...] = ()
    stability: float | None = None
    stability_halves: float | None = None
    sharpness: float | None = None
    hessian_sharpness: float | None = None
    hessian_ratio: float | None = None
    batch_curvatures: Array | None = None
    batch_ratios: Array | None = None
    layer_traces: Mapping[str, float] | None = None
    initial: State | None = None
    previous: State | None = None
    lagged: State | None = None
    update: Update | None = None
    layer_kernels: Mapping[str, Array] | None = None
    activations: Mapping[str, Array] | None = None
    gates: Mapping[str, Array] | None = None
    cross_time: Array | None = None
    jacobian_difference: float | None = None
    conjugate: Array | None = None
    readout_parameters: tuple[str, ...] | None = None
    parameter_distance: float | None = None
    layer_distances: Mapping[str, float] | None = None
    layer_weights: Mapping[str, Array] | None = None
    anchored_outputs: Array | None = None
    extension: Array | None = None
    regression: Array | None = None
    logistic: Array | None = None
    optimizer_kernel: Array | None = None
    training_outputs: Array | None = None
    laplace: Laplace | None = None
    estimates: KernelEstimates | None = None
    edge_mode: EdgeMode | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = np.shape(self.outputs)
        if len(shape) != 2:
            raise ObservableError("the shape of outputs", expected="(N, O)", got=shape)
        for name in (
            "outputs",
            "targets",
            "residual",
            "regression",
            "logistic",
            "anchored_outputs",
            "training_outputs",
        ):
            keep(self, name, shape)
        keep(self, "given_targets", (shape[0], self.network_outputs))
        for name in ("kernel", "cross_time"):
            value = getattr(self, name)
            if value is not None and is_numpy(value):
                object.__setattr__(self, name, np.asarray(value, dtype=np.float64))
        rows = shape[0] if self.reduction in ("trace", "sum") else shape[0] * shape[1]
        if self.eigensystem.size != rows:
            raise ObservableError(
                f"the eigenvectors do not fit outputs {shape} and output={self.reduction!r}",
                expected=f"{rows} rows",
                got=self.eigensystem.size,
            )
        check_targets(self.targets, self.reduction)
        # A state must not keep the whole run alive through its predecessors' predecessors.
        for name in ("initial", "previous", "lagged"):
            other = getattr(self, name)
            object.__setattr__(self, name, None if other is None else other.by_itself())

    def placed(self, where: object) -> State:
        """The same with every array of N² numbers where another array lives: NumPy's for a NumPy array.

        Args:
            where: an array that lives there.
        """
        found: dict[str, Any] = {}
        if (vectors := beside(self.eigensystem.vectors, where)) is not self.eigensystem.vectors:
            found["eigensystem"] = dataclasses.replace(self.eigensystem, vectors=vectors)
        for name in ("kernel", "cross_time", "conjugate", "optimizer_kernel", "extension"):
            old = getattr(self, name)
            if old is not None and (new := beside(old, where)) is not old:
                found[name] = new
        layers = self.layer_kernels or {}
        moved = {layer: beside(kernel, where) for layer, kernel in layers.items()}
        if any(moved[layer] is not kernel for layer, kernel in layers.items()):
            found["layer_kernels"] = moved
        for name in ("initial", "previous", "lagged"):
            other = getattr(self, name)
            if other is not None and other is not self and (new := other.placed(where)) is not other:
                found[name] = new
        return dataclasses.replace(self, **found) if found else self

    @cached_property
    def in_numpy(self) -> State:
        """The same in NumPy throughout: what an observable is given that does not say that it takes other arrays."""
        return self.placed(np.zeros(0))

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Within: what :meth:`once` is asked for is computed once; afterwards none of it is held."""
        if "_shared" in self.__dict__:  # inside another one
            yield
            return
        self.__dict__["_shared"] = {}
        try:
            yield
        finally:
            del self.__dict__["_shared"]

    def once(self, name: Hashable, compute: Callable[[], Shared]) -> Shared:
        """What several observables of this state have in common; computed at each question outside :meth:`sharing`."""
        shared = self.__dict__.get("_shared")
        if shared is None:
            return compute()
        if name not in shared:
            shared[name] = compute()
        found: Shared = shared[name]
        return found

    def as_initial(self) -> State:
        """This state as the first of a run: its own initial state."""
        return dataclasses.replace(self, initial=self)

    def by_itself(self) -> State:
        """This state without earlier ones and without its update."""
        if all(getattr(self, name) is None for name in _PAST):
            return self
        nothing: dict[str, Any] = dict.fromkeys(_PAST)
        return dataclasses.replace(self, **nothing)

    @property
    def samples(self) -> int:
        """N, the number of points of the probe."""
        return int(self.outputs.shape[0])

    @property
    def kernel_outputs(self) -> int:
        """The outputs the kernel keeps: O for full and diagonal, 1 for trace and sum, K for a callable."""
        return self.eigensystem.size // self.samples

    @property
    def network_outputs(self) -> int:
        """The network's own outputs O, also where a gauge leaves the functions O − 1 columns."""
        width = int(self.outputs.shape[1])
        return width + 1 if self.gauge == "softmax" and self.reduction != "diagonal" else width

    @property
    def raw_targets(self) -> Array | None:
        """(N, O) y as the probe has it."""
        return self.targets if self.given_targets is None else self.given_targets

    def by_output(self, phi: Array) -> Array:
        """A function of this state with one column for each of the network's outputs (N, O): φC in a gauge, else φ."""
        return by_output(phi, self.gauge, self.reduction)

    @property
    def displacement(self) -> Array | None:
        """(N, O) f_t − f_0; None where the initial state is unknown."""
        return None if self.initial is None else self.outputs - self.initial.outputs

    def kernel_matrix(self) -> Array:
        """The kernel as a matrix (M, M), rows ordered (n, o): as measured, or put together from all eigenpairs.

        Raises:
            ObservableError: neither is available.
        """
        if self.kernel is not None and self.reduction != "diagonal":
            kernel: Array = permuted(self.kernel, (0, 2, 1, 3)) if self.kernel.ndim == 4 else self.kernel
            return kernel.reshape(self.eigensystem.size, -1)
        if not self.eigensystem.complete:
            raise ObservableError("neither the kernel nor all eigenpairs are available")
        return self.eigensystem.matrix()

    def project(self, phi: Array) -> Array:
        """Φ (M, C), the function φ (N, O) as this state's kernel acts on it; see :func:`project`."""
        return project(phi, self.reduction)

    def coefficients(self, phi: Array) -> Array:
        """⟨v_i, φ⟩ (k, C) along every available eigenvector; C = O for trace, else 1."""
        return self.along(self.project(phi))

    def along(self, columns: Array) -> Array:
        """⟨v_i, φ⟩ (k, C) of columns (M, C)."""
        vectors = self.eigensystem.vectors
        name = ("along", columns.shape, columns.tobytes())
        return self.once(name, lambda: to_numpy(vectors.T @ beside(columns, vectors)))

    @cached_property
    def kernel_sums(self) -> KernelSums:
        """Sums over the kernel, which is there; kept with the state, as the initial one is compared with every other."""
        assert self.kernel is not None  # whoever asks has looked
        return KernelSums(self.kernel, symmetric=self.eigensystem.asymmetry == 0)

    @cached_property
    def mode_sums(self) -> Array:
        """Σ_n v_i[n, o] (k, kernel_outputs): each mode's overlap with the constant of each output."""
        return to_numpy(self.eigensystem.vectors.reshape(self.samples, self.kernel_outputs, -1).sum(axis=0).T)

    def rounding(self, *functions: Array) -> float:
        """How large a function may be, in norm, and still be nothing but the rounding of these."""
        epsilon = epsilon_of(self.settings.get("dtype"))
        # Each output carries a few roundings of a layer's accumulation; we assume at least eight of them.
        return 8 * epsilon * max((float(np.linalg.norm(phi)) for phi in functions), default=0.0)

    def is_rounding(self, phi: Array, *functions: Array) -> bool:
        """Whether φ is nothing but the rounding of the functions it is the difference of."""
        return bool(np.linalg.norm(phi) <= self.rounding(*functions))


def epsilon_of(dtype: object) -> float:
    """ε of a dtype by its name, with or without "torch."; float32's where it is not known."""
    return EPSILON.get(str(dtype).rpartition(".")[2], EPSILON["float32"])
