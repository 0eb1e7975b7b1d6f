"""Control runs of Lightning fits. Oracle: the fit from scratch whose rate never changes, in the weights to the bit."""

import dataclasses
import hashlib
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

import kerneltrack as kt
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker, run_control
from kerneltrack.errors import ForkError
from tests.tiers import later
from tests.tracking.forked_runs import BATCH, NUMBERS, dataset, generators, same
from tests.tracking.test_control_run import attributes, rows

PER_EPOCH = 7
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*checkpoint.*exists"
)


class Net(pl.LightningModule):
    """Batch statistics, dropout, momentum; 0.05 until ``change``, then a fifth; by a scheduler that steps at every update."""

    def __init__(self, change, *, kind="lambda", adam=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 1))
        self.change, self.kind, self.adam = change, kind, adam

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self(x) - y).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", (self(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        kind = torch.optim.AdamW if self.adam else torch.optim.SGD
        optimizer = kind(self.parameters(), lr=0.05, **({} if self.adam else {"momentum": 0.9}))
        if self.kind == "one-cycle":
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=30, pct_start=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        if self.kind == "by epoch":
            stairs = torch.optim.lr_scheduler.StepLR(
                optimizer, step_size=self.change // PER_EPOCH if self.change else 99, gamma=0.2
            )
            return {"optimizer": optimizer, "lr_scheduler": stairs}
        drop = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.2 if self.change and t >= self.change else 1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": drop, "interval": "step"}}


class Data(pl.LightningDataModule):
    def __init__(self, *, generator=None, **loader):
        super().__init__()
        self.generator, self.loader = generator, loader

    def train_dataloader(self):
        generator = self.generator and torch.Generator().manual_seed(self.generator)
        return DataLoader(dataset(), **{"batch_size": BATCH, "shuffle": True, **self.loader}, generator=generator)

    def val_dataloader(self):
        return DataLoader(dataset(), batch_size=14, shuffle=False)


class Weights(pl.Callback):
    """The weights and buffers before every update and after the last."""

    def __init__(self):
        self.seen = {}

    def look(self, trainer, module):
        self.seen[trainer.global_step] = {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_batch_start(self, trainer, module, *_):
        if trainer.global_step not in self.seen:
            self.look(trainer, module)

    def on_train_end(self, trainer, module):
        self.look(trainer, module)


def trainer_of(*callbacks, steps=-1, **options):
    given = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", callbacks=list(callbacks), **{**given, **options}
    )


def tracker_of(path, **options):
    given = {
        "probe": kt.Probe(*dataset().tensors), "loss": "mse", "observables": NUMBERS, "log": False, "keep_forks": True,
        "schedule": kt.schedule.OnLearningRateChange(after=(0, 1, 10)),
    }  # fmt: skip
    return NTKTracker(path, **{**given, **options})


class Fitted:
    """A fit from scratch; with a path it is tracked."""

    def __init__(self, change, steps, path=None, *, data=None, trainer=None, tracker=None, **net):
        pl.seed_everything(3, verbose=False)
        self.weights = Weights()
        self.tracker = path and tracker_of(path, **(tracker or {}))
        self.module = Net(change, **net)
        self.trainer = trainer_of(*([self.tracker] if path else []), self.weights, steps=steps, **(trainer or {}))
        self.trainer.fit(self.module, datamodule=Data(**(data or {})))
        self.seen = self.weights.seen
        self.left = generators(), repr(self.trainer.optimizers[0].state_dict()), dict(self.trainer.callback_metrics)


def control(fitted, steps, path, *, fork=0, data=None, trainer=None, net=None, **options):
    """The control of a fit's fork, and its weights."""
    weights = Weights()
    done = run_control(
        fitted.tracker.forks[fork],
        trainer=trainer_of(weights, **(trainer or {})),
        module=Net(None, **(net or {})),
        datamodule=Data(**(data or {})),
        steps=steps,
        archive=path,
        **options,
    )
    return done, weights.seen


CASES = {
    "in mid-epoch": (17, {}),
    "in the first epoch": (12, {"data": {"batch_size": 2}}),
    "at an epoch's first update": (21, {"net": {"kind": "by epoch"}}),
    "a generator of the loader's": (17, {"data": {"generator": 5}}),
    "AdamW, in order, no validation": (
        17,
        {"data": {"shuffle": False}, "net": {"adam": True}, "trainer": {"limit_val_batches": 0}},
    ),
    "a loader made anew at each epoch": (21, {"trainer": {"reload_dataloaders_every_n_epochs": 1}}),
    "two batches an update": (12, {"trainer": {"accumulate_grad_batches": 2}}),
    "gradients clipped": (17, {"trainer": {"gradient_clip_val": 0.05}}),
}


