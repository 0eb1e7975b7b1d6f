"""Withheld: stored numbers that mislead, recognised by what is stored beside them, and why.

Since 0.1.1 the tracker stores NaN for these; numbers of a later definition are told as they are. Older archives, and those
of other software, still hold numbers: there :meth:`Run.values` and :meth:`Run.at` give NaN, and :meth:`Run.require` says the
reason. Nothing of the analysis reads past these three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import no_plain_descent
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import SUPERSEDED, change_is_rounding, grams_tell, in_training

if TYPE_CHECKING:
    import xarray as xr

    from kerneltrack.snapshot import InTraining

Rows = NDArray[np.bool_]
Floats = NDArray[np.float64]

NOT_ONE_LAG = "snapshots are not at one lag"
NOT_SQUARES = "the loss is not a mean of squares"
SEEN = "the kernel has seen these labels"
ROUNDING = "change of the outputs is rounding"
PERHAPS_ROUNDING = "change of the outputs may be rounding: the state one update later is not stored"
JACOBIAN_ROUNDING = "the change of the Jacobian is rounding"
FLAT = "constant off the diagonal"
FLATTENED = "of the flattened kernel: of one fit to every output alike, 1/O"

_REMEDIES = {
    NOT_ONE_LAG: "Measure kernel_angular_velocity, with schedule=n or pairs, schedule=kt.schedule.Every(n, window=2).",
    NOT_SQUARES: "It is defined for loss='half_mse' and loss='mse'.",
    SEEN: "Take a probe from the validation loader, probe={'train': 128, 'val': 128}, or say that it is held out: "
    "Probe(..., identity={'split': 'validation'}).",
}
#: The first version whose tracker looked for rounding itself.
_LOOKED = (0, 1, 1)
#: A gap between the function in training and the measured one, of the size of the latter: they are two functions.
APART = 1.0
#: A stored share, or a ratio of two levels, that is one.
_ONE = 1e-6


@dataclass(frozen=True)
class Withheld:
    """What of one stored array is not to be read.

    Attributes:
        rows: (S,) True where its number misleads.
        reason: why; "" where no row does.
    """

    rows: Rows
    reason: str

    @property
    def remedy(self) -> str | None:
        """What to do about it, where anything can be done."""
        return _REMEDIES.get(self.reason)


class Stored(Protocol):
    """What the rules look at; a :class:`Run` has it."""

    @property
    def dataset(self) -> xr.Dataset: ...
    @property
    def identity(self) -> Mapping[str, Any] | None: ...
    @property
    def in_training(self) -> InTraining | None: ...
    @property
    def software(self) -> str: ...
    @property
    def off_lag(self) -> Rows | None: ...
    @property
    def optimizers(self) -> object: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def steps(self) -> NDArray[np.int64]: ...
    @property
    def measured(self) -> Rows: ...
    def stored_at(self, name: str, row: int) -> Floats: ...
    def withheld(self, name: str) -> Withheld: ...
    def __len__(self) -> int: ...


def withheld(run: Stored, name: str) -> Withheld:
    """What of the stored array ``name`` misleads in this run."""
    rule = _RULES.get(name)
    if rule is None or name not in run.dataset or not len(run) or _mended(run, name):
        return Withheld(np.zeros(len(run), dtype=bool), "")
    rows, reason = rule(run)
    return Withheld(rows, reason if rows.any() else "")


def _mended(run: Stored, name: str) -> bool:
    """Whether the stored numbers follow a definition of which none misleads in this way."""
    definition = run.dataset[name].attrs.get("definition", 1)
    return name in _MENDED and isinstance(definition, int | np.integer) and bool(definition >= _MENDED[name])


def misleading(run: Stored) -> list[tuple[str, str]]:
    """(name, what is withheld and why, what came after it) of everything stored that misleads."""
    found = []
    for name in sorted((set(_RULES) | set(SUPERSEDED)) & set(map(str, run.dataset.data_vars))):
        here, said = run.withheld(name), []
        count = int(np.sum(here.rows & run.measured))
        if here.reason and count:
            said.append(f"withheld in {count} of {int(run.measured.sum())} snapshots: {here.reason}")
        if name in SUPERSEDED:
            said.append(f"superseded by {SUPERSEDED[name].by[0]}: {SUPERSEDED[name].reason}")
        if said:
            found.append((name, "; ".join(said)))
    return found


def missing(name: str, why: str, where: str = "", held_back: Withheld | None = None) -> AnalysisError:
    """The error for what an archive does not hold, or holds but misleads: which name, for what, and how to get it."""
    if held_back is not None and held_back.reason:
        return AnalysisError(
            f"{why} needs {name!r}, which is withheld: {held_back.reason}", where=where or None, remedy=held_back.remedy
        )
    return AnalysisError(
        f"{why} needs {name!r}, which the archive does not hold", where=where or None, remedy=_remedy(name)
    )


def _remedy(name: str) -> str:
    if name in ("targets", "target_coefficients", "target_energy", "target_energy_null", "kernel_target_alignment"):
        return "Give the tracker a probe with targets: NTKTracker(probe=Probe(inputs, targets))."
    if name in ("probe_loss", "stability_ratio", "stability_bound"):
        known = "" if name == "probe_loss" else " The bound is known for SGD, with or without momentum."
        return f"Tell the tracker the loss: NTKTracker(loss='half_mse' | 'mse' | 'cross_entropy' | callable).{known}"
    if name == "eigenvectors":
        return "Store eigenvectors: NTKTracker(top_k=64)."
    if name == "inputs":
        return "Keep the probe's inputs in the archive: NTKTracker(keep_inputs=True)."
    if name == "kernel":
        return "Keep the kernel: NTKTracker(keep_kernel='ends' | 'all')."
    if name == "extension":
        return (
            "Give the tracker two probes, probe={'new': …, 'old': …}, and look through the second one: "
            "NTKTracker(observables=[..., 'target_energy_out_of_sample'])."
        )
    return f"Measure it: NTKTracker(observables=[..., {name!r}]), or `kerneltrack track` from checkpoints."


def gauge_note(run: Stored) -> str:
    """What must be said of every number of a softmax loss, or "".

    Softmax ignores one function added to all outputs. The loss, its residual and its curvature do not see that function;
    kernel, outputs and whatever is made of them do.
    """
    if run.settings.get("gauge") == "softmax":
        return ""
    loss = re.sub(r"[^a-z]", "", str(run.settings.get("loss") or "").lower())
    if "crossentropy" not in loss or loss.startswith(("binary", "bce")) or run.dataset.sizes.get("output", 2) < 2:
        return ""
    return (
        "The loss is a cross-entropy over several outputs, and softmax ignores one function added to all of them: "
        "every number here other than ρ and the loss depends on that gauge. NTKTracker(gauge='softmax') takes it off."
    )


def off_lag(run: Stored) -> Rows:
    """Rows whose gap since the state measured before is not the run's lag, the first gap that a velocity was stored for."""
    stored: Rows = np.asarray(np.isfinite(_stored(run, "kernel_velocity")).any(axis=1))
    here = _of_probe(run)
    order = np.flatnonzero(here)
    order = order[np.argsort(run.steps[order], kind="stable")]
    gaps = np.full(len(run), np.nan)
    gaps[order[1:]] = np.diff(run.steps[order])
    known = [row for row in order if stored[row] and gaps[row] > 0]
    lag = gaps[known[0]] if known else np.nan
    return np.asarray((here | stored) & (gaps != lag))


