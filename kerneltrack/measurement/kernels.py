"""All kernels of one probe, within one memory budget, shared over the ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from kerneltrack.conventions import Gauge
from kerneltrack.distributed import Ranks
from kerneltrack.measurement.eigenpairs import forms_kernel
from kerneltrack.measurement.kernel_over_ranks import shared_ntk
from kerneltrack.memory_budget import MemoryBudget, Result
from kerneltrack.ntk import (
    FactoredJacobian,
    Keeps,
    KernelOptions,
    Method,
    Network,
    NetworkState,
    NTKOperator,
    Output,
    Plan,
    cross_time_ntk,
    empirical_ntk,
    forward_flops,
    kernel_and_jacobian,
    kernel_and_traces,
    ntk_plan,
    trace,
)

#: The layers' kernels are held side by side up to this many numbers (1 GiB of float32); beyond it layers are not measured.
LAYER_NUMBERS = 2**28


@dataclass(frozen=True, kw_only=True)
class ShareRequest:
    """What the leader asks of every rank: its share of one probe's kernel.

    Attributes:
        probe: its name.
        by_layer: whether of each layer by itself.
        budget: the memory budget, in bytes or as a text; None for the default.
    """

    probe: str
    by_layer: bool
    budget: int | str | None


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """How the kernels of a probe are computed; the attributes are those of the instrument."""

    probe: str
    output: Output
    method: Method
    forward: Callable[[Any, Any], Any] | None
    params: Callable[[str], bool] | Iterable[str] | None
    memory_budget: int | str | None
    ranks: Ranks
    progress: bool | float = False
    gauge: Gauge = "raw"

    @cached_property
    def _retry(self) -> MemoryBudget:
        return MemoryBudget(self.memory_budget)

    @property
    def _options(self) -> dict[str, Any]:
        names = ("output", "gauge", "method", "params", "forward")
        return {name: getattr(self, name) for name in names}

    def plan(self, module: nn.Module, inputs: Any) -> Plan:
        """How the kernel will be computed, and what it costs."""
        with warnings.catch_warnings():
            # torch counts FLOPs with hooks on every module, of which it warns where a submodule is compiled.
            warnings.filterwarnings("ignore", message=".*there are global hooks on modules.*")
            return ntk_plan(module, inputs, memory_budget=self._retry.budget, **self._options)

    def measured(self, module: nn.Module, inputs: Any, *, by_layer: bool = False) -> Any:
        """The kernel, or each layer's."""

        def compute(budget: int | str | None) -> Any:
            request = ShareRequest(probe=self.probe, by_layer=by_layer, budget=budget)
            self.ranks.ask(request)
            return self.serve(request, module, inputs)

        return self._within_memory(compute, module)

    def with_jacobian(
        self, module: nn.Module, inputs: Any, *, keeps: Keeps, by_layer: bool = False
    ) -> tuple[Any, FactoredJacobian | None]:
        """The same, and J where it is kept and this process has all of its factors: :func:`kerneltrack.ntk.kernel_and_jacobian`."""
        if keeps == "nothing" or not self.ranks.alone:
            return self.measured(module, inputs, by_layer=by_layer), None

        def compute(budget: int | str | None) -> tuple[dict[str, Tensor], FactoredJacobian | None]:
            options = KernelOptions(**self._options, by_layer=by_layer, memory_budget=budget)
            return kernel_and_jacobian(module, inputs, options, keeps=keeps, progress=self.progress)

        kernels, jacobian = self._within_memory(compute, module)
        return kernels if by_layer else kernels[""], jacobian

    def with_traces(
        self, module: nn.Module, inputs: Any, *, keeps: Keeps
    ) -> tuple[Tensor, dict[str, float], FactoredJacobian | None]:
        """The kernel, the trace of each layer's, and J where that is to be kept. A single process holds no layer's kernel."""
        if not self.ranks.alone:
            layers = self.measured(module, inputs, by_layer=True)
            return total(layers), {layer: trace(kernel) for layer, kernel in layers.items()}, None

        def compute(budget: int | str | None) -> tuple[Tensor, dict[str, float], FactoredJacobian | None]:
            options = KernelOptions(**self._options, by_layer=True, memory_budget=budget)
            return kernel_and_traces(module, inputs, options, keeps=keeps, progress=self.progress)

        return self._within_memory(compute, module)

    def remark(self) -> str:
        """What had to be done since this was last asked to have the kernels; "" for nothing."""
        return self._retry.remark()

    def _within_memory(self, compute: Callable[[int | str | None], Result], module: nn.Module) -> Result:
        return self._retry.run(compute, next(module.parameters()).device)

    def serve(self, request: ShareRequest, module: nn.Module, inputs: Any) -> Any:
        """This rank's share of the kernel; on the rank that leads, the whole."""
        options = {**self._options, "by_layer": request.by_layer, "memory_budget": request.budget}
        return shared_ntk(self.ranks, module, inputs, progress=self.progress if self.ranks.leads else False, **options)

    def without_layers(self, outputs: Tensor, layers: int) -> str:
        """Why the kernels of so many layers are not held side by side; "" where they are."""
        if callable(self.output):
            return "per-layer kernels are not available with a callable output="
        count, width = outputs.shape
        numbers = count**2 * {"full": width**2, "diagonal": width}.get(self.output, 1) * layers
        if numbers <= LAYER_NUMBERS:
            return ""
        return f"per-layer kernels would need {numbers:.1e} numbers; the limit is {LAYER_NUMBERS:.1e}"

    def operator(
        self, module: nn.Module, inputs: Any, outputs: Tensor, needs: Collection[str], *, pairs: int, rows: int
    ) -> NTKOperator | None:
        """Θ by products, where the leading ``pairs`` of its ``rows`` are to come from those; None where Θ is formed."""
        network = Network(module, params=self.params, forward=self.forward)
        passes = len(outputs) * forward_flops(network, network.inputs(inputs))
        over = outputs.shape[1] if self.output in ("diagonal", "trace") else 1  # products are made output by output
        plan = self.plan(module, inputs)
        if forms_kernel(plan, needs, pairs=pairs, rows=rows, forward_flops=passes * over):
            return None
        return NTKOperator(
            module, inputs, output=self.output, gauge=self.gauge, params=self.params, forward=self.forward
        )

    def own(self, module: nn.Module, inputs: Any, x2: Any = None, **options: Any) -> Tensor:
        """Another kernel of the same outputs, computed by this rank alone."""
        options = {**self._options, **options}
        kernel = self._within_memory(lambda b: empirical_ntk(module, inputs, x2, memory_budget=b, **options), module)
        assert isinstance(kernel, Tensor)  # by_layer is not among the options
        return kernel

    def cross_time(self, module: nn.Module, inputs: Any, anchor: NetworkState) -> Tensor:
        """J_t J_aᵀ."""

        def compute(budget: int | str | None) -> Tensor:
            return cross_time_ntk(
                module,
                inputs,
                anchor,
                output=self.output,
                gauge=self.gauge,
                params=self.params,
                forward=self.forward,
                memory_budget=budget,
            )

        return self._within_memory(compute, module)


def total(layers: Mapping[str, Tensor]) -> Tensor:
    """Θ, the sum of its layers."""
    first, *others = layers.values()
    whole = first.clone()
    for kernel in others:
        whole += kernel
    return whole
