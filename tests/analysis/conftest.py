"""A run known in closed form: a kernel with a fixed eigenbasis and growing eigenvalues, and GD on it.

The residual obeys m_{t+1} = (I − η_t Θ_t/N) m_t exactly, and Θ_t = V diag(λ(t)) Vᵀ, so in the basis V each coefficient
is a product of factors. λ_1/N grows logistically towards 2/η_t, as at the edge of stability; η is halved at step HALVED
in the run and stays in the control. With two outputs the same number of modes stands on half as many samples: only there
the number of samples is not the number of modes.
"""

import dataclasses
import fcntl
import os
from dataclasses import dataclass

import numpy as np
import pytest

from kerneltrack.analysis.report.inline_svg import InlineSvg
from kerneltrack.analysis.report.page import write_report
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot
from tests.archive import at_once

N, HALVED, LAST, TOP_K = 48, 300, 700, 16
ENERGY_K = (1, 2, 5, 10, 20, N)
STEPS = (0, 1, 3, 10, 30, 100, 200, HALVED - 1, HALVED, HALVED + 1, HALVED + 10, HALVED + 100, LAST)


@dataclass(frozen=True)
class Truth:
    """What the archive was made from; tests recompute from these, never from the analysis."""

    points: np.ndarray
    target: np.ndarray
    basis: np.ndarray
    eigenvalues: dict  # step -> (N,)
    coefficients: dict  # step -> (N,) of the residual along the basis
    rates: dict  # step -> η of the update that leaves the state
    outputs: int = 1

    @property
    def count(self):
        """Samples; the rest of this file writes N for the modes, rows ordered (sample, output)."""
        return N // self.outputs

    def on_samples(self, values):
        """(N, …) as (samples, outputs, …)."""
        return values.reshape(self.count, self.outputs, *values.shape[1:])


def simulate(*, halve=True, start=0, seed=7, outputs=1):
    generator, count = np.random.default_rng(seed), N // outputs
    points = generator.random((count, 2))
    # A disc beside a ramp: a picture with an edge; a second output has it upside down.
    picture = np.where(np.hypot(*(points - 0.4).T) < 0.25, 1.5, -0.5) + points[:, 0] - 0.5
    target = np.stack([picture, 1 - points[:, 1] - picture][:outputs], axis=1).reshape(N)
    basis = np.linalg.qr(generator.standard_normal((N, N)))[0]
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(N)])
    values = 3.2 * count * np.arange(1, N + 1) ** -1.5
    coefficients = basis.T @ (0.05 * generator.standard_normal(N) - target)
    kept = {"eigenvalues": {}, "coefficients": {}, "rates": {}}
    for step in range(LAST + 1):
        rate = 0.125 if halve and step >= HALVED else 0.25
        if step in STEPS and step >= start:
            for name, value in (("eigenvalues", values), ("coefficients", coefficients), ("rates", rate)):
                kept[name][step] = value
        coefficients = (1 - rate * values / count) * coefficients
        values = values * (1 + 0.02 * (1 - values[0] / (2 * count / rate)))
    return Truth(points, target, basis, **kept, outputs=outputs)


def energies(coefficients):
    return np.cumsum(coefficients**2)[np.array(ENERGY_K) - 1] / np.sum(coefficients**2)


