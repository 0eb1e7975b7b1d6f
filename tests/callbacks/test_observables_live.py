"""What the tracker writes during a training equals a brute-force twin, computed from copies of the model's states.

The twin knows the module before and after every update, the optimizer's state at both moments, and nothing of the
package: Jacobians row by row through ``torch.autograd.grad``, dense float64 linear algebra. The training is in float64, so
everything agrees to a few thousand roundings; the tolerances say so where a number is a difference of nearly equal ones.
"""

import copy
import itertools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack.measurement.context as context
import kerneltrack.measurement.instrument as module_of_instrument
import kerneltrack.measurement.kernels as kernels
import kerneltrack.measurement.supplies as supplies
import kerneltrack.measurement.update_curvature as update_curvature
from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement.references import References
from kerneltrack.measurement.trained_on import TrainedOn
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import select
from kerneltrack.schedule import At
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule
from tests.callbacks.lightning_runs import trainer

N, M, O, STEPS, TOP = 7, 5, 2, 3, 4  # noqa: E741  # the notation's letter
X = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.stack([X.prod(1), X[:, 0].sin()], 1)
NAMES = [
    "conjugate_kernel", "conjugate_kernel_share", "conjugate_kernel_share_with_bias", "conjugate_kernel_target_alignment",
    "conjugate_kernel_effective_rank", "layer_kernel", "layer_frobenius", "layer_trace", "layer_target_alignment",
    "activation_neuron_deviation", "gate_flips", "activation_largest_deviation", "activation_layer_deviation",
    "activation_relative_deviation", "parameter_distance", "layer_parameter_distance", "jacobian_change",
    "jacobian_stability", "target_energy_out_of_sample", "kernel_regression_error", "network_error",
    "stability_ratio", "optimizer_eigenvalues", "optimizer_kernel_distance", "optimizer_target_alignment",
    "linearization_error", "kernel_flow_error", "ledger_kernel_flow", "ledger_remainder", "ledger_curvature",
    "anchored_linearization_error", "function_gap",
]  # fmt: skip
LAYERS = {"layers.0": ["0"], "layers.1": ["1"], "layers.4": ["4"]}  # Linear, BatchNorm, Linear


class Net(pl.LightningModule):
    """BatchNorm and dropout between two linear layers; the update is Adam's or a heavy ball's."""

    def __init__(self, optimizer):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, O))
        self.make = optimizer

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().sum(1).mean() / 2

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.9**t)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.6),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.2, 0.95)),
}


#: Every optimizer and every reduction.
CASES = [
    pytest.param(("momentum", "full"), marks=pytest.mark.nightly),
    ("momentum", "diagonal"),
    ("adam", "full"),
    ("adam", "trace"),
]


class Spy(pl.Callback):
    """Copies of the module and the optimizer before each update, and at the end."""

    def __init__(self):
        self.modules, self.optimizers = {}, {}

    def look(self, trainer, module):
        names = {id(p): n for n, p in module.layers.named_parameters()}
        optimizer = trainer.optimizers[0]
        self.modules[trainer.global_step] = copy.deepcopy(module.layers)
        self.optimizers[trainer.global_step] = {
            names[id(p)]: copy.deepcopy(dict(optimizer.state[p])) for g in optimizer.param_groups for p in g["params"]
        }

    def on_train_batch_start(self, trainer, module, *_):
        self.look(trainer, module)

    def on_train_end(self, trainer, module):
        self.look(trainer, module)


def jacobian(module, x, names=None):
    """J (n, O, p) of an eval-mode copy, one backward pass for each output of each sample."""
    module = copy.deepcopy(module).eval()
    parameters = [p for n, p in module.named_parameters() if names is None or n.split(".")[0] in names]
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(module(row[None])[0, o], parameters)])
        for row in x
        for o in range(O)
    ]
    return torch.stack(rows).reshape(len(x), O, -1).numpy()


def kernel(a, b, output):
    full = np.einsum("nop,mqp->nmoq", a, b)
    return {"full": full, "diagonal": np.einsum("nmoo->nmo", full), "trace": np.einsum("nmoo->nm", full)}[output]


def matrix(theta):
    """Rows and columns ordered (n, o), by explicit placement."""
    if theta.ndim == 2:
        return theta
    n, m = theta.shape[:2]
    placed = np.zeros((n, O, m, O))
    for o in range(O):
        for p in range(O):
            if theta.ndim == 4:
                placed[:, o, :, p] = theta[:, :, o, p]
            elif o == p:
                placed[:, o, :, o] = theta[:, :, o]
    return placed.reshape(n * O, m * O)


