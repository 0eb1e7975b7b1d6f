"""Sizes of a kernel that was not formed: each an estimate by random vectors, beside its standard error.

Of the matrix that is measured, rows (n, o) for a full kernel and n for a trace. Where the kernel is formed the exact numbers are
there, under their own names. See :func:`kerneltrack.kernel_estimates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.readings import reading
from kerneltrack.observables.state import State
from kerneltrack.spectrum import Estimate, KernelEstimates

_SOURCE = "Meyer et al. 2021 (Hutch++)"


def _the(name: str) -> Callable[[State], Estimate]:
    def estimate(state: State) -> Estimate:
        assert isinstance(state.estimates, KernelEstimates)  # the need has been looked at
        found: Estimate | None = getattr(state.estimates, name)
        if found is None:
            raise ObservableError("there are no targets, or they have no direction")
        if math.isnan(found.value):
            raise ObservableError("the kernel is zero")
        return found

    return estimate


def _both(name: str, formula: str, long_name: str, words: tuple[str, str, str]) -> tuple[Observable, Observable]:
    """An estimate and its standard error."""
    told, error = f"{name}_estimate", f"{name}_estimate_error"
    of = _the(name)
    beside = "0.001 to 0.05 of the number, and the smaller the more pairs top_k asks for"
    return (
        observable(
            told, lambda s: of(s).value, f"{formula}, from 32 products with random signs beyond the leading modes",
            "estimates", source=_SOURCE, default=False, long_name=f"{long_name}, estimated",
            reading=reading(*words[:2], f"`{error}`, and {words[2]}"),
        ),
        observable(
            error, lambda s: of(s).error, f"one standard error of `{told}`, by the jackknife over the random vectors",
            "estimates", default=False, long_name=f"standard error of the estimated {long_name}",
            reading=reading(
                "the estimate is less certain", f"{beside}; 0 where every pair is known",
                f"`{told}`; the vectors are the same in every snapshot, so that a difference of two is more certain",
            ),
        ),
    )  # fmt: skip


OBSERVABLES: tuple[Observable, ...] = (
    *_both(
        "trace", "tr Θ", "trace of the kernel matrix",
        ("outputs answer more to the parameters", "as `trace`", "`trace`, which is exact"),
    ),
    *_both(
        "frobenius", "‖Θ‖_F", "Frobenius norm of the kernel matrix",
        ("the kernel is larger, its leading modes above all", "between tr Θ/√M and tr Θ", "`participation_ratio_estimate`"),
    ),
    *_both(
        "participation_ratio", "(tr Θ)²/‖Θ‖_F², the trace exact", "participation ratio of the spectrum",
        ("the large eigenvalues are more alike", "1 to 20; 1 for a single mode", "`stable_rank`"),
    ),
    *_both(
        "alignment", "Σ_c y_cᵀΘy_c/(‖Θ‖_F ‖YYᵀ‖_F), the numerator exact", "kernel–target alignment",
        (
            "more of the kernel lies along the targets",
            "0 to 1; of a trace kernel as `kernel_target_alignment`, of a full one as `kernel_target_alignment_flattened`",
            "its value at step 0: nothing is known here of permuted targets",
        ),
    ),
)  # fmt: skip