#: Another place in the epoch, and what the user's own Trainer does to gradients: accumulation shows both.
NIGHTLY = {"in the first epoch", "gradients clipped"}


@pytest.mark.parametrize("name", [later(name) if name in NIGHTLY else name for name in CASES])
def test_weights_are_those_of_a_fit_whose_rate_never_changes(tmp_path, name):
    """After 1, 10 and, in the first case, 100 updates."""
    change, options = CASES[name]
    last = 100 if name == "in mid-epoch" else 10
    fits = {"data": options.get("data"), "trainer": options.get("trainer"), **options.get("net", {})}
    never = Fitted(None, change + last, **fits)
    fitted = Fitted(change, change + 12, tmp_path / "run.h5", **fits)
    (fork,) = fitted.tracker.forks
    assert (fork.step, fork.old_rates, fork.reason) == (change, (0.05,), "step")
    path, seen = control(fitted, last, tmp_path / "control.h5", **options)
    for count in {1, 10, last}:
        assert same(seen[change + count], never.seen[change + count])
    assert not same(fitted.seen[change + 1], never.seen[change + 1])  # negative control: the change did something
    assert attributes(path)["batches"] == "same_batches"
    assert {row.learning_rates for row in rows(path)} == {(0.05,)}
    assert not list(check(path))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return Fitted(17, 30, tmp_path_factory.mktemp("fitted") / "run.h5")


def test_the_fit_does_not_notice_its_forks(fitted):
    """Weights and buffers at every update; generators, optimizer and what was logged at the end."""
    bare = Fitted(17, 30)
    assert fitted.seen.keys() == bare.seen.keys()
    assert all(same(fitted.seen[step], bare.seen[step]) for step in bare.seen)
    assert fitted.left == bare.left


def test_nothing_of_the_fit_is_moved(tmp_path):
    """Its module, its trainer's facts, its files (log, checkpoints, archive) and the generators, before and after, to the bit."""
    pl.seed_everything(3, verbose=False)
    tracker, module, logger = tracker_of(tmp_path / "run.h5"), Net(17), CSVLogger(tmp_path, name="logs")
    best = pl.callbacks.ModelCheckpoint(tmp_path / "best", monitor="val", save_top_k=1)
    trainer = trainer_of(tracker, best, steps=30, logger=logger, enable_checkpointing=True, log_every_n_steps=1)
    trainer.fit(module, datamodule=Data())

    def facts():
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
        weights = hashlib.sha256(b"".join(v.numpy().tobytes() for v in module.state_dict().values())).hexdigest()
        progress = trainer.fit_loop.state_dict(), trainer.global_step, trainer.current_epoch, list(trainer.callbacks)
        optimizer = repr(trainer.optimizers[0].state_dict())
        drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        return (
            files,
            weights,
            repr(progress),
            optimizer,
            best.best_model_path,
            drawn,
            trainer.lightning_module is module,
        )

    another = Net(None)  # its weights are drawn
    before = facts()
    new = pl.callbacks.ModelCheckpoint(tmp_path.parent / "other", monitor="val", save_top_k=1)
    run_control(
        tracker.forks[0],
        trainer=trainer_of(new, enable_checkpointing=True),
        module=another,
        datamodule=Data(),
        steps=9,
        archive=tmp_path.parent / "control-of-nothing-moved.h5",
        if_exists="replace",
    )
    assert facts() == before


def test_what_a_control_is_of(fitted, tmp_path):
    path, _ = control(fitted, 13, None)
    assert path.name == "run-control-17.h5"
    said, theirs = attributes(path), attributes(fitted.tracker.archive)
    assert (said["control_of"], said["fork_step"]) == (theirs["archive_id"], 17)
    steps = [row.step for row in rows(fitted.tracker.archive) if row.step >= 17]
    assert [row.step for row in rows(path)] == steps
    before = next(row for row in rows(fitted.tracker.archive) if row.step == 17)
    assert (rows(path)[0].probes["probe"]["outputs"] == before.probes["probe"]["outputs"]).all()


class Unsaved(Net):
    def on_save_checkpoint(self, checkpoint):
        raise RuntimeError("not today")


def test_a_state_that_cannot_be_kept_ends_no_training(tmp_path):
    """With on_error="warn"; else the user's own error is raised. The weights are those of a fit without forks."""
    pl.seed_everything(3, verbose=False)
    tracker, weights = tracker_of(tmp_path / "run.h5", on_error="warn"), Weights()
    with pytest.warns(UserWarning, match="could not keep the state at step 17: .*not today"):
        trainer_of(tracker, weights, steps=20).fit(Unsaved(17), datamodule=Data())
    assert tracker.forks == ()
    bare = Fitted(17, 20)
    assert all(same(weights.seen[step], bare.seen[step]) for step in bare.seen)
    with pytest.raises(RuntimeError, match="not today"):
        trainer_of(tracker_of(tmp_path / "other.h5"), steps=20).fit(Unsaved(17), datamodule=Data())