def measurement(truth, step, first):
    values, residual = truth.eigenvalues[step], truth.coefficients[step]
    target = truth.basis.T @ truth.target
    share = values / values.sum()
    bound = 2 * truth.count / truth.rates[step]
    layers = np.array([0.25, 0.5, 0.25]) + step / LAST * np.array([0.1, 0, -0.1])
    # m_{t+1} = (I − ηΘ/N) m_t exactly: kernel flow is the whole update, each layer its share of the kernel
    flow = -truth.rates[step] / truth.count * values * residual
    matrix = truth.on_samples((truth.basis * values) @ truth.basis.T).reshape(*2 * (truth.count, truth.outputs))
    kernel = {"kernel": matrix.transpose(0, 2, 1, 3).astype("f4")}
    return {
        **(kernel if step in (0, LAST) else {}),
        "eigenvalues": values,
        "eigenvectors": truth.on_samples(truth.basis)[..., :TOP_K].astype("f4"),
        "mode_sums": truth.on_samples(truth.basis).sum(axis=0).T,
        "target_coefficients": target[:, None],
        "output_coefficients": (target + residual)[:, None],
        "residual_coefficients": residual[:, None],
        "displacement_coefficients": (residual - first)[:, None],
        "outputs": truth.on_samples(truth.basis @ (target + residual)),
        "residual": truth.on_samples(truth.basis @ residual),
        "target_energy": energies(target),
        "target_energy_null": np.array(ENERGY_K) / N,
        "output_energy": energies(target + residual),
        "residual_energy": energies(residual),
        "stability_ratio": np.array(values[0] / bound),
        "stability_bound": np.array(bound),
        "effective_rank": np.array(np.exp(-np.sum(share * np.log(share)))),
        "participation_ratio": np.array(values.sum() ** 2 / np.sum(values**2)),
        "trace": np.array(values.sum()),
        "probe_loss": np.array(np.sum(residual**2) / (2 * truth.count)),
        "kernel_flow_error": np.array(1e-3),
        "linearization_error": np.array(1e-3),
        "anchored_linearization_error": np.array(0.4),
        "kernel_distance_from_initial": np.array(0.1),
        "kernel_target_alignment": np.array(0.2),
        "kernel_target_alignment_null": np.array(0.05),
        "layer_share": layers,
        "ledger_kernel_flow": (flow[:, None] * layers)[:, :, None],
        "ledger_remainder": np.zeros((N, 3, 1)),
        "ledger_curvature": np.zeros((N, 1)),
        "network_error": np.array(np.sum(residual**2) / np.sum(target**2)),
        "kernel_regression_error": np.array(0.5 * np.exp(-step / 50)),
        # fast for the first seven snapshots, then a hundred times slower, with an alternation of a tenth
        "kernel_angular_velocity": np.array((1e-3 if step < 200 else 1e-5) * (1 + 0.1 * (-1.0) ** STEPS.index(step))),
        "activation_neuron_deviation": np.array([0.1, 0.2, np.nan]) * step / LAST,
        "activation_layer_deviation": np.array([1.0, 2.0, np.nan]) * step / LAST,
        "class_diagonal": np.array(3.0),
        "class_within": np.array(1 + step / LAST),
        "class_between": np.array(1.0),
        "class_pair_r2": np.array(0.1 + 0.3 * step / LAST),
        "class_pair_r2_null": np.array(0.01),
        "class_pair_r2_score": np.array(9.0 + step / LAST),
        "noise_floor": np.array(8 * 2**-52 * values[0]),
        "eigen_residual": np.array(3e-15 * values[0]),
    }


def snapshots(truth, *, probe="train", drop=()):
    first = truth.coefficients[min(truth.coefficients)]
    for step in truth.eigenvalues:
        measured = {name: value for name, value in measurement(truth, step, first).items() if name not in drop}
        yield Snapshot(
            step=step,
            epoch=step,
            learning_rates=(truth.rates[step],),
            training_loss=float(measured.get("probe_loss", 1.0)),
            trigger="At(…)",
            wall_time=1.75e9 + step,
            train_seconds=0.01 * step,
            snapshot_seconds=0.5,
            update_applied=True,
            probes={probe: measured},
        )


def record(truth, *, probe="train", fingerprint="sha256:" + "a" * 64, inputs=True, identity=None, **settings):
    return ProbeRecord(
        name=probe,
        fingerprint=fingerprint,
        count=truth.count,
        targets=truth.on_samples(truth.target),
        target_encoding="real",
        input_shapes={"": ("float64", (truth.count, 2))},
        inputs={"": truth.points} if inputs else None,
        identity=identity,
        settings={
            "output": "full",
            "loss": "half_mse",
            "dtype": "float64",
            "stability_scope": "exact",
            "parameter_count": 1000,
            "energy_k": list(ENERGY_K),
            "layers": ["0", "2", "4"],
            **settings,
        },
    )