def columns(phi, output):
    return phi if output == "trace" else phi.reshape(-1, 1)


def outputs(module, x):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(x).numpy()


def flat(module, names=None):
    return torch.cat(
        [p.detach().reshape(-1) for n, p in module.named_parameters() if names is None or n.split(".")[0] in names]
    ).numpy()


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def tracked(request, tmp_path_factory):
    optimizer, output = request.param
    pl.seed_everything(1, verbose=False)
    path = tmp_path_factory.mktemp("run") / "run.h5"
    probes = {"train": Probe(X[:N], Y[:N]), "val": Probe(X[N : N + M], Y[N : N + M])}
    tracker = NTKTracker(
        path,
        probe=probes,
        schedule={"train": 2, "val": 1},
        output=output,
        loss="half_mse",
        observables=NAMES,
        top_k=TOP,
        keep_kernel="all",
        log=False,
    )
    spy, module = Spy(), Net(OPTIMIZERS[optimizer])
    others = torch.cat([torch.arange(N), torch.arange(N + M, len(X))])  # the second probe is not trained on
    trainer(spy, tracker, max_steps=STEPS, precision="64-true").fit(
        module, DataLoader(TensorDataset(X[others], Y[others]), batch_size=6)
    )
    with open_archive(path) as archive:
        yield list(archive), spy, optimizer, output


def each(snapshots, probe):
    """Every row that holds the probe, with the probe's data."""
    x, y = (X[:N], Y[:N]) if probe == "train" else (X[N : N + M], Y[N : N + M])
    for snapshot in snapshots:
        if probe in snapshot.probes:
            yield snapshot, snapshot.probes[probe], x, y.numpy()


def close(found, expected, rtol=1e-9, atol=0.0):
    np.testing.assert_allclose(
        np.asarray(found, dtype=float).squeeze(), np.asarray(expected).squeeze(), rtol=rtol, atol=atol
    )


def test_the_conjugate_kernel_is_that_of_the_readout_s_inputs(tracked):
    snapshots, spy, *_ = tracked
    for snapshot, found, x, y in each(snapshots, "train"):
        features = copy.deepcopy(spy.modules[snapshot.step]).eval()[:-1](x).detach().numpy()
        conjugate = features @ features.T
        close(found["conjugate_kernel"], conjugate)
        J = jacobian(spy.modules[snapshot.step], x)
        close(found["conjugate_kernel_share"], O * np.trace(conjugate) / np.sum(J**2))
        readout = np.sum(jacobian(spy.modules[snapshot.step], x, ["4"]) ** 2)
        close(found["conjugate_kernel_share_with_bias"], readout / np.sum(J**2))
        alignment = np.sum(conjugate * (y @ y.T)) / np.linalg.norm(conjugate) / np.linalg.norm(y @ y.T)
        close(found["conjugate_kernel_target_alignment"], alignment)
        p = np.linalg.svd(features, compute_uv=False) ** 2 / np.trace(conjugate)
        p = p[p > 1e-14]
        close(found["conjugate_kernel_effective_rank"], np.exp(-np.sum(p * np.log(p))), rtol=1e-6)


def cosine_with_targets(k, y, output):
    """Of the kernel summed over outputs with YYᵀ; of "sum" with its one column."""
    pairs = np.einsum("nmoo->nm", k) if k.ndim == 4 else k.sum(axis=2) if k.ndim == 3 else k
    phi = columns(y, output) if output == "sum" else np.asarray(y)
    return np.sum(phi * (pairs @ phi)) / np.linalg.norm(pairs) / np.linalg.norm(phi.T @ phi)


def test_layers_kernels(tracked):
    snapshots, spy, _, output = tracked
    for snapshot, found, x, y in each(snapshots, "val"):
        parts = [jacobian(spy.modules[snapshot.step], x, names) for names in LAYERS.values()]
        kernels = [kernel(part, part, output) for part in parts]
        close(found["layer_kernel"].reshape(len(LAYERS), *kernels[0].shape), np.stack(kernels), atol=1e-12)
        close(found["layer_frobenius"], [np.linalg.norm(k) for k in kernels])
        close(found["kernel"].reshape(kernels[0].shape), sum(kernels), atol=1e-12)
        close(found["layer_trace"], [np.sum(part**2) for part in parts])
        close(found["layer_target_alignment"], [cosine_with_targets(k, y, output) for k in kernels])


