"""The archive's format as data: every dimension, dataset and root attribute, once.

The writer creates what stands here, the reader and ``kerneltrack check`` demand it, ``docs/format.md`` prints it. Nothing
else may know a dataset's dtype, dimensions, unit or meaning. Observables are the one open door: each entry of
:func:`kerneltrack.observables.catalogue` becomes a dataset of its own name (see :func:`observable_field`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = "kerneltrack"
FORMAT_VERSION = "1.0"


@dataclass(frozen=True)
class Field:
    """One dataset: its name, dimensions, dtype on disk (little endian), unit ("1" = dimensionless) and meaning."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    required: bool = False


DIMENSIONS: Mapping[str, str] = {
    "snapshot": "one row per measurement, in the order of appending; unlimited",
    "param_group": "parameter groups of the optimizer(s)",
    "sample": "points of the probe, n",
    "sample_2": "points of the probe, second argument of the kernel, m",
    "output": "outputs of the network, o",
    "kernel_output": "outputs that the kernel keeps: O for full and diagonal, K for a callable, 1 for trace and sum",
    "kernel_output_2": "the same for the second argument of the kernel",
    "mode": "eigenvalues, descending: N for trace and sum, N·O for full and diagonal, fewer for an iterative solver",
    "vector": "eigenvectors that are stored: the first top_k modes",
    "coefficient": "components of a coefficient along one mode: O for trace (one per output), else 1",
    "energy_k": "numbers of leading modes at which relative energies are stored; its values are these k",
    "layer": "layers, in the order of the provenance's parameter table",
}

#: One row per snapshot, at the root.
ROOT_FIELDS: tuple[Field, ...] = (
    Field("step", ("snapshot",), "i8", "1", "optimizer updates applied before the measurement", required=True),
    Field("epoch", ("snapshot",), "i4", "1", "epoch, counted from 0", required=True),
    Field("batch", ("snapshot",), "i8", "1", "training batches consumed; -1 unknown", required=True),
    Field("samples_seen", ("snapshot",), "i8", "1", "training samples consumed; -1 unknown", required=True),
    Field("wall_time", ("snapshot",), "f8", "s", "seconds since 1970-01-01T00:00:00Z", required=True),
    Field("train_seconds", ("snapshot",), "f8", "s", "seconds of training, measurements not counted", required=True),
    Field("snapshot_seconds", ("snapshot",), "f8", "s", "cost of the measurement", required=True),
    Field(
        "learning_rate", ("snapshot", "param_group"), "f8", "1",
        "learning rate of each parameter group in the update that leaves the state", required=True,
    ),
    Field("training_loss", ("snapshot",), "f8", "1", "loss of the batch of the update that leaves the state", required=True),
    Field("trigger", ("snapshot",), "S128", "", "schedule that asked for the measurement, UTF-8", required=True),
    Field("window", ("snapshot",), "u1", "1", "1 for the second state of a pair (t, t+1), else 0", required=True),
    Field("update_applied", ("snapshot",), "i1", "1", "1 the update happened, 0 it was skipped, -1 unknown", required=True),
    Field("status", ("snapshot",), "u1", "1", "0 ok, 1 failed", required=True),
    Field("message", ("snapshot",), "S256", "", "reason of a failure, UTF-8", required=True),
    Field("segment", ("snapshot",), "i4", "1", "which (re)start of the run wrote the row, from 0", required=True),
    Field("snapshot_id", ("snapshot", "uuid_byte"), "u1", "1", "random identifier of the row (UUID bytes)", required=True),
)

#: Once per probe, in /probes/<name>/.
PROBE_FIELDS: tuple[Field, ...] = (
    Field("targets", ("sample", "output"), "f8", "1", "targets as they are aligned against (one-hot for classes)"),
    Field("energy_k", ("energy_k",), "i8", "1", "numbers of leading modes at which energies are stored"),
)

#: One row per snapshot, in /probes/<name>/; NaN (or no chunk) where the probe was not measured.
MEASUREMENT_FIELDS: tuple[Field, ...] = (
    Field("eigenvalues", ("snapshot", "mode"), "f8", "1", "eigenvalues of the kernel matrix, descending"),
    Field(
        "eigenvectors", ("snapshot", "sample", "kernel_output", "vector"), "f4", "1",
        "unit eigenvectors of the kernel matrix; largest component positive",
    ),
    Field("mode_sums", ("snapshot", "mode", "kernel_output"), "f8", "1", "Σ_n v_i[n, o]: each mode's sum over the probe"),
    Field("target_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, y⟩ of the targets"),
    Field("output_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, f_t⟩ of the outputs"),
    Field("residual_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, m_t⟩ of the residual"),
    Field(
        "displacement_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1",
        "⟨v_i, f_t − f_0⟩ of the outputs' way from initialisation",
    ),
    Field("outputs", ("snapshot", "sample", "output"), "f8", "1", "f_t on the probe"),
    Field("residual", ("snapshot", "sample", "output"), "f8", "1", "m_t = N·∂L/∂f on the probe"),
    Field(
        "kernel", ("snapshot", "sample", "sample_2", "kernel_output", "kernel_output_2"), "f4", "1",
        "the kernel itself, Θ_t[n, m, o, p]; stored for the snapshots that keep_kernel names",
    ),
)
