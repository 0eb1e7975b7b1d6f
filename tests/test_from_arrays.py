"""A kernel that came as arrays. Oracle: the tracker's archive of the same training, number by number, and finite differences.

Tolerance: both sides evaluate the same formulas of the same float64 kernel, which the tracker may sum in another order: a few
roundings apart, which differences of nearly equal kernels amplify by up to 1/change ≈ 1e4. So 1e-9 of each observable's size is
asked. ρ and sharpness come from a Lanczos iteration there, of residual 1e-3, whose square its error is.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.analysis import load
from kerneltrack.archive import check
from kerneltrack.errors import KernelError, ObservableError, ProbeError
from kerneltrack.from_arrays.loss import ArrayLoss
from kerneltrack.from_arrays.snapshot import OF_ARRAYS
from kerneltrack.training import ProbeLoss

#: What arrays can tell.
NAMES = [entry.name for entry in observables.select("all") if entry.needs <= OF_ARRAYS]
#: Relative tolerances of what is not 1e-9: by Lanczos there, or over the smallest eigenvalue, 1e-7 of the largest.
NEAR = dict.fromkeys(("stability_ratio", "gauss_newton_sharpness", "stability_bound"), 1e-5)
NEAR["stability_ratio_bias"] = 1e-3  # a hundredth of the ratios whose difference it is
NEAR |= dict.fromkeys(("condition_number", "stability_radius"), 1e-6)
#: name → outputs, loss, output=, optimizer's settings.
RUNS = {
    "one output": (1, "half_mse", "full", {"class": "SGD"}),
    "softmax": (3, "cross_entropy", "full", {"class": "SGD", "momentum": 0.9, "nesterov": True}),
    "trace": (3, "cross_entropy", "trace", {"class": "SGD", "momentum": 0.5, "dampening": 0.1}),
    "diagonal": (2, "mse", "diagonal", {"class": "SGD", "weight_decay": 0.01}),
}


def training(path, width, loss, output, settings):
    """A tracked training of four updates: its archive, and (step, kernel, outputs) of the measured states, with x and y."""
    torch.manual_seed(3)
    x = torch.randn(9, 2, dtype=torch.float64)
    y = torch.arange(9) % width if loss == "cross_entropy" else torch.randn(9, width, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, width)).double()
    beside = {key: value for key, value in settings.items() if key != "class"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, **beside)
    losses = {"half_mse": lambda f: (f - y).square().sum(1).mean() / 2, "mse": lambda f: (f - y).square().mean(),
              "cross_entropy": lambda f: nn.functional.cross_entropy(f, y)}  # fmt: skip
    states = []
    with kt.Tracker(path, model, optimizer, probe=kt.Probe(x, y), loss=loss, output=output, schedule=1, observables=NAMES,
                    keep_kernel="none", top_k=4, log=False) as tracker:  # fmt: skip
        for step in range(3):
            states.append((step, kt.empirical_ntk(model, x).numpy(), model(x).detach().numpy()))
            with tracker.update() as update:
                update.loss = value = losses[loss](model(x))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return states, x.numpy(), y.numpy()


@pytest.fixture(
    scope="module",
    params=[
        name if name in ("one output", "softmax") else pytest.param(name, marks=pytest.mark.nightly) for name in RUNS
    ],
)
def both(request, tmp_path_factory):
    """The tracker's snapshots and those from arrays, of the same states."""
    width, loss, output, settings = RUNS[request.param]
    path = tmp_path_factory.mktemp("arrays") / "tracked.h5"
    states, x, y = training(path, width, loss, output, settings)
    snapshots, last = [], None
    for step, kernel, outputs in states:
        last = kt.snapshot_from_arrays(
            kernel, outputs, y, step=step, loss=loss, learning_rates=0.2, optimizer=settings, after=last, inputs=x,
            output=output, observables="all", top_k=4,
        )  # fmt: skip
        snapshots.append(last)
    with kt.open_archive(path) as archive:
        yield [archive[i] for i in range(3)], snapshots, archive.probes["probe"]