def by_hand(module, x):
    """Pre-activations of the hidden layers by matrix products; None for the readout."""
    linear, norm = module[0], module[1]
    first = x @ linear.weight.T + linear.bias
    second = (first - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    return [first.detach().numpy(), second.detach().numpy()]


def test_activations_and_gates(tracked):
    snapshots, spy, *_ = tracked
    for snapshot, found, x, _ in each(snapshots, "val"):
        now, start = by_hand(spy.modules[snapshot.step], x), by_hand(spy.modules[0], x)
        for layer, (a, b) in enumerate(zip(now, start, strict=True)):
            moved = a - b
            close(found["activation_neuron_deviation"][layer], np.sqrt(np.mean(moved**2)))
            close(found["activation_largest_deviation"][layer], np.abs(moved).max())
            close(found["activation_layer_deviation"][layer], np.mean(np.sqrt((moved**2).sum(1))))
            close(found["activation_relative_deviation"][layer], np.linalg.norm(moved) / np.linalg.norm(b))
        close(found["gate_flips"][1], np.mean((now[1] > 0) != (start[1] > 0)))
        # the ReLU is given what BatchNorm returns, not the linear layer; the readout gives nothing to any
        assert np.isnan(found["gate_flips"][[0, 2]]).all()
    assert found["gate_flips"][1] > 0


def test_distances_and_the_kernel_across_time(tracked):
    snapshots, spy, _, output = tracked
    for snapshot, found, x, _ in each(snapshots, "train"):
        now, start = spy.modules[snapshot.step], spy.modules[0]
        close(found["parameter_distance"], np.linalg.norm(flat(now) - flat(start)))
        close(
            found["layer_parameter_distance"], [np.linalg.norm(flat(now, n) - flat(start, n)) for n in LAYERS.values()]
        )
        J, J0 = jacobian(now, x), jacobian(start, x)
        cross = kernel(J, J0, output)
        close(found["cross_time_kernel"].reshape(cross.shape), cross, atol=1e-12)
        if output == "diagonal":
            assert np.isnan(found.get("jacobian_change", np.nan))
            continue
        # trace: the Jacobians of all outputs of a point side by side are one row
        rows = (lambda a: a.reshape(N, -1)) if output == "trace" else (lambda a: a.reshape(N * O, -1))
        change = np.linalg.norm(rows(J) - rows(J0), 2)
        close(found["jacobian_change"], change, rtol=1e-6, atol=1e-7)
        if output == "full":
            smallest = np.linalg.eigvalsh(matrix(kernel(J0, J0, output)))[0]
            close(found["jacobian_stability"], 3 * change / np.sqrt(smallest), rtol=1e-5, atol=1e-5)


def eigen(theta):
    values, vectors = np.linalg.eigh(matrix(theta))
    return values[::-1], vectors[:, ::-1]


def test_the_kernel_on_the_initial_modes(tracked):
    """Signs of eigenvectors are a convention, so entries are compared by size."""
    snapshots, spy, _, output = tracked
    for snapshot, found, x, _ in each(snapshots, "train"):
        J, J0 = jacobian(spy.modules[snapshot.step], x), jacobian(spy.modules[0], x)
        _, start = eigen(kernel(J0, J0, output))
        expected = start[:, :TOP].T @ matrix(kernel(J, J, output)) @ start[:, :TOP]
        close(np.abs(found["initial_basis"]), np.abs(expected), rtol=1e-7, atol=1e-9)


def test_from_the_training_probe_to_the_other(tracked):
    """Also at the odd steps, at which only the other probe is due."""
    snapshots, spy, _, output = tracked
    assert {s.step for s, *_ in each(snapshots, "val")} == {0, 1, 2, 3}
    x, y = X[:N], Y[:N].numpy()
    for snapshot, found, x_new, y_new in each(snapshots, "val"):
        module = spy.modules[snapshot.step]
        J, J_new = jacobian(module, x), jacobian(module, x_new)
        theta, cross = matrix(kernel(J, J, output)), matrix(kernel(J_new, J, output))
        _, vectors = eigen(kernel(J, J, output))
        carried = cross @ vectors[:, :TOP]
        close(np.abs(found["extension"].reshape(carried.shape)), np.abs(carried), rtol=1e-5, atol=1e-6)
        phi = columns(y_new, output)
        for position, k in enumerate((1, 2)):  # the grid's first numbers of modes
            best = carried[:, :k] @ np.linalg.lstsq(carried[:, :k], phi, rcond=None)[0]
            close(found["target_energy_out_of_sample"][position], np.sum(best**2) / np.sum(phi**2), rtol=1e-7)
        ridge = 1e-3 * np.trace(theta) / len(theta)
        solved = np.linalg.solve(theta + ridge * np.eye(len(theta)), columns(y - outputs(module, x), output))
        prediction = outputs(module, x_new) + (cross @ solved).reshape(M, O)
        close(found["kernel_regression_error"], np.sum((prediction - y_new) ** 2) / np.sum(y_new**2))
        close(found["network_error"], np.sum((outputs(module, x_new) - y_new) ** 2) / np.sum(y_new**2))


def preconditioner(spy, step, rate, optimizer):
    """P (p,) from the optimizer's own state as it was at that moment; None where it holds none."""
    module, state = spy.modules[step], spy.optimizers[step]
    if optimizer == "momentum":
        return np.full(len(flat(module)), rate)
    if not state["0.weight"]:
        return None
    return np.concatenate(
        [
            rate / (np.sqrt(state[n]["exp_avg_sq"].numpy() / (1 - 0.95 ** float(state[n]["step"]))) + 1e-8).reshape(-1)
            for n, _ in module.named_parameters()
        ]
    )


def test_the_optimizer_s_kernel_and_its_stability_ratio(tracked):
    snapshots, spy, optimizer, output = tracked
    for snapshot, found, x, y in each(snapshots, "train"):
        P = preconditioner(
            spy, snapshot.step, 0.9**snapshot.step * {"momentum": 0.05, "adam": 0.02}[optimizer], optimizer
        )
        if P is None:
            assert np.isnan(found.get("stability_ratio", np.nan))
            assert np.isnan(found.get("optimizer_eigenvalues", np.nan)).all()
            assert "before its first update" in snapshot.message
            continue
        J = jacobian(spy.modules[snapshot.step], x)
        own = kernel(J * P, J, output)
        # The bias before BatchNorm has no gradient in training, so Adam divides it by next to nothing: λ_1 is 10⁶ here,
        # and the small eigenvalues are known to the rounding of λ_1.
        values = eigen(own)[0]
        close(found["optimizer_eigenvalues"], values, rtol=1e-8, atol=64 * 2**-52 * values[0])
        theta = kernel(J, J, output)
        cosine = np.sum(own * theta) / np.linalg.norm(own) / np.linalg.norm(theta)
        close(found["optimizer_kernel_distance"], 1 - cosine, rtol=1e-6, atol=1e-12)
        close(found["optimizer_target_alignment"], cosine_with_targets(own, y, output))
        # ρ is of the operator over every output, whatever is kept of the kernel; S = I/N for the mean of ½‖f − y‖²
        if optimizer == "adam" and snapshot.step < 4:
            assert "fewer than 3/(1 − β₁) updates" in snapshot.message
            continue
        threshold = {"momentum": 2 * 1.6, "adam": (2 + 2 * 0.2) / (1 - 0.2)}[optimizer]
        warm_up = {"momentum": 1, "adam": 1 - 0.2**snapshot.step}[optimizer]
        top = np.linalg.eigvalsh(matrix(kernel(J * P, J, "full")))[-1] / warm_up
        close(found["stability_ratio"], top / N / threshold, rtol=1e-4)


def test_what_the_update_did_by_mode_and_layer(tracked):
    """P in the flow is the one that the update used: Adam's second moments after it, the learning rate before it."""
    snapshots, spy, optimizer, output = tracked
    for snapshot, found, x, y in list(each(snapshots, "train"))[:-1]:
        before, after = spy.modules[snapshot.step], spy.modules[snapshot.step + 1]
        rate = 0.9**snapshot.step * {"momentum": 0.05, "adam": 0.02}[optimizer]
        assert snapshot.learning_rates == pytest.approx((rate,))
        P = preconditioner(spy, snapshot.step + 1, rate, optimizer)
        J, m = jacobian(before, x), outputs(before, x) - y
        step = flat(after) - flat(before)
        change = outputs(after, x) - outputs(before, x)
        if optimizer == "momentum":  # of a gradient that stands still since the first update
            P = P * sum(0.6**age for age in range(snapshot.step + 1))
        flow = -np.einsum("nop,p,mqp,mq->no", J, P, J, m) / N
        linear = J @ step
        close(found["linearization_error"], np.sum((change - linear) ** 2) / np.sum(change**2), rtol=1e-8)
        close(found["kernel_flow_error"], np.sum((change - flow) ** 2) / np.sum(change**2), rtol=1e-8)
        sizes = np.array([flat(before, n).size for n in LAYERS.values()])
        ends = np.cumsum(sizes)
        signs = np.sign(
            np.sum(found["eigenvectors"].reshape(-1, TOP) * eigen(kernel(J, J, output))[1][:, :TOP], axis=0)
        )
        modes = eigen(kernel(J, J, output))[1][:, :TOP] * signs
        for layer, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
            own_flow = -np.einsum("nop,p,mqp,mq->no", J[..., start:end], P[start:end], J[..., start:end], m) / N
            own_linear = J[..., start:end] @ step[start:end]
            close(found["ledger_kernel_flow"][:TOP, layer], modes.T @ columns(own_flow, output), rtol=1e-6, atol=1e-9)
            remainder = modes.T @ columns(own_linear - own_flow, output)
            close(found["ledger_remainder"][:TOP, layer], remainder, rtol=1e-6, atol=1e-9)
        close(found["ledger_curvature"][:TOP], modes.T @ columns(change - linear, output), rtol=1e-6, atol=1e-9)


def test_the_network_linearised_at_initialisation(tracked):
    """J_0 and f_0 with the statistics that BatchNorm had then; also at the last state, which has no update."""
    snapshots, spy, *_ = tracked
    start = spy.modules[0]
    for snapshot, found, x, _ in list(each(snapshots, "val"))[1:]:
        now = spy.modules[snapshot.step]
        moved = outputs(now, x) - outputs(start, x)
        linear = jacobian(start, x) @ (flat(now) - flat(start))
        close(found["anchored_linearization_error"], np.sum((linear - moved) ** 2) / np.sum(moved**2), rtol=1e-7)


def test_the_function_in_training(tracked):
    """Batch statistics of the probe, and dropout drawn from a generator seeded with the step."""
    snapshots, spy, *_ = tracked
    for snapshot, found, x, _ in each(snapshots, "val"):
        module = copy.deepcopy(spy.modules[snapshot.step]).train()
        torch.manual_seed(snapshot.step)
        trained, measured = module(x).detach().numpy(), outputs(spy.modules[snapshot.step], x)
        close(found["function_gap"], np.linalg.norm(trained - measured) / np.linalg.norm(measured))
        assert found["function_gap"] > 0.01


#: What costs something, and where it is called.
PIECES = {
    "hidden_activations": context,
    "distances": context,
    "cross_time_ntk": kernels,
    "training_outputs": supplies,
    "extended": supplies,
    "regressed": supplies,
    "stability_ratio": supplies,
    "update_effects": module_of_instrument,
    "hessian_of": context,
    "curvature_along": update_curvature,
    "gradient_curvature": supplies,
    "weight_norms": supplies,
    "kernel_estimates": supplies,
    "spread": supplies,
}


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("trace", set()),
        ("gate_flips", {"hidden_activations"}),
        ("jacobian_change", {"cross_time_ntk"}),
        ("function_gap", {"training_outputs"}),
        ("linearization_error", {"update_effects"}),
        ("kernel_regression_error", {"extended", "regressed"}),
        ("target_energy_out_of_sample", {"extended"}),
        ("stability_ratio", {"stability_ratio"}),
        ("parameter_distance", {"distances"}),
        ("hessian_sharpness", {"hessian_of"}),
        ("batch_sharpness", {"hessian_of", "gradient_curvature"}),
        ("one_step_criterion", {"update_effects", "curvature_along"}),
        ("one_step_criterion_batch", {"update_effects", "curvature_along"}),
        ("weight_spectral_change", {"weight_norms"}),
        ("trace_estimate", {"kernel_estimates"}),
        ("ntk_gp_nll", {"spread"}),
        ("optimizer_eigenvalues", set()),
        ("loss_weighted_eigenvalues", set()),
        ("oscillation_loss", set()),
        ("information_gain", set()),
    ],
)
def test_nothing_is_measured_that_nobody_asked_for(monkeypatch, name, pieces):
    """The pieces that cost something are called for their observables alone."""
    calls = set()
    for piece, home in PIECES.items():
        function = getattr(home, piece)
        monkeypatch.setattr(home, piece, lambda *a, _f=function, _n=piece, **k: calls.add(_n) or _f(*a, **k))
    net = Net(OPTIMIZERS["momentum"]).double().eval()
    rule = UpdateRule.of([net.configure_optimizers()["optimizer"]], {id(p): n for n, p in net.named_parameters()})
    first, second = (
        module_of_instrument.Instrument(
            probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(name), batches=(Probe(x, y),)
        )
        for x, y in ((X[:N], Y[:N]), (X[N : N + M], Y[N : N + M]))
    )
    references, flags = References(start=NetworkState.of(net)), {"": True}
    source = first.measure(net, rule, step=1, references=references)
    reading = second.measure(net, rule, step=1, references=references, flags=flags, source=(first, source))
    second.complete(net, reading, rule, TrainedOn((Probe(X[:N], Y[:N]),)))
    assert calls == pieces


