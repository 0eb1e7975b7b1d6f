"""The gauge of a tracked run: what softmax does not see is in no number that the tracker writes.

Oracles: a second training whose readout has one row added to all of its rows, f → f + u(x)1, which cross-entropy cannot tell
from the first; eigensystems in another orthonormal basis, by NumPy; and archives as they were before there was a gauge.
"""

import copy
import json
import re

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, observables, open_archive
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker
from kerneltrack.conventions import helmert
from kerneltrack.errors import ArchiveError, TrackerError
from kerneltrack.measurement import Instrument, Moment, Pace, Recorder
from kerneltrack.schedule import Clock, Every
from kerneltrack.training import ProbeLoss, UpdateRule
from tests.callbacks.lightning_runs import trainer

N, M, O = 8, 6, 3  # noqa: E741  # the notation's letter
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(24, 4, dtype=torch.float64, generator=DRAW)
Y = torch.randint(O, (24,), generator=DRAW)
PROBES = {"train": Probe(X[:N], Y[:N]), "new": Probe(X[N : N + M], Y[N : N + M], identity={"split": "validation"})}


class Classifier(pl.LightningModule):
    """Two hidden layers, dropout, and a linear readout; in float64."""

    def __init__(self, outputs=O, dropout=0.2):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Dropout(dropout), nn.Tanh(), nn.Linear(5, outputs)
        ).double()

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


def fit(path, module=None, steps=3, **options):
    module = module or Classifier()
    options = {"probe": PROBES, "schedule": 1, "loss": "cross_entropy", "log": False, **options}
    torch.manual_seed(2)
    watched = NTKTracker(path, **options)
    trainer(watched, max_steps=steps).fit(module, DataLoader(TensorDataset(X, Y), batch_size=8))
    return path


def rows(path):
    with open_archive(path) as archive:
        return list(archive)


def shifted(module):
    """The same classifier with u(x) = a·φ(x) + b added to every output."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        module.layers[-1].weight += 3 * torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        module.layers[-1].bias += 2.0
    return module


def measured(module, output, gauge="softmax", updates=2):
    """Every observable of the catalogue on both probes through two updates, by the tracker's recorder; nothing is written."""
    how = {
        "observables": tuple(observables.catalogue().values()),
        "loss": ProbeLoss.of("cross_entropy"),
        "output": output,
        "gauge": gauge,
    }
    instruments = {name: Instrument(probe=probe.named(name), **how) for name, probe in PROBES.items()}
    recorder = Recorder(None, instruments, Pace(dict.fromkeys(PROBES, Every(1))))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    torch.manual_seed(2)
    found = []
    for step in range(updates):
        rule = UpdateRule.of([optimizer], {id(p): name for name, p in module.named_parameters()})
        recorder.open_row(module, Moment(step=step), rule, recorder.due(Clock(step=step, learning_rates=(0.3,))))
        optimizer.zero_grad()
        cross_entropy(module(X), Y).backward()
        optimizer.step()
        found.append(recorder.close_row(module, update_applied=True, rule=rule))
    return found


#: Of the weights themselves, of which u is a part of the readout's: no function on the probe, so no gauge.
OF_WEIGHTS = {"weight_spectral_change", "weight_spectral_scale", "weight_change_scale"}


@pytest.mark.parametrize("output", ["full", "trace", pytest.param("diagonal", marks=pytest.mark.nightly)])
def test_no_observable_sees_what_is_added_to_all_outputs(output):
    """Law over the whole catalogue: nothing but outputs and weights themselves, stored as they are, changes."""
    one, other = measured(Classifier(), output), measured(shifted(Classifier()), output)
    compared, seen = set(), []
    for a, b in zip(one, other, strict=True):
        for probe in PROBES:
            largest = a.probes[probe]["eigenvalues"][0]
            for name in observables.catalogue().keys() - OF_WEIGHTS:
                left, right = (np.asarray(row.probes[probe][name]) for row in (a, b))
                if np.isfinite(left).any():
                    compared.add(name)
                # 1e-6 of the largest entry; what is zero but for rounding (a distance from itself, a residual of the
                # solver) is some thousand roundings of 1, or of λ_1
                floor = 1e-6 * np.abs(left[np.isfinite(left)]).max(initial=0.0) + 1e-11 * max(1.0, largest)
                if not np.allclose(left, right, rtol=1e-6, atol=floor, equal_nan=True):
                    seen.append((name, probe, int(a.step)))
            assert not np.allclose(a.probes[probe]["outputs"], b.probes[probe]["outputs"], rtol=0.1)
    assert seen == []
    assert len(compared) > 80