def test_every_number_is_the_trackers(both):
    """What a row of the tracker has no value of is NaN in ours."""
    tracked, ours, _ = both
    for a, b in zip(tracked, ours, strict=True):
        mine, theirs = b.probes["probe"], a.probes["probe"]
        assert {"eigenvalues", "kernel_target_alignment", "stability_ratio"} <= set(theirs) <= set(mine)
        for name, values in mine.items():
            if name not in theirs:
                assert np.isnan(values).all(), name
                continue
            size = float(np.nanmax(np.abs(theirs[name]), initial=0.0))
            near = 1e-12 + NEAR.get(name, 1e-9) * size
            np.testing.assert_allclose(values, theirs[name], rtol=0, atol=near, err_msg=f"{name} of {b.step}")


def test_the_record_is_the_trackers(both):
    _, (first, *_), record = both
    assert (first.record.fingerprint, first.record.target_encoding) == (record.fingerprint, record.target_encoding)
    np.testing.assert_array_equal(first.record.targets, record.targets)
    for key in ("output", "gauge", "loss", "energy_k", "dtype", "top_k", "residual", "mean_trace_factor"):
        assert first.record.settings[key] == record.settings[key], key


def test_the_archive_is_whole_and_is_read(both, tmp_path):
    _, ours, _ = both
    path = tmp_path / "arrays.h5"
    with kt.ArchiveWriter(path, probes=[ours[0].record], provenance=ours[0].provenance(width=5)) as writer:
        for snapshot in ours:
            writer.append(snapshot)
    assert not list(check(path))
    (run,) = load(path)
    np.testing.assert_array_equal(run.values("trace"), [s.probes["probe"]["trace"] for s in ours])
    assert run.provenance["metadata"]["width"] == 5


@pytest.mark.parametrize("name", ["half_mse", "mse", "cross_entropy"])
def test_losses_are_the_trackers(name):
    """Oracle: torch's differentiation of the per-sample loss; both are float64, so 1e-12."""
    rng = np.random.default_rng(1)
    f, y = rng.standard_normal((6, 3)), np.eye(3)[[0, 1, 2, 0, 0, 1]]
    mine, theirs = ArrayLoss(name, f, y), ProbeLoss.of(name)
    of = torch.from_numpy(f), torch.from_numpy(y)
    assert mine.value == pytest.approx(float(theirs.value(*of)), rel=1e-12)
    np.testing.assert_allclose(mine.residual, theirs.residual(*of).numpy(), rtol=0, atol=1e-12)
    factor = rng.standard_normal((18, 18))
    matrix, blocks = factor @ factor.T, theirs.hessian_blocks(*of).numpy() / 6
    whole = np.zeros((18, 18))
    for n in range(6):
        whole[3 * n : 3 * n + 3, 3 * n : 3 * n + 3] = blocks[n]
    theta = matrix.reshape(6, 3, 6, 3).transpose(0, 2, 1, 3)
    largest = max(np.linalg.eigvals(whole @ matrix).real)  # of SΘ, which has the eigenvalues of S^½ΘS^½
    assert mine.largest_curvature(theta, np.arange(6)) == pytest.approx(largest, rel=1e-10)


