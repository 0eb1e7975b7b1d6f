"""The tracker's numbers against the closed form of the same training, its moments against the schedule, its refusals.

The oracle of the numbers is a second training written here without Lightning and without the package: plain gradient
descent in a loop, with Jacobians row by row through ``torch.autograd.grad``.
"""

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveExistsError, TrackerError
from tests.callbacks.lightning_runs import Regressor, data, loader, trainer

RATES = {5: 0.5}
N = 24


def plain(rates=lambda step: 0.5 if step >= 5 else 1.0, **options):
    """Full-batch training: no noise, no dropout, no momentum, the rate halved at update 5."""
    return Regressor(batchnorm=False, dropout=0.0, momentum=0.0, rates=rates, lr=0.2, **options)


def whole_batch():
    return DataLoader(data(N), batch_size=N, shuffle=False)


def probe():
    x, y = data(N).tensors
    return Probe(x, y, name="train")


def jacobian(model, x):
    """J (N, P), one backward pass per sample."""
    rows = []
    for sample in x:
        gradient = torch.autograd.grad(model(sample[None]).squeeze(), list(model.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in gradient]))
    return torch.stack(rows).detach().double()


def by_hand(steps, keep):
    """The same full-batch descent in a plain loop: what the archive must hold at the steps in ``keep``."""
    pl.seed_everything(0, verbose=False)
    model, (x, y) = plain(), data(N).tensors
    found = {}
    for t in range(steps + 1):
        rate = 0.2 * (0.5 if t >= 5 else 1.0)
        f = model(x)
        row = {}
        if t in keep:
            J, m = jacobian(model, x), (f - y).detach().double()
            theta = J @ J.T
            row = {
                "values": torch.linalg.eigvalsh(theta).flip(0).numpy(),
                "loss": float(m.square().mean() / 2),
                "outputs": f.detach().double().numpy(),
                "rate": rate,
                "theta": theta.numpy(),
                "J": J,
                "m": m,
            }
        gradient = torch.autograd.grad((f - y).square().mean() / 2, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradient, strict=True):
                p -= rate * g
        if row:
            row["change"] = (model(x) - f).detach().double()
            row["linear"] = -rate / N * row["J"] @ (row["J"].T @ row["m"])
            found[t] = row
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.h5"
    pl.seed_everything(0, verbose=False)
    model = plain()
    tracker = NTKTracker(
        path,
        probe=probe(),
        schedule=schedule.Every(4) | schedule.OnLearningRateChange(after=(0, 1), held=2),
        loss="half_mse",
        keep_kernel="all",
        log=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tracker, max_steps=11, log_every_n_steps=1).fit(model, whole_batch())
    with open_archive(path) as archive:
        yield archive, by_hand(11, {0, 4, 5, 6, 8, 11})


def test_it_measures_at_the_steps_of_its_schedule(tracked):
    archive, _ = tracked
    assert archive.steps.tolist() == [0, 4, 5, 6, 8, 11]
    assert [archive[i].trigger for i in (0, 2, 5)] == [
        "Every(4)",
        "OnLearningRateChange(after=(0, 1), held=2, by=1.25)",
        "last",
    ]


def test_numbers_equal_the_plain_loop(tracked):
    """float32 training twice over: eigenvalues agree to a few hundred roundings of λ_1, outputs to rounding."""
    archive, expected = tracked
    for snapshot in archive:
        found, want = snapshot.probes["train"], expected[snapshot.step]
        top = want["values"][0]
        np.testing.assert_allclose(found["eigenvalues"], want["values"], atol=2e-5 * top)
        np.testing.assert_allclose(found["outputs"], want["outputs"], atol=1e-5)
        np.testing.assert_allclose(found["kernel"][:, :, 0, 0], want["theta"], atol=1e-5 * top)
        np.testing.assert_allclose(float(found["probe_loss"]), want["loss"], rtol=1e-5)
        assert snapshot.learning_rates == pytest.approx((want["rate"],))
        # ρ = ηλ_1/(2N) for gradient descent on the mean of ½(f − y)²
        np.testing.assert_allclose(float(found["stability_ratio"]), want["rate"] * top / (2 * N), rtol=1e-4)


def test_what_needs_both_sides_of_the_update(tracked):
    """Plain descent: J_tΔθ = −(η/N) J Jᵀ m, so both linear models predict the same change. f32 differences: 1e-3."""
    archive, expected = tracked
    for snapshot in list(archive)[:-1]:
        want, found = expected[snapshot.step], snapshot.probes["train"]
        error = float((want["change"] - want["linear"]).square().sum() / want["change"].square().sum())
        assert float(found["linearization_error"]) == pytest.approx(error, rel=2e-2, abs=2e-6)
        assert float(found["kernel_flow_error"]) == pytest.approx(error, rel=2e-2, abs=2e-6)
        assert snapshot.update_applied is True
        assert snapshot.training_loss == pytest.approx(want["loss"], rel=1e-5)
    last = archive[-1]
    assert last.update_applied is None
    assert "linearization_error" not in last.probes["train"]
    assert "linearization_error" in last.message