def test_the_raw_gauge_sees_it():
    """The negative control of the law above."""
    names = ["trace", "kernel_target_alignment", "output_energy", "linearization_error", "stability_ratio"]
    one, other = (measured(m, "full", "raw", updates=1)[0] for m in (Classifier(), shifted(Classifier())))
    same = [n for n in names if np.allclose(one.probes["train"][n], other.probes["train"][n], rtol=1e-6)]
    assert same == names[-1:]


def test_numbers_are_of_the_other_basis_too(tmp_path):
    """Eigenvalues, energies and nulls from the raw kernel by another orthonormal basis, and permutations drawn one by one."""
    path = fit(tmp_path / "run.h5", steps=1, gauge="raw", output="full", keep_kernel="all")
    raw = rows(path)[1].probes["train"]
    found = rows(fit(tmp_path / "new.h5", steps=1, output="full"))[1].probes["train"]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((O - 1, O - 1)))[0]
    basis = helmert(O) @ turn
    kernel = np.einsum("nmop,oa,pb->namb", raw["kernel"], basis, basis).reshape(N * (O - 1), -1)
    values, vectors = (a[..., ::-1] for a in np.linalg.eigh(kernel))
    np.testing.assert_allclose(found["eigenvalues"], values, atol=1e-10 * values[0])

    targets = np.eye(O)[Y[:N]]
    for name, phi in (("target", targets), ("output", raw["outputs"]), ("residual", raw["residual"])):
        squares = (vectors.T @ (phi @ basis).ravel()) ** 2
        energy = np.cumsum(squares) / squares.sum()
        np.testing.assert_allclose(found[f"{name}_energy"], energy[[0, 1, 4, 9, 15]], atol=1e-9)
    rng = np.random.default_rng(1)
    drawn = [(vectors.T @ (targets[rng.permutation(N)] @ basis).ravel()) ** 2 for _ in range(4000)]
    null = np.cumsum(np.mean(drawn, axis=0)) / np.sum((targets @ basis) ** 2)
    np.testing.assert_allclose(found["target_energy_null"], null[[0, 1, 4, 9, 15]], atol=0.02)  # 4,000 draws


def jacobian(layers, x):
    """J (n, O, P), one backward pass for each output of each sample."""
    layers = copy.deepcopy(layers).eval()
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(layers(row[None])[0, o], list(layers.parameters()))])
        for row in x
        for o in range(O)
    ]
    return torch.stack(rows).reshape(len(x), O, -1)


@pytest.mark.parametrize("output", ["full", "trace"])
def test_the_network_linearised_here_and_trained_to_the_end(output):
    """Oracle: kernels by the double loop and C, and L-BFGS of torch on α in the place of Newton's method on b."""
    module = Classifier()
    found = measured(module, output, updates=1)[0].probes
    layers = Classifier().layers
    j, beyond = jacobian(layers, X[:N]), jacobian(layers, X[N : N + M])
    c = torch.eye(O, dtype=torch.float64) - 1 / O
    letters = {"full": ("nop,mqp,oa,qb->namb", N * O, M * O), "trace": ("nop,mqp,oq->nm", N, M)}[output]
    others = (c, c) if output == "full" else (c,)
    kernel = torch.einsum(letters[0], j, j, *others).reshape(letters[1], -1)
    cross = torch.einsum(letters[0], beyond, j, *others).reshape(letters[2], -1)
    with torch.no_grad():
        start, there = (layers.eval()(x) for x in (X[:N], X[N : N + M]))
    # γ = 10⁻³ tr Θ/(MN) with the M of the kernel's modes, of which a full one has N(O − 1)
    modes = N * (O - 1) if output == "full" else N
    ridge = 1e-3 * float(torch.trace(kernel)) / (modes * N)
    alpha = torch.zeros(N * O, 1) if output == "full" else torch.zeros(N, O)
    alpha = alpha.double().requires_grad_()
    optimizer = torch.optim.LBFGS([alpha], lr=1, max_iter=20_000, tolerance_grad=1e-13, tolerance_change=1e-16,
                                  history_size=40, line_search_fn="strong_wolfe")  # fmt: skip

    def objective():
        optimizer.zero_grad()
        moved = kernel @ alpha
        value = cross_entropy(start + moved.reshape(N, O), Y[:N]) + ridge / 2 * torch.sum(alpha * moved)
        value.backward()
        return value

    optimizer.step(objective)
    logits = there + (cross @ alpha.detach()).reshape(M, O)
    labels = Y[N : N + M]
    assert float(found["new"]["kernel_logistic_loss"]) == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-4)
    assert float(found["new"]["kernel_logistic_accuracy"]) == float((logits.argmax(1) == labels).double().mean())
    assert float(found["new"]["network_accuracy"]) == float((there.argmax(1) == labels).double().mean())
    assert float(found["new"]["probe_loss"]) == pytest.approx(float(cross_entropy(there, labels)))
    assert np.isnan([found["train"][name] for name in ("kernel_logistic_loss", "kernel_logistic_accuracy")]).all()
    assert np.isnan([found["new"][name] for name in ("kernel_regression_error", "network_error")]).all()