K = np.diag([3.0, 2.0, 1.0])
F = np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("error", "match", "kernel", "outputs", "options"),
    [
        (KernelError, r"shape of the kernel: expected .*got \(3, 4\)", np.ones((3, 4)), F, {}),
        (KernelError, r"kernel.reshape\(N, O, N, O\)", np.eye(6), np.ones((3, 2)), {}),
        (KernelError, "not symmetric", np.triu(np.ones((3, 3))), F, {}),
        (KernelError, "1 of 9 NaN", np.where(np.eye(3) * [0, 0, 1], np.nan, K), F, {}),
        (KernelError, "array of real numbers.*complex", K * 1j, F, {}),
        (KernelError, "the kernel: expected an array of real numbers", [["a"]], F, {}),
        (KernelError, "output='full'.*every pair of outputs", K, np.ones((3, 2)), {"output": "full", "targets": np.ones((3, 2))}),
        (KernelError, "output: expected one of", K, F, {"output": "mean"}),
        (ProbeError, "outputs: expected finite numbers, got 1 of 3", K, [0.0, np.nan, 1.0], {}),
        (ProbeError, "outputs: expected shape", K, np.ones((3, 1, 1)), {}),
        (ProbeError, r"targets: expected shape \(3, 1\)", K, F, {"targets": np.ones((2,))}),
        (ProbeError, "classes from 0 to 1, got .* to 5", K, np.ones((3, 2)), {"targets": [0, 5, 1]}),
        (ProbeError, "nothing tells which points", K, F, {"targets": None, "loss": None}),
        (ProbeError, "inputs: expected a first axis of 3", K, F, {"inputs": np.ones((4, 2))}),
        (ObservableError, "loss: expected None, or one of", K, F, {"loss": "hinge"}),
        (ObservableError, "at least two outputs", K, F, {"loss": "cross_entropy"}),
        (ObservableError, "gauge=.softmax", K, F, {"gauge": "softmax"}),
        (ObservableError, "does not follow from arrays", K, F, {"observables": ["linearization_error"]}),
        (ObservableError, "optimizer: expected a class", K, F, {"optimizer": {"momentum": 0.9}}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(error, match, kernel, outputs, options):
    with pytest.raises(error, match=match):
        kt.snapshot_from_arrays(kernel, outputs, **{"targets": F, "step": 0, "loss": "half_mse", **options})


def test_states_are_given_in_turn():
    make = {"loss": "half_mse", "learning_rates": 0.1}
    first = kt.snapshot_from_arrays(K, F, F + 1, step=5, **make)
    with pytest.raises(ObservableError, match="step: expected more than 5"):
        kt.snapshot_from_arrays(K, F, F + 1, step=5, after=first, **make)
    with pytest.raises(ObservableError, match="fingerprint is another one"):
        kt.snapshot_from_arrays(K, F, F + 2, step=6, after=first, **make)
    with pytest.raises(ObservableError, match="loss is another one"):
        kt.snapshot_from_arrays(K, F, F + 1, step=6, after=first, loss="mse")


def test_what_is_not_known_says_so():
    """ηλ₁/(2N) by hand where the optimizer is plain descent; NaN and the reason where nobody said which it is, or it is Adam."""
    make = {"targets": F, "step": 0, "loss": "half_mse", "learning_rates": 0.5}
    known = kt.snapshot_from_arrays(K, F, optimizer="SGD", **make)
    assert known.probes["probe"]["stability_ratio"] == pytest.approx(0.5 * 3 / (2 * 3), rel=1e-15)
    for optimizer, why in ((None, "the optimizer is not said"), ("Adam", "the preconditioner of Adam")):
        snapshot = kt.snapshot_from_arrays(K, F, optimizer=optimizer, observables=["stability_ratio"], **make)
        assert np.isnan(snapshot.probes["probe"]["stability_ratio"])
        assert why in snapshot.message
    assert "linearization_error" not in known.probes["probe"]


def test_the_dtype_says_how_far_the_digits_go():
    single = kt.snapshot_from_arrays(K.astype(np.float32), F.astype(np.float32), F, step=0)
    assert single.record.settings["dtype"] == "float32"
    assert (
        single.state.eigensystem.noise_floor
        > 1e6 * kt.snapshot_from_arrays(K, F, F, step=0).state.eigensystem.noise_floor
    )


def test_no_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np, kerneltrack as kt\n"
        "s = kt.snapshot_from_arrays(np.eye(2), [1.0, 2.0], [1.0, 0.0], step=0, loss='half_mse')\n"
        f"w = kt.ArchiveWriter({str(tmp_path / 'a.h5')!r}, probes=[s.record], provenance=s.provenance()); w.append(s); w.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