def provenance(**metadata):
    return Provenance(
        run={"run_id": "run-1", "optimizers": [{"class": "SGD", "groups": [{"lr": 0.25, "momentum": 0}]}]},
        metadata={"seed": 7, **metadata},
        private={"host": "secret-host", "user": "secret-user"},
    )


def dials(snapshot):
    """Numbers that are measured on request, each in closed form of the step."""
    ratio, rate, time = (
        float(snapshot.probes["train"]["stability_ratio"]),
        snapshot.learning_rates[0],
        snapshot.step / LAST,
    )
    scalars = {
        "gauss_newton_sharpness": 2 * ratio / rate,
        "hessian_sharpness": 2.5 * ratio / rate,
        "hessian_stability_ratio": 1.25 * ratio,
        "gauss_newton_share": 0.8,
        "batch_sharpness": 3 / rate,
        "batch_sharpness_error": 0.3 / rate,
        "batch_stability_ratio": 1.5,
        "one_step_criterion": 1 + 1.5 * time,
        "one_step_criterion_batch": 2 * (1 + 1.5 * time),
        "kernel_target_alignment": 0.1 + 0.4 * min(1, snapshot.step / 100),
    }
    own = snapshot.probes["train"]["eigenvalues"]
    change = {"loss_weighted_eigenvalues": own**2 * (1 + time)}
    change |= {"weight_spectral_change": np.array([0.2, np.nan, 0.5]) * time}
    return change | {name: np.array(value) for name, value in scalars.items()}


def oscillating(truth):
    """Three triples: the outputs drift by 0.01 v_2 an update and go to and fro by 0.3 v_1 + 0.1 v_4, which grow with the step."""
    rows, kept = [], {snapshot.step: snapshot for snapshot in snapshots(truth)}
    for step in (0, 100, 200):
        for place in range(3):
            swing = (1 + step / 100) * (-1) ** place * (0.3 * truth.basis[:, 0] + 0.1 * truth.basis[:, 3])
            outputs = truth.on_samples(truth.target + 0.01 * (step + place) * truth.basis[:, 1] + swing)
            loss = np.sum((outputs - truth.on_samples(truth.target)) ** 2) / (2 * truth.count)
            measured = {**kept[step].probes["train"], "outputs": outputs, "probe_loss": np.array(loss)}
            swing = 0.1 * (1 + step / 100) ** 2 if place == 2 else np.nan  # of the third state only
            measured |= {"edge_swing": np.array(swing), "edge_swing_predicted": np.array(swing / 1.5)}
            rows.append(
                dataclasses.replace(kept[step], step=step + place, window=place, lag=place, probes={"train": measured})
            )
    return rows


def one_more_kind(kind):
    """(rows, record) of a run that the main one is not.

    "cosine" rates, two "classes", inputs on a "line", inputs that are "images", more "dials", an "oscillation" in triples, or
    "estimates".
    """
    truth = simulate()
    rows, kept = list(snapshots(truth)), record(truth)
    if kind == "cosine":
        rows = [dataclasses.replace(s, learning_rates=(0.125 * (1 + np.cos(np.pi * s.step / 1000)),)) for s in rows]
    if kind == "line":
        kept = dataclasses.replace(kept, input_shapes={"": ("float64", (N, 1))}, inputs={"": truth.points[:, :1]})
    if kind == "images":
        pictures = np.arange(N * 12, dtype=np.float64).reshape(N, 3, 4) / (N * 12 - 1)
        kept = dataclasses.replace(kept, input_shapes={"": ("float64", (N, 3, 4))}, inputs={"": pictures})
    if kind == "oscillation":
        truth = simulate()
        rows, kept = oscillating(truth), record(truth)
    if kind == "dials":
        rows = [dataclasses.replace(s, probes={"train": {**s.probes["train"], **dials(s)}}) for s in rows]
    if kind == "estimates":
        both = {f"participation_ratio_estimate{end}": np.array(value) for end, value in (("", 7.0), ("_error", 0.2))}
        kept = dataclasses.replace(kept, in_training="no")
        both |= {"posterior_calibration": np.array(1.5), "ntk_gp_nll": np.array(0.7)}
        rows = [dataclasses.replace(s, probes={"train": {**s.probes["train"], **both}}) for s in rows]
    if kind == "classes":
        kept = dataclasses.replace(kept, targets=np.sign(kept.targets - np.median(kept.targets) - 1e-9))
    return rows, kept