def test_what_is_stored_is_raw_and_what_is_projected_is_not(tmp_path):
    path = fit(tmp_path / "run.h5", steps=1, keep_kernel="all")
    assert check(path) == []
    with open_archive(path) as archive:
        assert archive.probes["train"].settings["gauge"] == "softmax"
    with h5py.File(path) as file:
        assert file["probes/train"].attrs["gauge"] == b"softmax" or file["probes/train"].attrs["gauge"] == "softmax"
    found = rows(path)[0].probes["train"]
    with torch.no_grad():
        outputs = Classifier().layers.eval()(X[:N]).numpy()
    np.testing.assert_allclose(found["outputs"], outputs, atol=1e-12)
    p = torch.softmax(torch.from_numpy(outputs), 1).numpy()
    np.testing.assert_allclose(found["residual"], p - np.eye(O)[Y[:N]], atol=1e-12)
    assert found["kernel"].shape == (N, N, O - 1, O - 1)
    vectors = found["eigenvectors"].astype(float).reshape(N * (O - 1), -1)
    np.testing.assert_allclose(
        found["output_coefficients"][:, 0], vectors.T @ (outputs @ helmert(O)).ravel(), atol=1e-5
    )


@pytest.mark.parametrize("output", ["full", pytest.param("trace", marks=pytest.mark.nightly)])
def test_a_light_state_stores_what_the_network_gave(tmp_path, output):
    """Oracle: the same states measured whole. In the gauge the light ones had a column too few, and were not stored."""
    kinds = {"light": True, "whole": False}
    paths = {
        name: fit(tmp_path / f"{name}.h5", steps=2, output=output, schedule=Every(4, window=2, light=light))
        for name, light in kinds.items()
    }
    (_, light, *_), (_, whole, *_) = (rows(paths[name]) for name in kinds)
    assert (light.step, whole.step, "not stored" in light.message) == (1, 1, False)
    for probe in PROBES:
        for name in ("outputs", "residual"):
            assert np.array_equal(light.probes[probe][name], whole.probes[probe][name])
            assert np.isfinite(light.probes[probe][name]).all()


@pytest.mark.parametrize(
    ("outputs", "options", "gauge"),
    [
        (3, {}, "softmax"),
        (3, {"gauge": "raw"}, "raw"),
        (3, {"loss": None}, "raw"),
        (3, {"loss": None, "gauge": "softmax"}, "softmax"),
        (3, {"loss": cross_entropy}, "raw"),
        (3, {"loss": "half_mse"}, "raw"),
        (3, {"output": lambda f: f[:2]}, "raw"),
        (3, {"loss": cross_entropy, "gauge": "softmax"}, "softmax"),
    ],
)
def test_which_gauge_is_measured(tmp_path, outputs, options, gauge):
    options = {"observables": ["trace", "target_energy"], **options}
    path = fit(tmp_path / "run.h5", Classifier(outputs), steps=1, **options)
    with open_archive(path) as archive:
        assert {record.settings["gauge"] for record in archive.probes.values()} == {gauge}


def test_many_classes_start_without_an_argument_and_say_what_is_measured(tmp_path, capfd):
    """Oracle: shapes."""
    probe = Probe(X[:21], Y[:21])
    path = fit(tmp_path / "run.h5", Classifier(50), 1, probe=probe, log=True, observables=["trace", "stability_ratio"])
    with open_archive(path) as archive:
        settings, row = archive.probes["probe"].settings, archive[0].probes["probe"]
    assert (settings["output"], settings["gauge"]) == ("trace", "softmax")
    assert row["eigenvalues"].shape == (21,)
    assert row["target_coefficients"].shape == (21, 49)
    assert np.isfinite([row["trace"], row["stability_ratio"]]).all()
    told = " ".join(capfd.readouterr().err.split())
    assert 'output="trace" (21 points × 50 outputs are more than 1024 rows); gauge="softmax"' in told