def test_an_angular_velocity_is_told_at_the_lag_of_the_first_two_states(tmp_path):
    """Steps 0, 1, 2, 4, 5, 9: lag 1. Oracle: arccos of the stored kernels' cosine, one update apart."""
    pl.seed_everything(1, verbose=False)
    tracker = NTKTracker(
        tmp_path / "run.h5",
        probe=Probe(X[:N], Y[:N]),
        schedule=At((0, 1, 2, 4, 5)),
        loss="half_mse",
        keep_kernel="all",
        observables=["kernel_angular_velocity", "leave_one_out_error", "network_error"],
        log=False,
    )
    loader = DataLoader(TensorDataset(X, Y), batch_size=6)
    trainer(tracker, max_steps=9, precision="64-true").fit(Net(OPTIMIZERS["momentum"]), loader)
    with open_archive(tmp_path / "run.h5") as archive:
        rows = list(archive)
    assert [row.step for row in rows] == [0, 1, 2, 4, 5, 9]
    for before, row in itertools.pairwise(rows):
        found = float(row.probes["probe"].get("kernel_angular_velocity", np.nan))
        a, b = (s.probes["probe"]["kernel"] / np.linalg.norm(s.probes["probe"]["kernel"]) for s in (before, row))
        expected = np.arccos(np.vdot(a, b)) if row.step - before.step == 1 else np.nan
        assert np.isnan(expected) if np.isnan(found) else found == pytest.approx(expected, rel=1e-6)
        assert np.isnan(expected) == ("kernel_angular_velocity: no snapshot 1 update earlier" in row.message)
        assert "leave_one_out_error: the kernel has seen these labels" in row.message
        assert np.isfinite(float(row.probes["probe"]["network_error"]))
    assert np.isfinite(float(rows[0].probes["probe"]["leave_one_out_error"]))