def write(path, rows, *records, metadata=None):
    """An archive of these rows."""
    return at_once.write(path, rows, *records, provenance=provenance(**(metadata or {})))


@pytest.fixture(scope="session")
def truth():
    return simulate()


@pytest.fixture(scope="session")
def control_truth():
    return simulate(halve=False, start=HALVED)


def made_once(tmp_path_factory, name, make):
    """A folder that ``make(folder)`` fills, in one of the suite's processes for all of them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"once-{name}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = tmp_path_factory.mktemp(name)
            make(made)
            made.rename(folder)
    return folder


def rendered_once(tmp_path_factory, name, run, control):
    """The page of a run with its control, as text: some seconds of drawing."""
    folder = made_once(tmp_path_factory, name, lambda folder: write_report(run, folder / "run.html", control=control))
    return (folder / "run.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def archives(tmp_path_factory, truth, control_truth):
    """(run, control): paths of two archives."""

    def make(folder):
        write(folder / "run.h5", snapshots(truth), record(truth))
        write(folder / "control.h5", snapshots(control_truth), record(control_truth))

    folder = made_once(tmp_path_factory, "archives", make)
    return folder / "run.h5", folder / "control.h5"


@pytest.fixture(scope="session")
def page(archives, tmp_path_factory):
    """The report of the run with its control, as text; rendered once for all files that read it."""
    return rendered_once(tmp_path_factory, "page", *archives)


@pytest.fixture(autouse=True)
def unplaced(monkeypatch):
    """Axes stay where they begin: to find them a place, everything is measured twice, for half of a drawing's time.

    A file that looks at where things stand has a fixture of that name that does nothing; so it is on ``page``, which is
    made before any test begins.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose figures are composed, or refused with their reason, and not rendered: that is most of a page's time.

    For tests of a page's words, of its name and of its place; what is drawn is looked at on ``page``.
    """
    nothing = InlineSvg("<svg></svg>", "[]")
    monkeypatch.setattr("kerneltrack.analysis.report.page.inline_svg", lambda *_: nothing)


@pytest.fixture(scope="session")
def two_outputs(tmp_path_factory):
    """(run, control) of two outputs: twice as many modes as samples."""

    def make(folder):
        run, control = simulate(outputs=2), simulate(halve=False, start=HALVED, outputs=2)
        write(folder / "run.h5", snapshots(run), record(run))
        write(folder / "control.h5", snapshots(control), record(control))

    folder = made_once(tmp_path_factory, "two-outputs", make)
    return folder / "run.h5", folder / "control.h5"


@pytest.fixture(scope="session")
def page_of_two_outputs(two_outputs, tmp_path_factory):
    """As ``page``, of the run of two outputs."""
    return rendered_once(tmp_path_factory, "page-of-two-outputs", *two_outputs)


@pytest.fixture(scope="session")
def synthetic():
    """The builders themselves, for archives that lack something."""
    import types

    return types.SimpleNamespace(
        N=N,
        HALVED=HALVED,
        LAST=LAST,
        TOP_K=TOP_K,
        ENERGY_K=ENERGY_K,
        simulate=simulate,
        snapshots=snapshots,
        record=record,
        write=write,
        provenance=provenance,
        one_more_kind=one_more_kind,
        STEPS=STEPS,
    )
