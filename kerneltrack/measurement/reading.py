"""Reading: what one probe gave at one moment, and what is kept of that moment until its update has happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from kerneltrack.measurement.pieces import Pieces
from kerneltrack.ntk import FactoredJacobian, NetworkState
from kerneltrack.observables import State
from kerneltrack.training import UpdateRule


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one probe gave at one moment.

    Attributes:
        state: the measured state, NumPy float64.
        values: the archive's datasets of this measurement, by name.
        reasons: for each observable that is NaN, why.
        rule: the update that leaves this state.
        outputs: f_t (N, O) as the network gave it.
        before: the network's state θ_t, kept until the update has happened; None where nothing needs it.
        jacobian: J_t by factors, kept as long; None where it is not at hand, or too large to wait.
        remarks: what else a reader of the row should know.
        pieces: what a whole state took; None of a light one.
        whole: whether it has its eigenpairs; a light state of a group has none.
    """

    state: State
    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    rule: UpdateRule
    outputs: Tensor
    before: NetworkState | None = None
    jacobian: FactoredJacobian | None = None
    remarks: tuple[str, ...] = ()
    pieces: Pieces | None = None
    whole: bool = True

    def completed(self, **changes: Any) -> Reading:
        """The same with these changes, and without what was kept for its update."""
        return replace(self, before=None, jacobian=None, **changes)
