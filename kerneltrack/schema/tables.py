"""The archive's format as data: every dimension, dataset and root attribute, once.

The writer creates what stands here, the reader and ``kerneltrack check`` demand it, ``docs/format.md`` prints it.
Nothing else may know a dataset's dtype, dimensions, unit or meaning. Observables are the one open door: each entry of
:func:`kerneltrack.observables.catalogue` becomes a dataset of its own name, which must not be one of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

FORMAT = "kerneltrack"
FORMAT_VERSION = "1.1"
PROBE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

CHUNK_BYTES = 1 << 16  # rows share a chunk up to this size; a larger row has chunks of its own
MAX_CHUNK_ROWS = 1 << 10
MAX_CHUNK_BYTES = 1 << 23  # a row beyond this is cut into several chunks
MAX_TEXT_BYTES = 1 << 25  # of a JSON text; a reader holds it whole


@dataclass(frozen=True)
class Field:
    """One dataset.

    Attributes:
        name: its name inside its group.
        dims: names of its dimensions, slowest first.
        dtype: dtype on disk, little endian ("i8", "f4", "S1"); two separated by a space where the measured one of
            the two is kept.
        units: "1" where it is dimensionless, "" for text.
        long_name: one clause for axes and tables.
        required: whether every file has it.
        formula: definition in the notation of ``docs/notation.md``; observables only.
        source: paper and section of the formula; observables only.
        definition: which version of the formula the numbers follow, from 1; observables only, else 0.
        reading: what a higher value means, a typical range, what to look at beside it; observables only.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    required: bool = False
    formula: str = ""
    source: str = ""
    definition: int = 0
    reading: str = field(default="", compare=False)  # words: files with others hold the same column

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that a file may hold."""
        return tuple(self.dtype.split())

    @property
    def is_text(self) -> bool:
        """Whether it holds UTF-8 bytes, one per element of the last dimension."""
        return self.dtype == "S1"


DIMENSIONS: Mapping[str, str] = {
    "snapshot": "one row per measurement, in the order of appending; unlimited",
    "param_group": "parameter groups of the optimizer(s); as many as any row has, at least 1",
    "trigger_length": "bytes of a trigger, padded with zeros",
    "message_length": "bytes of a message, padded with zeros",
    "uuid_byte": "bytes of an identifier",
    "sha256_byte": "bytes of a digest",
    "restart": "starts of the run: the first, then one for each resume",
    "sample": "points of the probe, n",
    "sample_2": "points of the probe, second argument of the kernel, m",
    "output": "outputs of the network, o; where the targets are classes, the classes",
    "output_2": "the same for a second index, as in a table of classes by classes",
    "kernel_output": "outputs that the kernel keeps: O for full and diagonal (O − 1 for full in the gauge softmax), K for a "
    "callable, 1 for trace and sum",
    "kernel_output_2": "the same for the second argument of the kernel",
    "mode": "eigenvalues, descending: N for trace and sum, N·O for full and diagonal (N·(O − 1) for full in the gauge "
    "softmax), fewer for an iterative solver",
    "vector": "eigenvectors that are stored: the first top_k modes",
    "vector_2": "the same for the second index of a matrix on the initial basis",
    "other_vector": "eigenvectors of another probe",
    "coefficient": "components of a coefficient along one mode: O for trace (one per output; O − 1 in the gauge softmax), else 1",
    "energy_k": "numbers of leading modes at which relative energies are stored; its values are these k",
    "layer": "layers of which params= selects a parameter by name, frozen ones too, and others that train, in the order of the "
    "parameter table; beyond 512 those that train at the first snapshot, and 'other'",
}

#: Dimensions whose size is the format's.
FIXED_SIZES: Mapping[str, int] = {"trigger_length": 128, "message_length": 256, "uuid_byte": 16, "sha256_byte": 32}

#: Dimensions of the root; every other dimension belongs to a probe and is bound by the first row that carries it.
ROOT_DIMENSIONS = frozenset({"snapshot", "param_group", "restart", *FIXED_SIZES})

#: Attributes of the root group: name -> (type, who must have it, meaning).
ROOT_ATTRIBUTES: Mapping[str, tuple[str, str, str]] = {
    "format": ("string", "MUST", f'"{FORMAT}"'),
    "format_version": ("string", "MUST", "major.minor of the format that the file follows"),
    "Conventions": ("string", "MUST", "CF-1.11"),
    "archive_id": ("string", "MUST", "random identifier (UUID); a part belongs to the main file with the same one"),
    "run_id": ("string", "MUST", "identifier of the run; a resume continues only its own"),
    "role": ("string", "MUST", '"main" for the archive itself, "part" for a piece not yet joined'),
    "source": ("string", "MUST", "the program and version that wrote the file"),
    "date_created": ("string", "MUST", "when the archive was created, ISO 8601, UTC"),
    "history": ("string", "MUST", "one line per event: creation, resumes, locks of dead writers that were broken"),
    "control_of": (
        "string",
        "MAY",
        "archive_id of the run that this one goes on from, with the learning rate that it had before `fork_step`; since 1.1",
    ),
    "placebo_of": (
        "string",
        "MAY",
        "archive_id of the run that this one goes on from, with that run's learning rates and other batches; since 1.1",
    ),
    "fork_step": ("integer", "MAY", "the step of the state that it goes on from; since 1.1"),
    "batches": (
        "string",
        "MAY",
        "whether its batches are those of the run that it goes on from: same_batches, other_batches (one was another, or nothing "
        "tells), unverified (the run has not ended); since 1.1",
    ),
    "title": ("string", "MAY", "what the archive is about"),
    "license": ("string", "MAY", "SPDX identifier; set by publishing"),
    "creator_name": ("string", "MAY", "authors; set by publishing"),
    "creator_email": ("string", "MAY", "contact; set by publishing"),
}

#: One row per snapshot, at the root.
ROOT_FIELDS: tuple[Field, ...] = (
    Field("snapshot", ("snapshot",), "i8", "1", "index of the row in the order of appending, from 0", required=True),
    Field("step", ("snapshot",), "i8", "1", "optimizer updates applied before the measurement", required=True),
    Field("epoch", ("snapshot",), "i4", "1", "epoch, counted from 0", required=True),
    Field("batch", ("snapshot",), "i8", "1", "training batches consumed; -1 unknown", required=True),
    Field("samples_seen", ("snapshot",), "i8", "1", "training samples consumed; -1 unknown", required=True),
    Field("wall_time", ("snapshot",), "f8", "s", "seconds since 1970-01-01T00:00:00Z", required=True),
    Field("train_seconds", ("snapshot",), "f8", "s", "seconds of training, measurements not counted", required=True),
    Field("snapshot_seconds", ("snapshot",), "f8", "s", "cost of the measurement", required=True),
    Field(
        "learning_rate",
        ("snapshot", "param_group"),
        "f8",
        "1",
        "learning rate of each parameter group in the update that leaves the state; NaN where there is no such group",
        required=True,
    ),
    Field(
        "training_loss",
        ("snapshot",),
        "f8",
        "1",
        "loss of the batch of the update that leaves the state",
        required=True,
    ),
    Field(
        "trigger",
        ("snapshot", "trigger_length"),
        "S1",
        "",
        "schedule that asked for the measurement, UTF-8",
        required=True,
    ),
    Field(
        "window",
        ("snapshot",),
        "u1",
        "1",
        "1 for the second state of a pair (t, t+1), 2 for the third of a triple, else 0",
        required=True,
    ),
    Field(
        "lag", ("snapshot",), "f8", "1", "updates since the first state of the pair or triple; NaN where window is 0"
    ),
    Field(
        "update_applied", ("snapshot",), "i1", "1", "1 the update happened, 0 it was skipped, -1 unknown", required=True
    ),
    Field("status", ("snapshot",), "u1", "1", "0 ok, 1 failed", required=True),
    Field("message", ("snapshot", "message_length"), "S1", "", "reason of a failure, UTF-8", required=True),
    Field("segment", ("snapshot",), "i4", "1", "which (re)start of the run wrote the row, from 0", required=True),
    Field(
        "snapshot_id", ("snapshot", "uuid_byte"), "u1", "1", "random identifier of the row (UUID bytes)", required=True
    ),
    Field(
        "content_sha256",
        ("snapshot", "sha256_byte"),
        "u1",
        "1",
        "digest of everything that the row holds",
        required=True,
    ),
)

#: One row per (re)start of the run, in /segments/.
SEGMENT_FIELDS: tuple[Field, ...] = (
    Field("number", ("restart",), "i4", "1", "the segment, from 0", required=True),
    Field(
        "resumed_from_step",
        ("restart",),
        "i8",
        "1",
        "step of the checkpoint that the segment continues; -1 for the first",
        required=True,
    ),
    Field("started", ("restart",), "f8", "s", "seconds since 1970-01-01T00:00:00Z", required=True),
)

#: Once per archive, in /provenance/: JSON texts.
PROVENANCE_TEXTS: Mapping[str, str] = {
    "run": "run_id, created, versions, model, device, deterministic, matmul_precision, threads, seed, git_revision, "
    'git_changed, optimizers (class and settings of each parameter group), clipping (how gradients are clipped, or ""), '
    "precision, strategy, world_size, schedule, "
    "loss, observables",
    "metadata": "the user's own keys: what comparisons group by",
    "parameters": "one entry per parameter: name, shape, dtype, trainable, layer, group (index along param_group)",
    "private": "host, user, paths, command; left out of a published copy",
}

#: Once per probe, in /probes/<name>/: JSON texts.
PROBE_TEXTS: Mapping[str, str] = {
    "settings": "what is measured and how: output reduction, gauge (raw or softmax) and the factor to the mean trace, parameter "
    "subset, mode, dtype, loss and its normalisation, stability scope, layers, energy_k, eigenpairs (all or leading), "
    "extension_of",
    "identity": "where the samples come from (dataset, split, indices, transform), as the user gave it; or null",
    "input_shapes": 'key of each input ("" for a single tensor) to [dtype, shape]',
}

#: Attributes of /probes/<name>.
PROBE_ATTRIBUTES: Mapping[str, tuple[str, str, str]] = {
    "fingerprint": ("string", "MUST", '"sha256:…" of the bytes (dtype, shape, data) of inputs and targets'),
    "count": ("integer", "MUST", "N, the number of samples"),
    "target_encoding": ("string", "MUST", '"real", "one-hot" or "none"'),
    "inputs_stored": ("integer", "MUST", "1 if the inputs are in the file, 0 if they are left out"),
    "probe_in_training": ("string", "MAY", 'whether the samples are trained on: "yes", "no" or "unknown"; since 1.1'),
    "gauge": ("string", "MAY", '"raw" or "softmax", as in the settings; raw where there is none'),
}

#: Once per probe, in /probes/<name>/.
PROBE_FIELDS: tuple[Field, ...] = (
    Field("targets", ("sample", "output"), "f8", "1", "targets as they are aligned against (one-hot for classes)"),
    Field("energy_k", ("energy_k",), "i8", "1", "numbers of leading modes at which energies are stored"),
)

#: One row per snapshot, in /probes/<name>/; NaN (or no chunk) where the probe was not measured.
MEASUREMENT_FIELDS: tuple[Field, ...] = (
    Field("eigenvalues", ("snapshot", "mode"), "f8", "1", "eigenvalues of the kernel matrix, descending"),
    Field(
        "eigenvectors",
        ("snapshot", "sample", "kernel_output", "vector"),
        "f4",
        "1",
        "unit eigenvectors of the kernel matrix; largest component positive",
    ),
    Field(
        "mode_sums", ("snapshot", "mode", "kernel_output"), "f8", "1", "Σ_n v_i[n, o]: each mode's sum over the probe"
    ),
    Field("target_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, y⟩ of the targets"),
    Field("output_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, f_t⟩ of the outputs"),
    Field("residual_coefficients", ("snapshot", "mode", "coefficient"), "f8", "1", "⟨v_i, m_t⟩ of the residual"),
    Field(
        "displacement_coefficients",
        ("snapshot", "mode", "coefficient"),
        "f8",
        "1",
        "⟨v_i, f_t − f_0⟩ of the outputs' way from initialisation",
    ),
    Field("outputs", ("snapshot", "sample", "output"), "f8", "1", "f_t on the probe"),
    Field("residual", ("snapshot", "sample", "output"), "f8", "1", "m_t = N·∂L/∂f on the probe"),
    Field(
        "kernel",
        ("snapshot", "sample", "sample_2", "kernel_output", "kernel_output_2"),
        "f4 f8",
        "1",
        "the kernel itself, Θ_t[n, m, o, p]; stored for the snapshots that keep_kernel names",
    ),
    Field(
        "cross_time_kernel",
        ("snapshot", "sample", "sample_2", "kernel_output", "kernel_output_2"),
        "f4 f8",
        "1",
        "J_t J_0ᵀ, the kernel between the state and the initial one",
    ),
    Field(
        "initial_basis",
        ("snapshot", "vector", "vector_2"),
        "f8",
        "1",
        "V_0ᵀ Θ_t V_0: the kernel on the eigenvectors of initialisation",
    ),
    Field(
        "extension",
        ("snapshot", "sample", "kernel_output", "other_vector"),
        "f4",
        "1",
        "Θ_t(this probe, other probe) V: the eigenvectors of the probe that extension_of names, carried to this one",
    ),
)

ROOT: Mapping[str, Field] = {field.name: field for field in ROOT_FIELDS}
MEASUREMENTS = {field.name: field for field in MEASUREMENT_FIELDS}
#: Names that an observable cannot have.
RESERVED = frozenset({*DIMENSIONS, *ROOT, *PROBE_TEXTS, *MEASUREMENTS, *(f.name for f in PROBE_FIELDS), "inputs"})