@pytest.mark.parametrize("split", ["validation", "train", None])
def test_what_a_run_predicts_depends_on_what_the_probe_says_of_itself(tmp_path, split):
    """A probe of other points than those trained on, which says so, says otherwise, or says nothing."""
    probe = Probe(X[:N], Y[:N], identity=None if split is None else {"split": split})
    path = tmp_path / "run.h5"
    tracker = NTKTracker(path, probe=probe, schedule=1, loss="half_mse", observables="leave_one_out_error", log=False)
    loader = DataLoader(TensorDataset(X[N:], Y[N:]), batch_size=6)
    trainer(tracker, max_steps=2, precision="64-true").fit(Net(OPTIMIZERS["momentum"]), loader)
    with open_archive(path) as archive:
        found = [float(row.probes["probe"].get("leave_one_out_error", np.nan)) for row in archive]
    assert np.isfinite(found).tolist() == [True, split == "validation", split == "validation"]


@pytest.mark.parametrize("loss", [None, "cross_entropy", torch.nn.MSELoss()])
def test_a_run_on_another_loss_has_no_error_by_squares(tmp_path, loss):
    path = tmp_path / "run.h5"
    tracker = NTKTracker(path, probe=Probe(X[:N], Y[:N].softmax(1)), loss=loss, observables="network_error", log=False)
    trainer(tracker, max_steps=1, precision="64-true").fit(
        Net(OPTIMIZERS["momentum"]), DataLoader(TensorDataset(X, Y), 6)
    )
    with open_archive(path) as archive:
        for row in archive:
            assert np.isnan(float(row.probes["probe"].get("network_error", np.nan)))
            assert "network_error: the loss is not a mean of squares" in row.message