def _lag(run: Stored) -> tuple[Rows, str]:
    return (off_lag(run) if run.off_lag is None else run.off_lag), NOT_ONE_LAG


def _squares(run: Stored) -> tuple[Rows, str]:
    return np.full(len(run), run.settings.get("loss") not in ("half_mse", "mse")), NOT_SQUARES


def seen(run: Stored) -> InTraining:
    """Whether the probe is trained on: what the archive says, or, where it does not (format 1.0), the probe's identity."""
    return run.in_training or in_training(run.identity if isinstance(run.identity, Mapping) else None)


def sample_note(run: Stored) -> str:
    """What must be said of alignments and energies on points that were trained on, or ""."""
    said = {
        "yes": "The probe's points are trained on: alignments and energies after step 0 are in-sample.",
        "unknown": "Whether the probe's points are trained on is not known: take alignments and energies for in-sample.",
    }
    return said.get(seen(run), "")


def mode_note(run: Stored) -> str:
    """What must be said where at the start the network in training is another function than the measured one, or "".

    BatchNorm's running statistics are those of no data before the first updates: in eval mode the initial network, and with it
    every number that is told against the start, is of another scale than the one that trained.
    """
    if "function_gap" not in run.dataset:
        return ""
    gaps = np.asarray(run.dataset["function_gap"].values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(gaps))
    if not known.size or gaps[known[0]] < APART:
        return ""
    (first, at_first), (last, at_last) = ((run.steps[i], f"{gaps[i]:.2g}") for i in (known[0], known[-1]))
    return (
        f"At step {first} the outputs in training (batch statistics, dropout) differed by {at_first} times the size of those "
        f"that are measured, in eval mode; at step {last} by {at_last} (function_gap). What is told against the start (laziness, "
        "kernel motion) holds what running statistics did, too."
    )


def _seen(run: Stored) -> tuple[Rows, str]:
    return np.asarray((run.steps != 0) & (seen(run) != "no")), SEEN


def _regression(run: Stored) -> tuple[Rows, str]:
    """Where the loss is a mean of squares: of points that were trained on, what is known to be no prediction."""
    rows, reason = _squares(run)
    if not rows.any() and seen(run) == "yes":
        return np.asarray(run.steps != 0), SEEN
    return rows, reason


def _not_descent(run: Stored) -> tuple[Rows, str]:
    reason = no_plain_descent(run.optimizers)
    return np.full(len(run), bool(reason)), f"the update is not plain gradient descent: {reason}"


