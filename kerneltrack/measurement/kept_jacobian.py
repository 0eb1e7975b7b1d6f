"""KeptJacobian: what is still at hand of J_t when its update has been made, and spares the passes of the two linear models.

The kernel of a state is J Jᵀ where it is of all outputs and parameters, and the factors that a reduced one was contracted
from are J itself. Both were made, checked and audited at θ_t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.measurement.metric import Metric
from kerneltrack.measurement.reading import Reading
from kerneltrack.memory_budget import available_bytes
from kerneltrack.ntk import FactoredJacobian
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import EigenSystem

#: A linear map, outputs (N, O) → float64 as the kernel meets them.
Read = Callable[[Tensor], Array]
#: Factors may stay in memory beside the update while they take no more than one in so many bytes of what is free.
_FREE_SHARE = 8


@dataclass(frozen=True, kw_only=True)
class KeptJacobian:
    """J_t of outputs (N, O), to which the kernel may be blind in part.

    Attributes:
        modes: every mode of J Jᵀ, where that kernel is of all outputs and parameters; else None.
        factors: J by factors, where they are kept; else None.
    """

    modes: EigenSystem | None = None
    factors: FactoredJacobian | None = None

    @classmethod
    def of(cls, reading: Reading, *, whole: bool) -> KeptJacobian:
        """What a reading has; ``whole``: its kernel is of all outputs and parameters."""
        pairs, factors = reading.state.eigensystem, reading.jacobian
        own = factors is not None and factors.outputs == reading.outputs.shape[1]
        return cls(modes=pairs if whole and pairs.complete else None, factors=factors if own else None)

    def along(self, step: Mapping[str, Tensor], read: Read) -> Array | None:
        """J v, read; None where that takes a pass."""
        found = None if self.factors is None else self.factors.push(step)
        return None if found is None else read(found)

    def flow(self, residual: Tensor, metric: Metric, read: Read) -> Array | None:
        """J P Jᵀ m, read, for m (N, O) with nothing that the kernel is blind to; None where that takes passes."""
        if self.modes is not None and isinstance(metric, float):
            values, vectors, seen = self.modes.values, self.modes.vectors, read(residual)
            along = vectors.T @ beside(seen.reshape(-1), vectors)
            return metric * to_numpy(vectors @ (beside(values, vectors) * along)).reshape(seen.shape)
        product = None if self.factors is None else self.factors.between(metric)
        return None if product is None else read(product(residual.unsqueeze(2))[:, :, 0])


def lasting(jacobian: FactoredJacobian | None, module: nn.Module) -> FactoredJacobian | None:
    """J where it may wait for its update: in a CPU's memory, of which much is free, and with nothing in it that moves.

    On a CUDA device the training wants the memory, and passes are short.
    """
    if jacobian is None or jacobian.device.type != "cpu":
        return None
    if _FREE_SHARE * jacobian.held_bytes > available_bytes(jacobian.device):
        return None
    moving = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    if moving & {t.untyped_storage().data_ptr() for t in jacobian.tensors()}:
        return None  # a layer was given a parameter itself
    jacobian.audit_when_due()
    return jacobian
