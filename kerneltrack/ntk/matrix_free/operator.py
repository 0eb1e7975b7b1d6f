"""Θ without forming it: products J v, Jᵀ u and Θ v, with memory independent of N²."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import AuditError, KernelError, KerneltrackError
from kerneltrack.memory_budget import parse_bytes
from kerneltrack.ntk.matrix_free.factor_cache import FactorCache
from kerneltrack.ntk.matrix_free.factored_jacobian import FactoredJacobian
from kerneltrack.ntk.methods import Jacobian, KernelOptions, KernelRequest, audit_products_when_due
from kerneltrack.ntk.network import Forward, Metric, Selection, State
from kerneltrack.ntk.reduction import Output

Result = TypeVar("Result")


class NTKOperator:
    """The kernel matrix Θ = J P Jᵀ as a linear operator (Novak et al. 2022, "NTK-vector products").

    Args:
        model: the network.
        x: N samples, a tensor or a pytree.
        output: as in :func:`kerneltrack.empirical_ntk`. ``"full"``: Θ acts on vectors of length NO, ordered
            (n, o); ``"diagonal"``: the same with the blocks o ≠ p set to zero; ``"trace"`` and ``"sum"``:
            length N; callable: NK.
        params: which parameters; as there.
        forward: as there.
        metric: P; as there.
        gauge: as there; with ``"softmax"`` the full kernel acts on vectors of length N(O − 1).
        memory_budget: bytes, or a text like "2GiB", that the factors of J may take, which are held from the second product on;
            by default a quarter of what is free, and on an accelerator at most a tenth of its memory. Where they need more,
            products go by passes, which are as exact.

    Every product is that of the state that model, samples and metric are in when it is asked for: parameters and which of
    them require grad, buffers, submodules, modes, hooks, methods, and attributes of modules that are numbers, texts,
    tensors, arrays, or short lists, tuples, sets, dicts and dataclasses of such. Contents are compared, so that writes
    through ``.data`` are seen. **Not seen** is what changes inside another object that the forward pass reads: a variable
    that ``forward=`` or a hook closes over, a global, a config object, a list of more than a thousand entries. Call
    :meth:`refresh` then. Products 1, 2, 4, 8, … are audited, and such a change is refused when it is met there.

    Contents are compared on the model's device, and the answer is read behind the product, once.

    Raises:
        UnsupportedModelError: as :func:`kerneltrack.empirical_ntk`.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Any,
        *,
        output: Output = "full",
        params: Selection = None,
        forward: Forward | None = None,
        metric: Metric = None,
        gauge: GaugeChoice = "raw",
        memory_budget: int | str | None = None,
    ) -> None:
        self._room = None if memory_budget is None else parse_bytes(memory_budget)
        if not (params is None or callable(params) or isinstance(params, str)):
            params = list(params)  # asked for again in each new state
        options = KernelOptions(output=output, gauge=gauge, params=params, forward=forward, metric=metric)
        self._asked = model, x, options
        self._unchanging = 0
        self.refresh()

    def refresh(self) -> None:
        """Read model, samples and metric as they are now, check them like those of a new operator, drop what was held.

        Needed where the forward pass reads what no comparison sees: closures, globals, other objects.

        Raises:
            UnsupportedModelError: as :func:`kerneltrack.empirical_ntk`.
        """
        self._request = request = KernelRequest.unformed(*self._asked)
        self.network, self.metric, self.dtype = request.network, request.metric, request.network_dtype
        self._samples, self._count, self._outputs = request.x1, len(request.x1), request.outputs
        self._kind = request.reduction.kind
        self._held = FactorCache(request, self._columns_by_passes, self._room)
        self._state = self._state_now()

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """The state is looked at once, on entering; inside, products take it to be unchanged. An eigensystem is one such."""
        self._at_current_state(lambda: None)
        self._unchanging += 1
        try:
            yield
        finally:
            self._unchanging -= 1

    def _state_now(self, like: State | None = None) -> State:
        _, x, options = self._asked
        metric = options.metric.values() if isinstance(options.metric, Mapping) else [options.metric]
        return self.network.state([*tree_leaves(x), *metric], like)

    def _at_current_state(self, compute: Callable[[], Result]) -> Result:
        """``compute()`` in the current state; whatever was held of another one is dropped, and the new one checked.

        What only the contents can say is read behind the computation, which by then was of either.
        """
        differs = self._state_now(self._state).differs(self._state) if not self._unchanging else []
        if isinstance(differs, bool):
            self.refresh()
            return compute()
        try:
            result = compute()
        except KerneltrackError:
            if not any(map(bool, differs)):
                raise
            self.refresh()
            return compute()
        if any(map(bool, differs)):
            self.refresh()
            return compute()
        return result

    @property
    def shape(self) -> tuple[int, int]:
        """(M, M), M = N for "trace" and "sum", else N·O."""
        size = self._count * (1 if self._kind == "trace" else self._outputs)
        return size, size

    def matvec(self, v: Tensor) -> Tensor:
        """Θ v, (M,)."""
        return self._at_current_state(lambda: self._times(self._checked(v, 1)[:, None])[:, 0])

    def matmat(self, vectors: Tensor) -> Tensor:
        """Θ V, (M, k)."""
        return self._at_current_state(lambda: self._times(self._checked(vectors, 2)))

    def _times(self, vectors: Tensor) -> Tensor:
        """Θ V by factors where they are held, else column by column by passes."""
        v = vectors.view(self._count, -1, vectors.shape[1])
        factors = self._held.factors()
        if factors is not None:
            self._audit(factors, v)
            return factors.product(v).flatten(0, 1)
        columns = self._columns_by_passes(v)
        audit_products_when_due(self._request, self._by_passes, by="passes")
        self._held.note(v, columns)
        return columns.flatten(0, 1)

    def _audit(self, factors: FactoredJacobian, v: Tensor) -> None:
        """Raises where the factors are wrong, and says whether they only were of another state, which nothing showed."""
        try:
            audit_products_when_due(self._request, lambda one: factors.product(one[:, :, None])[:, :, 0], by="factors")
        except AuditError as wrong:
            self.refresh()
            self._held.note(v, self._columns_by_passes(v))
            self._held.factors()  # raises where those of now are wrong too
            raise KernelError(
                "the model has changed in a way that no comparison sees, and products since then were of its earlier state",
                got="other derivatives of a few samples than those of the factors that were held",
                remedy="Call operator.refresh() after a change of what forward= or a hook closes over, of a global, or of "
                "another object. It has been done now.",
            ) from wrong

    def _columns_by_passes(self, v: Tensor) -> Tensor:
        return torch.stack([self._by_passes(column) for column in v.unbind(2)], 2)

    def _by_passes(self, v: Tensor) -> Tensor:
        """Θ v for v (N, O), or (N, 1) for a trace: one vector–Jacobian and one Jacobian–vector product each."""
        if self._kind == "full":
            return self._product(v)
        own = [self._product(self._one_output(v[:, o % v.shape[1]], o))[:, o] for o in range(self._outputs)]
        columns = torch.stack(own, 1)
        return columns if self._kind == "diagonal" else columns.sum(1, keepdim=True)

    def diagonal(self) -> Tensor:
        """The diagonal of Θ, (M,): squared norms of per-sample gradients, exact."""
        return self._at_current_state(self._squares)

    def _squares(self) -> Tensor:
        norms = torch.zeros(self._count, self._outputs, dtype=self.dtype, device=self.network.device)
        jacobian, free = Jacobian(self.network, self.metric), self._request.machine.diagonal_bytes
        for name, value in self.network.parameters.items():
            row_bytes = self._outputs * value.numel() * value.element_size()
            for place, chunk in self._samples.chunks(max(1, free // max(1, row_bytes))):
                rows = jacobian.rows(chunk, [name], self._outputs, free)[name]
                norms[place] += rows.square().sum(-1)
        return norms.sum(1) if self._kind == "trace" else norms.flatten()

    def trace(self) -> float:
        """The trace of Θ, exact."""
        return float(self.diagonal().sum())

    def as_linear_operator(self) -> LinearOperator:
        """The same for SciPy, NumPy arrays in and out, in the parameters' dtype, and float32 for those of half precision."""
        wide = torch.promote_types(self.dtype, torch.float32)

        def apply(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            block = torch.as_tensor(np.ascontiguousarray(v), dtype=wide, device=self.network.device).reshape(len(v), -1)
            result = self._at_current_state(lambda: self._times(block))
            return result.to(wide).cpu().numpy().reshape(v.shape)

        dtype = np.dtype(str(wide).removeprefix("torch."))
        return LinearOperator(self.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=dtype)

    def _product(self, u: Tensor) -> Tensor:
        pulled = self.network.vjp(self._samples, u)
        if self.metric is not None:
            pulled = {name: value * self.metric[name] for name, value in pulled.items()}
        return self.network.jvp(self._samples, pulled)

    def _one_output(self, column: Tensor, o: int) -> Tensor:
        u = torch.zeros(self._count, self._outputs, dtype=self.dtype, device=self.network.device)
        u[:, o] = column
        return u

    def _checked(self, v: Tensor, dim: int) -> Tensor:
        if not isinstance(v, Tensor) or v.dim() != dim or v.shape[0] != self.shape[0]:
            raise KernelError(
                "the vector does not fit the operator",
                expected=f"a tensor ({self.shape[0]}{', k' * (dim - 1)}{',' * (2 - dim)})",
                got=tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__,
            )
        return v.detach().to(self.dtype)