def test_the_archive_says_what_was_measured(tracked):
    archive, _ = tracked
    record = archive.probes["train"]
    assert record.fingerprint == probe().fingerprint
    settings = record.settings
    assert (settings["output"], settings["loss"], settings["dtype"]) == ("full", "half_mse", "float32")
    assert settings["stability_scope"] == "exact"
    assert archive.provenance.run["optimizers"][0]["class"] == "SGD"
    assert {p["name"] for p in archive.provenance.parameters} == {n for n, _ in plain().named_parameters()}


@pytest.mark.parametrize(
    ("options", "module", "scope"),
    [
        ({}, {}, "exact"),
        ({"gradient_clip_val": 1.0}, {}, "probe estimate"),
        ({"accumulate_grad_batches": 2}, {}, "probe estimate"),
        ({"batch": 8}, {}, "probe estimate"),
        ({}, {"dropout": 0.1}, "probe estimate"),
        ({}, {"batchnorm": True}, "probe estimate"),
    ],
)
def test_the_scope_is_exact_only_for_the_loss_that_is_trained(tmp_path, options, module, scope):
    options = dict(options)
    batch = options.pop("batch", N)
    model = Regressor(**{"batchnorm": False, "dropout": 0.0, "momentum": 0.0, **module})
    tracker = NTKTracker(tmp_path / "run.h5", probe=probe(), loss="half_mse", log=False)
    trainer(tracker, max_steps=2, **options).fit(model, DataLoader(data(N), batch_size=batch))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.probes["train"].settings["stability_scope"] == scope


def test_a_loss_that_is_not_the_trained_one_is_refused(tmp_path):
    """ "mse" is twice the loss that this module trains."""
    tracker = NTKTracker(tmp_path / "run.h5", probe=probe(), loss="mse", log=False)
    with pytest.raises(TrackerError, match="the loss that is trained"):
        trainer(tracker).fit(plain(), whole_batch())


def test_accumulation_measures_once_per_update(tmp_path):
    """Six batches, three to an update: two updates; each state is measured before the first batch of its window."""
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=1, log=False)
    trainer(tracker, max_steps=2, accumulate_grad_batches=3).fit(Regressor(), loader(batch_size=4))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2]
        assert [s.batch for s in archive] == [0, 3, 6]
        assert [s.samples_seen for s in archive] == [0, 12, 24]