def test_a_loss_of_ones_own_that_ignores_it_is_named(tmp_path, capfd):
    def tempered(f, y):
        return -(y * torch.log_softmax(f / 2, -1)).sum(-1).mean()

    line = 'ignores one function added to all outputs.*gauge="softmax" takes it off'
    for loss, said in ((tempered, True), (nn.MSELoss(), False), ("cross_entropy", False)):
        fit(tmp_path / "run.h5", steps=1, loss=loss, log=True, if_exists="replace", observables=["trace"])
        told = " ".join(capfd.readouterr().err.split())
        assert bool(re.search(line, told)) is said, told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "sum"}, r'"sum" under a softmax loss.*"trace"'),
        ({"loss": "mse", "gauge": "softmax"}, r"with loss='mse'.*gauge=\"auto\""),
        ({"loss": nn.MSELoss(), "gauge": "softmax"}, r"expected a loss that ignores.*gauge=\"raw\""),
        ({"output": lambda f: f, "gauge": "softmax"}, "with a callable output="),
        ({"gauge": "centred"}, "one of 'auto', 'raw', 'softmax'"),
    ],
)
def test_what_says_nothing_is_refused(tmp_path, options, words):
    with pytest.raises(TrackerError, match=words):
        fit(tmp_path / "run.h5", **options)
    assert not (tmp_path / "run.h5").exists()


def saved(path, tmp_path, **options):
    """A checkpoint of a run whose archive and memory are as they were before there was a gauge."""
    module = Classifier(dropout=0.0)
    watched = NTKTracker(path, probe=PROBES, schedule=1, loss="cross_entropy", log=False, **options)
    loader = DataLoader(TensorDataset(X, Y), batch_size=8)
    t = trainer(watched, max_steps=3)
    t.fit(module, loader)
    t.save_checkpoint(tmp_path / "last.ckpt")
    return loader


def test_a_run_from_before_the_gauge_goes_on_raw(tmp_path):
    path = tmp_path / "run.h5"
    loader = saved(path, tmp_path, gauge="raw", output="full", observables=["trace"])
    with h5py.File(path, "r+") as file:
        for probe in file["probes"].values():
            settings = json.loads(probe["settings"][()].tobytes())
            del settings["gauge"], probe.attrs["gauge"]
            text = json.dumps(settings).encode()
            attributes = dict(probe["settings"].attrs)
            del probe["settings"]
            data = probe.create_dataset(
                "settings", data=np.frombuffer(text, "S1"), fletcher32=True, chunks=(len(text),)
            )
            data.attrs["dimensions"], data.attrs["long_name"] = attributes["dimensions"], attributes["long_name"]
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for state in checkpoint["callbacks"].values():
        for kept in ("initial", "previous"):
            for one in state.get("memory", {}).get(kept, {}).values():
                del one["gauge"], one["given_targets"]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    watched = NTKTracker(path, probe=PROBES, log=False)
    trainer(watched, max_steps=4).fit(Classifier(), loader, ckpt_path=tmp_path / "last.ckpt")
    with open_archive(path) as archive:
        assert archive.steps.tolist()[-1] == 4
        assert all(row.probes["train"]["eigenvalues"].shape == (N * O,) for row in archive)

    watched = NTKTracker(path, probe=PROBES, gauge="softmax", log=False)
    with pytest.raises(ArchiveError, match=r'another gauge.*"raw".*"softmax"'):
        trainer(watched, max_steps=5).fit(Classifier(), loader, ckpt_path=tmp_path / "last.ckpt")


def test_a_run_in_the_gauge_goes_on_in_it(tmp_path):
    """Oracle: the run that was not interrupted."""
    names = ["trace", "displacement_energy", "kernel_distance_from_initial", "target_energy_by_output", "class_pair_r2"]
    whole = rows(fit(tmp_path / "whole.h5", Classifier(dropout=0.0), steps=4, observables=names))[-1].probes["train"]
    loader = saved(tmp_path / "run.h5", tmp_path, observables=names)
    watched = NTKTracker(tmp_path / "run.h5", probe=PROBES, log=False)
    trainer(watched, max_steps=4).fit(Classifier(dropout=0.0), loader, ckpt_path=tmp_path / "last.ckpt")
    with open_archive(tmp_path / "run.h5") as archive:
        last = archive[-1].probes["train"]
        assert archive.probes["train"].settings["gauge"] == "softmax"
    for name in names:
        assert np.isfinite(last[name]).all()
        np.testing.assert_allclose(last[name], whole[name], rtol=1e-9)
