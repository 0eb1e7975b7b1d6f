"""How far the training-mode outputs are from the measured (eval-mode) ones.

Dropout and batch statistics make f in training mode another function; the kernel, the residual and the stability ratio
speak of the measured one. Where the gap is large, they speak of the training only roughly.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import State


def _gap(state: State) -> float:
    if state.training_outputs is None:
        raise ObservableError("the outputs in training mode were not measured")
    norm = float(np.linalg.norm(state.outputs))
    return float(np.linalg.norm(state.training_outputs - state.outputs)) / norm if norm else float("nan")


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "function_gap",
        _gap,
        "‖f_training − f_t‖_F/‖f_t‖_F, f_training with the flags of training (one draw of dropout, "
        "the probe as the batch); 0 where no flag is set",
        "training_outputs",
        long_name="gap between the function in training and the measured one",
    ),
)
