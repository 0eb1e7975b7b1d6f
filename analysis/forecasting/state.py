"""The law of one state of a run: what is stored there, or why it decides no forecast and which argument would bring it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kerneltrack.conventions import Momentum, groups, helmert
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import loss_curvature
from kerneltrack.regression import CrossEntropy, MeanLoss, Through

from ..derived import no_single_modes
from ..trajectory import Floats, Run
from ..withheld import seen
from .law import Law
from .softmax import Softmax
from .squares import Squares

WHY = "a forecast"
#: A residual is whole in the modes that are stored where less than this share of ‖m‖² is missing; float32 leaves 1e-6.
_WHOLE = 1e-4
#: The memory of momentum has reached its long run after so many times 1/(1 − β) updates: e⁻³ is missing.
_LONG_RUN = 3.0


def law_of(run: Run, row: int, kept: float) -> Law:
    """How the residual of a state goes on.

    Args:
        run: the run.
        row: the state.
        kept: the rate that made the state, and that is kept.

    Raises:
        AnalysisError: the state decides no forecast.
    """
    momentum = _momentum(run)
    _check_trained(run)
    if run.settings.get("loss") == "cross_entropy" and run.outputs > 1:
        return _softmax(run, row, momentum)
    return _squares(run, row, kept, momentum)


def _squares(run: Run, row: int, kept: float, momentum: Momentum) -> Squares:
    if reason := no_single_modes(run) or _of_a_callable(run):
        raise _refused(reason, run, _instead(reason))
    run.require("eigenvalues", "residual_coefficients", "probe_loss", why=WHY)
    if momentum.beta and 0 < run.steps[row] < round(_LONG_RUN / (1 - momentum.beta)):
        raise _refused("momentum has made fewer than 3/(1 − β) updates, and what it holds is not stored", run)
    slope = loss_curvature(run.settings.get("loss"), run.outputs)
    coefficients = run.values("residual_coefficients")[row].sum(axis=-1)  # one component: the kernel has every output
    square = 2 * run.count * slope * float(run.values("probe_loss")[row])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        outside = max(1 - float(np.sum(coefficients**2)) / square, 0.0) if square > 0 else 0.0
    return Squares(
        run.values("eigenvalues")[row, : coefficients.size],
        coefficients,
        slope,
        run.count,
        kept,
        momentum,
        int(run.steps[row]),
        outside if outside > _WHOLE else 0.0,
    )


def _softmax(run: Run, row: int, momentum: Momentum) -> Softmax:
    if run.settings.get("output") != "full":
        raise _refused(f"the kernel is the {run.settings.get('output')!r} reduction", run, 'NTKTracker(output="full")')
    if run.settings.get("parameters") not in (None, "all that require grad"):
        raise _refused("the kernel is of some of the parameters", run, "params=None")
    if momentum.beta and run.steps[row]:
        raise _refused(
            "cross-entropy mixes the modes, and what the momentum held of each then is not stored; at step 0 it was empty",
            run,
            "--at 0, in Python at=0",
        )
    run.require("outputs", "targets", "probe_loss", why=WHY)
    values, vectors = _eigenpairs(run, row)
    through: MeanLoss = CrossEntropy(run.values("targets"))
    if run.gauge == "softmax":
        through = Through(through, helmert(run.outputs))
    ratio, rate = (
        float(run.values(n)[row].max()) if run.has(n) else np.nan for n in ("stability_ratio", "learning_rate")
    )
    outputs = run.seen(run.at("outputs", row))
    return Softmax(values, vectors, outputs, through, momentum, ratio / rate if rate > 0 else np.nan)


def _eigenpairs(run: Run, row: int) -> tuple[Floats, Floats]:
    """Every λ_i, descending, and v_i (M, M): of the kernel where it is kept, else of the eigenvectors where all are."""
    if "kernel" in run.dataset and np.isfinite(kernel := run.at("kernel", row)).all():
        size = kernel.shape[0] * kernel.shape[2]
        matrix = kernel.transpose(0, 2, 1, 3).reshape(size, size)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[::-1], vectors[:, ::-1]
    if "eigenvectors" in run.dataset:
        vectors = run.at("eigenvectors", row)
        vectors = vectors.reshape(-1, vectors.shape[-1])
        if vectors.shape[0] == vectors.shape[1] and np.isfinite(vectors).all():
            return run.at("eigenvalues", row), vectors
    raise _refused(
        "S mixes the modes of a cross-entropy, and the state holds neither its kernel nor every eigenvector",
        run,
        f"NTKTracker(keep_kernel='all') or NTKTracker(top_k={run.dimension})",
    )


def _momentum(run: Run) -> Momentum:
    """That of every group of the optimizers.

    Raises:
        AnalysisError: another optimizer than SGD, weight decay, groups that differ, or clipped gradients.
    """
    found = set()
    for name, group in groups(run.optimizers):
        if name != "SGD":
            raise _refused(f"the optimizer is {name}, whose preconditioner is not stored", run)
        if held := [key for key in ("weight_decay", "maximize") if group.get(key)]:
            raise _refused(f"the optimizer has {held[0]}", run)
        found.add(Momentum.of(name, group))
    if len(found) > 1:
        raise _refused("parameter groups have different momentum", run)
    told = run.provenance.get("run")
    if isinstance(told, Mapping) and (clipping := told.get("clipping")):
        raise _refused(f"gradients are clipped ({clipping})", run)
    return found.pop() or Momentum()


def _check_trained(run: Run) -> None:
    """A held-out point does not move by its own residual."""
    if seen(run) == "no":
        raise _refused(
            "the probe is held out, and moves by the residual of the training points",
            run,
            "--probe with one of the training data: NTKTracker(probe={'train': 128, 'val': 128})",
        )


def _of_a_callable(run: Run) -> str:
    return (
        "the kernel is of a callable of the outputs"
        if run.settings.get("output") == "callable"
        else ("the gauge of softmax leaves out a part of the residual" if run.gauge == "softmax" else "")
    )


def _instead(reason: str) -> str:
    if "reduction" in reason or "callable" in reason:
        return 'NTKTracker(output="full")'
    if reason.startswith("the loss is not known"):
        return "NTKTracker(loss='half_mse' | 'mse' | 'cross_entropy')"
    return "params=None" if "some of the parameters" in reason else ""


def _refused(reason: str, run: Run, remedy: str = "") -> AnalysisError:
    return AnalysisError(f"no forecast: {reason}", where=run.path or None, remedy=f"Give {remedy}." if remedy else None)