def test_a_validation_that_differs_is_said_before_the_first_update(fitted, tmp_path, capsys):
    """The run validates after each epoch. Only where the two differ is there a line."""
    (fork,) = fitted.tracker.forks
    loud = dataclasses.replace(fork.origin.options, log=True)
    told = dataclasses.replace(fork, origin=dataclasses.replace(fork.origin, options=loud))

    class Listens(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 17:
                heard.append("validat" in capsys.readouterr().err)

    heard = []
    for limit in (1.0, 0):
        given = {"trainer": trainer_of(Listens(), limit_val_batches=limit), "module": Net(None), "datamodule": Data()}
        run_control(told, **given, steps=1, archive=tmp_path / "control.h5", if_exists="replace")
    assert heard == [False, True]


def test_a_fork_names_the_arguments_that_its_control_takes(fitted):
    (fork,) = fitted.tracker.forks
    assert fork.origin.source.data == ("datamodule",)
    call = "kerneltrack.callbacks.run_control(tracker.forks[0], trainer=Trainer(…), module=…, datamodule=…)"
    assert fitted.tracker._control_call(fork, "tracker.forks[0]") == call


def test_a_control_without_data_is_refused(fitted, tmp_path):
    with pytest.raises(ForkError, match=r"without data.*Give train_dataloaders= and val_dataloaders="):
        run_control(fitted.tracker.forks[0], trainer=trainer_of(), module=Net(None), archive=tmp_path / "no.h5")


def test_a_control_is_as_long_as_its_run_unless_told(fitted, tmp_path):
    """The fit made 30 updates, 13 of them after the fork."""
    path, seen = control(fitted, None, tmp_path / "control.h5")
    assert (max(seen), rows(path)[-1].step) == (30, 30)


def test_other_data_are_told(fitted, tmp_path, capsys):
    path, _ = control(fitted, 3, tmp_path / "control.h5", data={"batch_size": 3})
    assert attributes(path)["batches"] == "other_batches"
    path, _ = control(fitted, 13, tmp_path / "later.h5", trainer={"limit_train_batches": 5})
    assert attributes(path)["batches"] == "other_batches"


def test_a_placebo_has_the_fit_s_rates_and_other_batches(fitted, tmp_path):
    path, seen = control(fitted, 13, tmp_path / "placebo.h5", placebo=True)
    assert attributes(path)["placebo_of"] == attributes(fitted.tracker.archive)["archive_id"]
    assert {row.learning_rates for row in rows(path)} == {(0.01,)} or {row.learning_rates[0] for row in rows(path)} == {
        0.05 * 0.2
    }
    assert same(seen[17], fitted.seen[17])
    assert not same(seen[18], fitted.seen[18])


def test_momentum_is_held_with_the_rate(tmp_path):
    """One-cycle lowers the momentum while the rate rises: from its peak on both stay. The schedule ends after 30 updates."""
    fitted = Fitted(None, 29, tmp_path / "run.h5", kind="one-cycle", tracker={"schedule": 5})
    (fork,) = fitted.tracker.forks
    assert fork.reason == "decay"
    assert fork.old_rates[0] == pytest.approx(0.05)
    momenta = set()

    class Looks(pl.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            momenta.add((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))

    run_control(
        fork, trainer=trainer_of(Looks()), module=Net(None, kind="one-cycle"), datamodule=Data(), steps=25,
        archive=tmp_path / "control.h5",
    )  # fmt: skip
    assert momenta == {(fork.old_rates[0], fork.settings[0][0]["momentum"])}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda f: {"module": f.module}, "the module of a control run: expected a new module"),
        (lambda f: {"trainer": f.trainer}, "the trainer of a control run: expected a new trainer"),
        (lambda f: {"trainer": trainer_of(tracker_of("other.h5"))}, "has an NTKTracker: expected none"),
        (lambda f: {"fork": 3}, "run_control.*expected a fork of an NTKTracker"),
    ],
    ids=["its module", "its trainer", "a tracker", "no fork"],
)
def test_what_cannot_go_on_is_refused(fitted, tmp_path, given, message):
    options = {
        "fork": fitted.tracker.forks[0],
        "trainer": trainer_of(),
        "module": Net(None),
        "steps": 2,
        **given(fitted),
    }
    with pytest.raises(ForkError, match=message):
        run_control(options.pop("fork"), datamodule=Data(), archive=tmp_path / "refused.h5", **options)
