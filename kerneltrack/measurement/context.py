"""Context: what the measurement of one probe may look at, made once."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.comparable import kernel_changed
from kerneltrack.measurement.curvature import curvature_of_halves, largest_curvature
from kerneltrack.measurement.hessian import LossHessian, hessian_of
from kerneltrack.measurement.hidden_layers import Hidden, hidden_activations
from kerneltrack.measurement.kernels import Kernels
from kerneltrack.measurement.layers import Layers
from kerneltrack.measurement.metric import Metric
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.out_of_sample import as_matrix
from kerneltrack.measurement.parameter_motion import distances, layers_of
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.references import References
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.measurement.training_outputs import Flags
from kerneltrack.ntk import FactoredJacobian, Network, NetworkState, NTKOperator, trace
from kerneltrack.observables import State
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import EigenSystem
from kerneltrack.training import ProbeLoss, UpdateRule


@dataclass(frozen=True, kw_only=True)
class Context:
    """A probe, the network at θ_t, and the kernel and eigenpairs that were measured of both.

    What several needs share is computed at the first question.

    Attributes:
        spec: what is measured on the probe, and how.
        kernels: computes its other kernels.
        module: the network, in eval mode.
        network: the same over every trainable parameter.
        inputs: the probe's inputs, where the module is.
        outputs: f_t (N, O).
        kernel: Θ_t in its reduced shape; None where it was not formed.
        parts: the kernel by layer; None where it is not split by layer.
        traces: of each layer's kernel, where that is all that was asked of it.
        without_parts: why there is nothing of layers, where that was asked.
        jacobian: J over every output and parameter that trains, by factors; None where these are not at hand.
        operator: Θ by products; None where the kernel was formed.
        spectrum: the eigenpairs.
        resident: whether kernels stay where they were computed, as the eigenvectors did; else they are NumPy's.
        rule: the update that is about to happen.
        step: t.
        references: the earlier states to compare with.
        source: another probe, from which is carried over to this one, and its reading now.
        flags: the ``training`` flags that the submodules have in training.
    """

    spec: ProbeSpec
    kernels: Kernels
    module: nn.Module
    network: Network
    inputs: Any
    outputs: Tensor
    kernel: Tensor | None = None
    parts: Mapping[str, Tensor] | None = None
    traces: Mapping[str, float] | None = None
    without_parts: str = ""
    jacobian: FactoredJacobian | None = None
    operator: NTKOperator | None = None
    spectrum: EigenSystem
    resident: bool = False
    rule: UpdateRule
    step: int
    references: References
    source: tuple[ProbeSpec, Reading] | None = None
    flags: Flags | None = None

    def kept(self, kernel: Tensor) -> Array:
        """A kernel in float64, where the state holds its kernels."""
        if not self.resident:
            return to_float64(kernel)
        there: Any = kernel.detach().double()
        found: Array = there
        return found

    @cached_property
    def targets(self) -> Tensor | None:
        """y (N, O) as the loss has them."""
        return self.spec.targets(self.outputs)

    @cached_property
    def residual(self) -> Tensor | None:
        """m (N, O); None without targets."""
        return None if self.targets is None else self.spec.residual(self.outputs, self.targets)

    @cached_property
    def layers(self) -> Layers:
        """The layers that have values: those of the first measurement."""
        return Layers.of(self.module, self.spec.selection, self.references.layers)

    @cached_property
    def new_layers(self) -> str:
        """Why what speaks of every parameter that trains cannot be given by them; "" where it can."""
        return self.layers.new(layers_of(self.network.parameters))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``State.settings``."""
        names = list(self.spec.network(self.module).parameters)
        return {
            **self.spec.facts(self.network, self.outputs, self.step, self.references.lag),
            "layers": list(self.layers.names),
            "optimizers": list(self.rule.settings),
            "parameters": names,
            "of_every_parameter": set(names) == set(self.network.parameters),
        }

    @property
    def initial(self) -> State | None:
        """The state at step 0, unless this is that one."""
        return self.references.initial if self.step else None

    @cached_property
    def lost_start(self) -> str:
        """Why the network cannot be compared with itself at step 0; "" where it can."""
        start = self.references.start
        if start is None:
            return "the initial parameters are unknown"
        return start.incomparable(self.module, self.network.parameters)

    @property
    def start(self) -> NetworkState:
        """The network's state at step 0.

        Raises:
            NotMeasured: it is unknown, or of another network.
        """
        if self.references.start is None or self.lost_start:
            raise NotMeasured(self.lost_start)
        return self.references.start

    @cached_property
    def distances(self) -> dict[str, float]:
        """‖θ_t − θ_0‖₂ of each layer of which something trained at step 0."""
        return distances(self.start.parameters, self.start.now(self.module))

    @property
    def formed(self) -> Tensor:
        """The kernel.

        Raises:
            NotMeasured: it was not formed.
        """
        if self.kernel is None:
            raise NotMeasured("the kernel was not formed")
        return self.kernel

    @cached_property
    def by_layer(self) -> dict[str, Tensor]:
        """The kernel of every layer; one and the same zero of all those of which nothing is chosen or trains.

        Raises:
            NotMeasured: the kernel is not split by layer, or is of a layer that has no place.
        """
        if self.parts is None:
            raise NotMeasured(self.without_parts)
        if why := self.layers.new(self.parts):
            raise NotMeasured(why)
        nothing = torch.zeros_like(next(iter(self.parts.values())))
        return self.layers.placed(self.parts, nothing, torch.add)

    @property
    def layer_traces(self) -> dict[str, float]:
        """The trace of every layer's kernel.

        Raises:
            NotMeasured: as of :attr:`by_layer`.
        """
        if self.traces is None:
            return {layer: trace(kernel) for layer, kernel in self.by_layer.items()}
        if why := self.layers.new(self.traces):
            raise NotMeasured(why)
        return self.layers.placed(self.traces, 0.0, operator.add)

    def curvature(self, metric: Metric) -> float:
        """λ_1(S^½ J P Jᵀ S^½) of the probe's loss."""
        kernel = self._whole_kernel
        top = None if kernel is None else float(self.spectrum.values[0])
        return largest_curvature(
            *self._loss, metric, kernel=kernel, jacobian=self.jacobian, gauge=self.spec.gauge, top_eigenvalue=top
        )

    def curvature_of_halves(self, metric: Metric) -> float:
        """The mean of the same over two disjoint halves of the probe."""
        return curvature_of_halves(
            *self._loss, metric, kernel=self._whole_kernel, jacobian=self.jacobian, gauge=self.spec.gauge
        )

    @property
    def _loss(self) -> tuple[Network, Any, Tensor, Tensor | None, ProbeLoss | None]:
        """The loss on the probe, and what it is of."""
        return self.network, self.inputs, self.outputs, self.targets, self.spec.loss

    @property
    def _whole_kernel(self) -> Tensor | None:
        """The kernel, where it was formed and is of all outputs."""
        return self.kernel if self.spec.is_whole(self.outputs) else None

    @cached_property
    def sharpness(self) -> float:
        """λ_1(S^½ J Jᵀ S^½)."""
        return self.curvature(1.0)

    @cached_property
    def hessian(self) -> LossHessian:
        """∇²L of the probe's loss.

        Raises:
            NotMeasured: there is none that products give.
        """
        return hessian_of(self.network, self._fine, self.inputs, self.targets, self.spec.loss)

    @cached_property
    def hessian_sharpness(self) -> float:
        """λ_1(∇²L)."""
        return self.hessian.largest(1.0)

    def batch_hessians(self) -> Iterator[LossHessian]:
        """∇²L of each training batch, in turn.

        Raises:
            NotMeasured: there are none, and why.
        """
        _ = self.hessian  # whose second derivatives were looked at; of each batch they are the same operators
        if not self.spec.batches:
            raise NotMeasured(self.spec.without_batches)
        for batch in self.spec.batches:
            own = replace(self.spec, probe=batch)
            inputs = own.inputs(self.module)
            targets = own.targets(self.outputs)
            if targets is None or self.spec.loss is None:
                raise NotMeasured("the training batches have no targets")
            yield LossHessian(self.network, inputs, targets, self.spec.loss)

    @property
    def _fine(self) -> Network:
        return self.spec.network(self.module, every_parameter=True, dtype=torch.float64)

    @cached_property
    def cross_time(self) -> Array:
        """J_t J_0ᵀ.

        Raises:
            NotMeasured: the kernel is of other parameters than at step 0.
        """
        if changed := kernel_changed(self.settings, self.initial, "at step 0"):
            raise NotMeasured(changed)
        if self.step == 0:
            return self.kept(self.formed)
        return self.kept(self.kernels.cross_time(self.module, self.inputs, self.start))

    @cached_property
    def hidden(self) -> Hidden:
        """What the hidden layers hold."""
        return hidden_activations(self.network, self.inputs)

    @property
    def first(self) -> tuple[ProbeSpec, Reading]:
        """The probe that is carried over from, and its reading now.

        Raises:
            NotMeasured: there is none.
        """
        if self.source is None:
            raise NotMeasured("there is no other probe to carry over from")
        return self.source

    @cached_property
    def cross(self) -> Array:
        """Θ_t(this probe, the other one) as a matrix (M, M')."""
        spec, _ = self.first
        return as_matrix(self.kept(self.kernels.own(self.module, self.inputs, spec.inputs(self.module))))

    def state(self, measured: Mapping[str, Any]) -> State:
        """The measured state.

        Args:
            measured: field → value of what was supplied for the observables' needs.
        """
        g, loss = self.spec.output, self.spec.loss
        # Functions of g(f) have neither targets nor a loss.
        targets, read = None if callable(g) else self.targets, self.spec.read
        outputs = torch.func.vmap(g)(self.outputs).reshape(len(self.outputs), -1) if callable(g) else self.outputs
        return State(
            eigensystem=self.spectrum,
            kernel=None if self.kernel is None else self.kept(self.kernel),
            reduction=self.spec.reduction,
            gauge=self.spec.gauge,
            outputs=read(outputs),
            targets=None if targets is None else read(targets),
            given_targets=None if targets is None or self.spec.gauge == "raw" else to_float64(targets),
            residual=None if targets is None or self.residual is None else read(self.residual),
            probe_loss=math.nan if loss is None or targets is None else float(loss.value(self.outputs, targets)),
            learning_rates=self.rule.learning_rates,
            initial=self.references.initial,
            previous=self.references.previous,
            settings=self.settings,
            **measured,
        )
