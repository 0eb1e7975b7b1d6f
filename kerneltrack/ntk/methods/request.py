"""A request: one call's network, samples, reduction, metric and budget, and the options that it came from.

It also knows the shape of the matrix in which its kernel is accumulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import KernelError, ProbeError
from kerneltrack.memory_budget import budget_bytes
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.network import (
    FirstLook,
    Forward,
    Inputs,
    Metric,
    Network,
    PlainPass,
    Preconditioner,
    Selection,
    common_dtype,
    layer_of,
    preconditioner,
    summed_dtype,
    validate,
    validated,
)
from kerneltrack.ntk.reduction import Output, Reduction, parse_output

#: Of the memory that is free, what Jᵀv may take from the first look to the audit.
_KEPT = 16
#: Samples that are looked at for a plan.
_LOOKED_AT = 8

Method = Literal["auto", "structured", "jacobian", "products"]


@dataclass(frozen=True, kw_only=True)
class KernelOptions:
    """The options of a kernel, as :func:`kerneltrack.empirical_ntk` describes them.

    Raises:
        KernelError: an unknown method, or a dtype that is not a floating-point type.
    """

    output: Output = "full"
    gauge: GaugeChoice = "raw"
    method: Method = "auto"
    params: Selection = None
    by_layer: bool = False
    dtype: torch.dtype | None = None
    memory_budget: int | str | None = None
    forward: Forward | None = None
    metric: Metric = None

    def __post_init__(self) -> None:
        methods = get_args(Method)
        if self.method not in methods:
            raise KernelError("unknown method=", expected=" | ".join(methods), got=repr(self.method))
        if self.dtype is not None and not self.dtype.is_floating_point:
            raise KernelError(
                "dtype= is not a floating-point type",
                expected="torch.float32 or torch.float64, for instance",
                got=self.dtype,
            )


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """Everything a method needs. ``outputs`` is O behind the head.

    ``x2`` None means x1, a symmetric kernel. ``looked`` says that the samples were looked at before; where they were not,
    that has to be done beside the kernel. ``of_free_memory``: the budget is half of what was free. ``first``: what a first look
    at x1 has left to be settled.
    """

    network: Network
    x1: Inputs
    x2: Inputs | None
    outputs: int
    dtype: torch.dtype
    reduction: Reduction
    metric: Preconditioner | None
    method: Method
    by_layer: bool
    budget: int
    machine: Machine
    looked: bool = True
    of_free_memory: bool = False
    first: FirstLook | None = None

    @classmethod
    def of(cls, model: nn.Module, x1: Any, x2: Any, options: KernelOptions) -> KernelRequest:
        """The request of a call, once it is certain that a kernel of these samples makes sense.

        Raises:
            KernelError, UnsupportedModelError, ProbeError: as :func:`kerneltrack.empirical_ntk`.
        """
        request = cls.unlooked(model, x1, x2, options).look()
        if request.first is not None:
            request.first.settle()
        return request

    @classmethod
    def planned(cls, model: nn.Module, x1: Any, x2: Any, options: KernelOptions) -> KernelRequest:
        """The same request, of which only a few samples are looked at: nobody waits for the probe to hear what it costs.

        Raises:
            KernelError, UnsupportedModelError, ProbeError: as :meth:`of`, of the samples that were looked at.
        """
        left, right = Inputs(x1, name="x1"), None if x2 is None else Inputs(x2, name="x2")
        few = None if right is None else right.rows(0, _LOOKED_AT)
        request = cls.of(model, left.rows(0, _LOOKED_AT), few, options)
        left = request.network.inputs(left)
        right = None if right is None else request.network.inputs(right)
        return replace(request, x1=left, x2=None if right is None or right.same_as(left) else right)

    @classmethod
    def unformed(cls, model: nn.Module, x: Any, options: KernelOptions, *, name: str = "x") -> KernelRequest:
        """The request for products with a kernel that is not formed: its budget leaves no room for a result.

        Raises:
            KernelError, UnsupportedModelError, ProbeError: as :func:`kerneltrack.empirical_ntk`.
        """
        request = cls.unlooked(model, x, None, options, name=name)
        return replace(request, outputs=validate(request.network, request.x1, name=name)[1], looked=True)

    @classmethod
    def unlooked(cls, model: nn.Module, x1: Any, x2: Any, options: KernelOptions, *, name: str = "x1") -> KernelRequest:
        """What is asked, before anything was run; how many outputs there are is not known yet.

        Raises:
            KernelError, UnsupportedModelError, ProbeError: what shows without a forward pass.
        """
        reduction = parse_output(options.output, options.gauge)
        network = Network(
            model, params=options.params, forward=options.forward, head=reduction.head, dtype=options.dtype
        )
        with network.standing():
            samples = network.inputs(x1, name=name)
            parameters, machine = network.parameters, Machine.of(network.device)
            return cls(
                network=network,
                x1=samples,
                x2=_second(network, x2, samples),
                outputs=0,
                dtype=summed_dtype(parameters),
                reduction=reduction,
                metric=preconditioner(options.metric, parameters),
                method=options.method,
                by_layer=options.by_layer,
                budget=_budget(options, machine, network.device),
                machine=machine,
                looked=False,
                of_free_memory=options.memory_budget is None and machine.memory is None,
            )

    def look(self) -> KernelRequest:
        """The same, once it is certain that a kernel of these samples makes sense; :attr:`first` may be left of that.

        Raises:
            UnsupportedModelError, ProbeError: as :func:`kerneltrack.empirical_ntk`.
        """
        _, outputs, left = validated(self.network, self.x1, name="x1", defers=self.is_audited_by_pulls)
        first = None if left is None else FirstLook(self.network, self.x1, "x1", *left)
        if self.x2 is not None:
            others = validate(self.network, self.x2, name="x2")[1]
            if others != outputs:
                raise ProbeError("x1 and x2 give different numbers of outputs", got=(outputs, others))
        return replace(self.trusted(outputs), looked=True, first=first)

    def trusted(self, outputs: int) -> KernelRequest:
        """The same with so many outputs as an earlier call has found; the samples are to be looked at beside the kernel."""
        request = replace(self, outputs=outputs)
        network = request.network
        network.chunk_bytes = min(network.chunk_bytes, max(1, (request.budget - request.result_bytes) // 4))
        return request

    @property
    def plain(self) -> PlainPass | None:
        """The plain pass of x1, once a first look is settled."""
        return None if self.first is None else self.first.plain

    @property
    def is_audited_by_pulls(self) -> bool:
        """Whether Jᵀv of all samples is wanted: for the audit of a kernel of all outputs with themselves, in fine arithmetic."""
        of_all = self.x2 is None and self.reduction.kind == "full" and self.reduction.head is None
        kept = sum(p.nbytes for p in self.network.parameters.values())
        fine = torch.finfo(self.network_dtype).eps <= torch.finfo(torch.float32).eps
        return of_all and fine and self.method != "products" and _KEPT * kept <= self.budget

    @property
    def samples(self) -> int:
        """N1, and N2 where those are others."""
        return len(self.x1) + (0 if self.x2 is None else len(self.x2))

    @property
    def columns(self) -> int:
        """N2."""
        return len(self.x1 if self.x2 is None else self.x2)

    @property
    def paired(self) -> int:
        """Q: outputs on each side of a pair."""
        return self.outputs if self.reduction.kind == "full" else 1

    @property
    def planes(self) -> int:
        """B: kernels of the same samples that are kept apart."""
        return self.outputs if self.reduction.kind == "diagonal" else 1

    @property
    def network_dtype(self) -> torch.dtype:
        """In which the network is evaluated; sums over parameters are at least float32."""
        return common_dtype(self.network.parameters)

    @property
    def layers(self) -> list[str]:
        """Keys under which the kernel is accumulated: one for each layer, or "" alone."""
        return list(dict.fromkeys(map(layer_of, self.network.parameters))) if self.by_layer else [""]

    def key(self, name: str) -> str:
        """Where the contribution of a parameter goes."""
        return layer_of(name) if self.by_layer else ""

    @cached_property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(B, N1·Q, N2·Q)."""
        return self.planes, len(self.x1) * self.paired, self.columns * self.paired

    @cached_property
    def result_bytes(self) -> int:
        """Bytes of everything that is returned."""
        return math.prod(self.matrix_shape) * self.dtype.itemsize * len(self.layers)

    @property
    def sample_pairs(self) -> int:
        """Pairs of samples to compute."""
        n = len(self.x1)
        return n * (n + 1) // 2 if self.x2 is None else n * self.columns

    @property
    def free_bytes(self) -> int:
        """What the budget leaves beside the result."""
        return max(0, self.budget - self.result_bytes)

    def zeros(self) -> dict[str, Tensor]:
        """One zero matrix for each layer."""
        return {
            layer: torch.zeros(self.matrix_shape, dtype=self.dtype, device=self.network.device) for layer in self.layers
        }

    def as_kernel(self, matrix: Tensor) -> Tensor:
        """(B, N1·Q, N2·Q) seen as (N1, N2, O, O), (N1, N2, O) or (N1, N2), whatever the reduction keeps."""
        if self.reduction.kind == "diagonal":
            return matrix.permute(1, 2, 0)
        if self.reduction.kind == "trace":
            return matrix[0]
        return matrix[0].view(len(self.x1), self.outputs, self.columns, self.outputs).transpose(1, 2)


def _budget(options: KernelOptions, machine: Machine, device: torch.device) -> int:
    """In bytes; of a machine whose memory is known, half of that where nothing is given."""
    if options.memory_budget is None and machine.memory is not None:
        return machine.memory // 2
    return budget_bytes(options.memory_budget, device)


def _second(network: Network, x2: Any, left: Inputs) -> Inputs | None:
    """The second samples, None where they are the first."""
    if x2 is None:
        return None
    given = network.inputs(x2, name="x2")
    if left.tree != given.tree:
        raise ProbeError(
            "x1 and x2 have different structures",
            expected=str(left.tree),
            got=str(given.tree),
            remedy="Give both as the same kind of pytree.",
        )
    return None if given.same_as(left) else given