def _jacobian(run: Stored) -> tuple[Rows, str]:
    """Changes that Gram matrices cannot tell from their rounding, by the stored λ_1; all where that is not stored."""
    if "eigenvalues" not in run.dataset or "jacobian_change" not in run.dataset:
        return np.full(len(run), True), JACOBIAN_ROUNDING
    dtype, largest = run.settings.get("dtype"), _stored(run, "eigenvalues")[:, 0]
    changes = _stored(run, "jacobian_change")[:, 0]
    told = [size == 0 or grams_tell(size, top, dtype) for size, top in zip(changes, largest, strict=True)]
    return ~np.asarray(told), JACOBIAN_ROUNDING


def _flat(run: Stored) -> tuple[Rows, str]:
    """A share of one belongs to classes only where the stored levels differ."""
    share = _stored(run, "class_block_share")[:, 0]
    flat: Rows = np.asarray(share >= 1 - _ONE)
    if "class_within" in run.dataset and "class_between" in run.dataset:
        within, between = (_stored(run, f"class_{name}")[:, 0] for name in ("within", "between"))
        with np.errstate(invalid="ignore", over="ignore"):
            flat &= ~(np.abs(within - between) > _ONE * np.abs(within))
    return flat, FLAT


def _flattened(name: str) -> Callable[[Stored], tuple[Rows, str]]:
    """Definition 1 of an alignment was, of a kernel with several outputs, what is called flattened since."""

    def rule(run: Stored) -> tuple[Rows, str]:
        first = int(run.dataset[name].attrs.get("definition", 1)) < 2
        several = run.settings.get("output") in ("full", "diagonal") and run.dataset.sizes.get("output", 2) > 1
        return np.full(len(run), first and several), FLATTENED

    return rule


def _rounding(run: Stored) -> tuple[Rows, str]:
    """Exactly where f_{t+1} is stored; elsewhere only a tracker that looked for rounding is believed."""
    found = np.full(len(run), not _looked(run))
    measured = np.flatnonzero(_of_probe(run)) if "outputs" in run.dataset else np.empty(0, int)
    rows = {int(run.steps[row]): int(row) for row in measured}
    certain = False
    for step, row in rows.items():
        if step + 1 in rows:
            found[row] = is_rounding(run, run.stored_at("outputs", row), run.stored_at("outputs", rows[step + 1]))
            certain |= bool(found[row])
    return found, ROUNDING if certain else PERHAPS_ROUNDING


def is_rounding(run: Stored, before: Floats, after: Floats) -> bool:
    """Whether outputs f_t and f_{t+1} of the run differ by their rounding only."""
    with np.errstate(all="ignore"):  # a stranger's numbers may be of any size
        size = max(float(np.linalg.norm(before)), float(np.linalg.norm(after)))
        return change_is_rounding(float(np.linalg.norm(after - before)), size, run.settings.get("dtype"))


def _looked(run: Stored) -> bool:
    version = re.match(r"kerneltrack (\d+)\.(\d+)\.(\d+)", run.software)
    return version is not None and tuple(map(int, version.groups())) >= _LOOKED


def _of_probe(run: Stored) -> Rows:
    """Rows in which this probe was measured, whatever became of the others."""
    for name in ("eigenvalues", "trace"):
        if name in run.dataset:
            return np.asarray(np.isfinite(_stored(run, name)[:, :1]).any(axis=1))
    return run.measured


def _stored(run: Stored, name: str) -> Floats:
    """(S, …) as it stands in the file, one row a snapshot."""
    return np.asarray(run.dataset.variables[name].values, dtype=np.float64).reshape(len(run), -1)


#: The first definition of an observable to which its rule below does not apply.
_MENDED = {
    "linearization_error": 2,
    "linearization_cosine": 2,
    "kernel_flow_error": 2,
    "measured_factor": 2,
    "ledger_curvature": 2,
    "predicted_factor": 2,
    "jacobian_change": 2,
    "jacobian_stability": 2,
}
_FLATTENED_ONCE = (
    "kernel_target_alignment", "kernel_target_alignment_centred", "layer_target_alignment",
    "layer_target_alignment_centred", "optimizer_target_alignment",
)  # fmt: skip
_RULES: dict[str, Callable[[Stored], tuple[Rows, str]]] = {
    "kernel_velocity": _lag,
    "network_error": _squares,
    "kernel_regression_error": _regression,
    "leave_one_out_error": _seen,
    "kernel_alignment_risk": _seen,
    "linearization_error": _rounding,
    "linearization_cosine": _rounding,
    "kernel_flow_error": _rounding,
    "measured_factor": _rounding,
    "ledger_curvature": _rounding,
    "class_block_share": _flat,
    "predicted_factor": _not_descent,
    **{name: _flattened(name) for name in _FLATTENED_ONCE},
    "jacobian_change": _jacobian,
    "jacobian_stability": _jacobian,
}