def test_pairs_are_consecutive_states(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=schedule.Every(5, window=2), log=False)
    trainer(tracker, max_steps=12).fit(Regressor(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 5, 6, 10, 11, 12]
        assert [s.window for s in archive] == [0, 1, 0, 1, 0, 1, 0]


def test_several_probes_each_with_its_schedule(tmp_path):
    x, y = data(N).tensors
    probes = {"train": Probe(x[:8], y[:8]), "val": Probe(x[8:20], y[8:20])}
    tracker = NTKTracker(tmp_path / "run.h5", probe=probes, schedule={"train": 2, "val": 3}, log=False)
    trainer(tracker, max_steps=6).fit(plain(), whole_batch())
    with open_archive(tmp_path / "run.h5") as archive:
        measured = {s.step: sorted(s.probes) for s in archive}
    assert measured == {0: ["train", "val"], 2: ["train"], 3: ["val"], 4: ["train"], 6: ["train", "val"]}


class Memory(pl.loggers.logger.DummyLogger):
    """A logger that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))


def test_scalars_reach_the_loggers(tmp_path):
    memory = Memory()
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=5)
    trainer(tracker, max_steps=6, logger=memory).fit(plain(), whole_batch())
    logged = {step: row for step, row in memory.rows if any(k.startswith("ntk/") for k in row)}
    assert sorted(logged) == [0, 5, 6]
    with open_archive(tmp_path / "run.h5") as archive:
        assert logged[5]["ntk/trace"] == float(archive[1].probes["train"]["trace"])


def test_fast_dev_run_computes_and_writes_nothing(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8)
    trainer(tracker, fast_dev_run=True).fit(plain(), whole_batch())
    assert list(tmp_path.iterdir()) == []


class Breaks(Regressor):
    """A module whose forward fails in eval mode from some step on."""

    fails_at = 4

    def forward(self, x):
        if not self.training and self.global_step >= self.fails_at:
            raise ValueError("forward gave up")
        return super().forward(x)


def test_a_failed_measurement_is_a_row_when_asked_for(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=2, on_error="warn", log=False)
    with pytest.warns(UserWarning, match="could not measure step [45]: ValueError: forward gave up"):
        trainer(tracker, max_steps=5).fit(Breaks(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert [(s.step, s.status) for s in archive] == [(0, "ok"), (2, "ok"), (4, "failed"), (5, "failed")]
        assert "forward gave up" in archive[2].message


def test_a_failed_measurement_raises_otherwise_and_loses_nothing(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=2, log=False)
    with pytest.raises(ValueError, match="forward gave up"):
        trainer(tracker, max_steps=5).fit(Breaks(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2]


def test_a_failure_after_the_update_loses_nothing_of_what_came_before_it(tmp_path):
    model = Breaks()
    model.fails_at = 3  # the state at step 2 is measured; what needs f_3 is not
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=2, log=False)
    with pytest.raises(ValueError, match="forward gave up"):
        trainer(tracker, max_steps=5).fit(model, loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2]
        assert np.isfinite(archive[1].probes["train"]["eigenvalues"]).all()
        assert "forward gave up" in archive[1].message


class Interrupts(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 7:
            raise RuntimeError("power cut")


def test_an_exception_leaves_every_row(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=2, log=False)
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tracker, Interrupts()).fit(Regressor(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2, 4, 6]
    assert not (tmp_path / "run.h5.parts").exists()


def test_a_resumed_run_continues_its_archive(tmp_path):
    """Oracle: the run that was never interrupted; float32 on one machine repeats bit for bit."""

    def fit(path, checkpoint=None, save_at=None, stop=12):
        pl.seed_everything(0, verbose=False)
        callbacks = [NTKTracker(path, probe=probe(), schedule=3, loss="half_mse", log=False)]
        if save_at:
            callbacks.append(Saves(save_at, tmp_path / "run.ckpt"))
        trainer(*callbacks, max_steps=stop).fit(plain(), whole_batch(), ckpt_path=checkpoint, weights_only=False)

    class Saves(pl.Callback):
        def __init__(self, step, path):
            self.step, self.path = step, path

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == self.step:
                trainer.save_checkpoint(self.path)

    fit(tmp_path / "whole.h5")
    fit(tmp_path / "run.h5", save_at=7, stop=10)  # measures 0 3 6 9 10; the checkpoint is of step 7
    fit(tmp_path / "run.h5", checkpoint=tmp_path / "run.ckpt")
    with open_archive(tmp_path / "whole.h5") as whole, open_archive(tmp_path / "run.h5") as run:
        assert run.steps.tolist() == whole.steps.tolist() == [0, 3, 6, 9, 12]
        for a, b in zip(whole, run, strict=True):
            assert np.array_equal(a.probes["train"]["eigenvalues"], b.probes["train"]["eigenvalues"])
            assert a.learning_rates == b.learning_rates
    with open_archive(tmp_path / "run.h5", all_segments=True) as run:
        assert run.steps.tolist() == [0, 3, 6, 9, 10, 9, 12]


def test_parameters_of_a_compiled_part_keep_their_learning_rates(tmp_path):
    """Oracle: the same module, not compiled. Its parameters are called ``layers._orig_mod.…`` by the optimizer."""
    ratios = {}
    for name in ("plain", "compiled"):
        pl.seed_everything(0, verbose=False)
        model = Regressor(batchnorm=False, dropout=0.0, momentum=0.9)
        if name == "compiled":
            model.layers = torch.compile(model.layers, backend="eager")
        watched = NTKTracker(tmp_path / f"{name}.h5", probe=probe(), schedule=2, loss="half_mse", log=False)
        trainer(watched, max_steps=2).fit(model, whole_batch())
        with open_archive(tmp_path / f"{name}.h5") as archive:
            ratios[name] = [float(s.probes["train"]["stability_ratio"]) for s in archive]
    assert ratios["plain"] == pytest.approx(ratios["compiled"], rel=1e-5)
    assert min(ratios["plain"]) > 0


def test_an_archive_of_another_run_is_never_overwritten(tmp_path):
    path = tmp_path / "run.h5"
    trainer(NTKTracker(path, probe=8, schedule=2, log=False)).fit(plain(), whole_batch())
    before = path.read_bytes()
    with pytest.raises(ArchiveExistsError, match=r"run\.h5"):
        trainer(NTKTracker(path, probe=8, log=False)).fit(plain(), whole_batch())
    assert path.read_bytes() == before
    trainer(NTKTracker(path, probe=8, log=False, if_exists="replace"), max_steps=2).fit(plain(), whole_batch())
    with open_archive(path) as archive:
        assert archive.steps.tolist() == [0, 1, 2]


def test_two_trackers_in_one_trainer(tmp_path):
    first, second = (NTKTracker(tmp_path / f"{name}.h5", probe=8, schedule=4, log=False) for name in "ab")
    trainer(first, second, max_steps=4).fit(plain(), whole_batch())
    for name in "ab":
        with open_archive(tmp_path / f"{name}.h5") as archive:
            assert archive.steps.tolist() == [0, 4]
