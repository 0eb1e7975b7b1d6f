"""The probe is what training_step receives, a row says whose weights it holds, and a tracker that measured nothing says so.

Oracles: the batches, losses and weights that the module itself kept, by hand.
"""

import dataclasses
import itertools
import random
from collections import UserDict

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader

from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import TrackerError
from tests.callbacks.lightning_runs import Regressor, data, trainer
from tests.tiers import one_in

N = 24
#: A datamodule and a module that both have a hook is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:You have overridden")


class Sees(Regressor):
    """Keeps what training_step receives; nothing random."""

    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(**{"batchnorm": False, "dropout": 0.0, "momentum": 0.0, **options})
        self.received = []

    def training_step(self, batch, batch_idx):
        self.received.append([part.clone() for part in batch])
        return super().training_step(batch, batch_idx)


class Before(Sees):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 3, batch[1]


class Device(Sees):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch[0] + 1, batch[1]


class After(Sees):
    """Counts its calls, in a number and in a buffer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.calls += 1
        self.seen += 1
        return batch[0] * 10 + 3, batch[1] / 2


class Whole(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(data(N), batch_size=N)


class Hooked(Whole):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] - 2, batch[1]


class Draws(Sees):
    """An augmentation on the device: only in training, from every generator."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        noise = torch.rand(()) + random.random() + float(np.random.rand())
        return (batch[0] * noise if self.trainer.training else batch[0]), batch[1]


def fit(module, *callbacks, datamodule=None, loader=None, **options):
    one = trainer(*callbacks, **{"max_steps": 3, **options})
    one.fit(
        module,
        loader if loader is not None else (None if datamodule else DataLoader(data(N), batch_size=N)),
        datamodule=datamodule,
    )
    return [p.detach().clone() for p in module.parameters()]


def rows(path):
    with open_archive(path) as archive:
        return list(archive)


@pytest.mark.parametrize(
    ("kind", "source"), [(Before, None), (Device, None), (After, None), (Sees, Hooked), (After, Hooked)]
)
def test_a_drawn_probe_is_what_training_step_receives(tmp_path, kind, source):
    module = kind()
    tracker = NTKTracker(tmp_path / "run.h5", probe=N, keep_inputs=True, observables="trace", schedule=2, log=False)
    watched = fit(module, tracker, datamodule=source and source())
    alone = fit(kind(), datamodule=source and source())
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))
    with open_archive(tmp_path / "run.h5") as archive:
        record = archive.probes["train"]
    x, y = module.received[0]
    np.testing.assert_array_equal(record.inputs[""], x.numpy())
    np.testing.assert_array_equal(record.targets, y.double().numpy())
    assert record.identity["transform"]
    assert getattr(module, "calls", 3) == (3 if source is None else getattr(module, "calls", 3)), (
        "a call more is no trace"
    )
    if kind is After and source is None:
        assert float(module.seen) == 3


def test_a_hook_that_draws_gives_one_probe_whatever_the_run_s_seed(tmp_path):
    prints = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.h5"
        module = Draws()
        torch.manual_seed(seed)
        random.seed(seed)
        fit(module, NTKTracker(path, probe=N, observables="trace", log=False))
        with open_archive(path) as archive:
            prints.append(archive.probes["train"].fingerprint)
    raw = Probe.from_dataloader(DataLoader(data(N), batch_size=N), N, name="train").fingerprint
    assert prints[0] == prints[1] != raw


def test_without_a_hook_the_probe_is_that_of_the_loader(tmp_path):
    fit(Sees(), NTKTracker(tmp_path / "run.h5", probe=9, observables="trace", log=False))
    with open_archive(tmp_path / "run.h5") as archive:
        record = archive.probes["train"]
    assert record.fingerprint == Probe.from_dataloader(DataLoader(data(N), batch_size=N), 9, name="train").fingerprint
    assert "transform" not in record.identity


def test_a_hook_that_cannot_be_called_is_named(tmp_path):
    class Asks(Sees):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            raise KeyError("no such thing yet")

    with pytest.raises(
        TrackerError, match=r"probe=9 cannot be put through Asks.on_after_batch_transfer.*KeyError.*Give the tracker"
    ):
        fit(Asks(), NTKTracker(tmp_path / "run.h5", probe=9, log=False))


def test_hooks_are_named_beside_a_probe_that_was_given(tmp_path, capsys):
    fit(After(), NTKTracker(tmp_path / "run.h5", probe=Probe(*data(N).tensors), observables="trace"))
    assert "After.on_after_batch_transfer: not applied to the probe" in capsys.readouterr().err


def test_several_loaders_have_a_way_named(tmp_path):
    loaders = CombinedLoader({"a": DataLoader(data(N), batch_size=8), "b": DataLoader(data(N), batch_size=4)})
    with pytest.raises(TrackerError, match=r"probe=9.*got 2 of them.*Probe.from_dataloader\(loader_a, 256\)"):
        fit(Sees(), NTKTracker(tmp_path / "run.h5", probe=9, log=False), loader=loaders)


class Accumulates(pl.Callback):
    """Changes the accumulation at the end of a batch, before the tracker looks."""

    def on_train_batch_end(self, trainer, *_):
        trainer.accumulate_grad_batches = 1 + trainer.global_step % 3


def test_the_loss_is_that_of_the_batch_when_a_callback_changes_the_accumulation(tmp_path):
    module = Sees()
    tracker = NTKTracker(tmp_path / "run.h5", probe=9, schedule=1, observables="trace", log=False)
    fit(module, Accumulates(), tracker, loader=DataLoader(data(N), batch_size=2), max_steps=8)
    kept = [float(loss) for loss in module.losses]
    found = [row.training_loss for row in rows(tmp_path / "run.h5")[:-1]]
    assert all(any(loss == pytest.approx(k, rel=1e-6) for k in kept) for loss in found)
    assert found[0] == pytest.approx(kept[0], rel=1e-6)


class ByHand(Sees):
    """Two updates in a step; what it returns is the loss at weights in between."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for _ in range(2):
            loss = (self(batch[0]) - batch[1]).square().mean()
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss / 2


@pytest.mark.filterwarnings("error:kerneltrack")
def test_what_a_manual_step_returns_is_no_error(tmp_path):
    probe = Probe(*data(N).tensors)
    fit(
        ByHand(),
        NTKTracker(tmp_path / "run.h5", probe=probe, loss="half_mse", observables="probe_loss", log=False),
        max_steps=6,
    )
    assert {row.status for row in rows(tmp_path / "run.h5")} == {"ok"}


@dataclasses.dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


def columns(samples):
    return [torch.stack(column) for column in zip(*samples, strict=True)]


def images(samples):
    """As detection has them: a list of samples; their first axis is no batch."""
    return [x for x, _ in samples], [y for _, y in samples]


COLLATED = {
    "pair": (columns, lambda b: b, True),
    "UserDict": (lambda s: UserDict(zip("xy", columns(s), strict=True)), lambda b: b.values(), True),
    "dataclass": (lambda s: Pair(*columns(s)), lambda b: (b.x, b.y), True),
    "nested": (lambda s: {"in": UserDict(x=columns(s)[0]), "y": columns(s)[1]}, lambda b: (b["in"]["x"], b["y"]), True),
    "a list of samples": (images, lambda b: map(torch.stack, b), False),
    "another first axis": (lambda s: (*columns(s), torch.ones(2, 5)), lambda b: b[:2], False),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLLATED)
def test_samples_seen_is_the_truth_or_unknown(tmp_path, kind):
    """Batches of ten, ten and four, which is the last."""
    collate, pair, known = COLLATED[kind]

    class Takes(Sees):
        def training_step(self, batch, batch_idx):
            return super().training_step(tuple(pair(batch)), batch_idx)

    loader = DataLoader(data(N), batch_size=10, collate_fn=collate)
    tracker = NTKTracker(tmp_path / "run.h5", probe=Probe(*data(N).tensors), schedule=1, observables="trace", log=False)
    fit(Takes(), tracker, loader=loader, max_steps=5)
    truth = [0, 10, 20, 24, 34, 44]
    assert [row.samples_seen for row in rows(tmp_path / "run.h5")] == (truth if known else [0, *[-1] * 5])


@pytest.mark.parametrize(
    ("mode", "truth"), [("max_size_cycle", [0, 12, 24, 36, 48]), ("max_size", [0, 12, 24, 36, 40])]
)
def test_samples_of_several_loaders(tmp_path, mode, truth):
    class Takes(Sees):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["b"], batch_idx)

    loaders = {"a": DataLoader(data(N), batch_size=8), "b": DataLoader(data(N), batch_size=4)}
    tracker = NTKTracker(tmp_path / "run.h5", probe=Probe(*data(N).tensors), schedule=1, observables="trace", log=False)
    fit(Takes(), tracker, loader=CombinedLoader(loaders, mode), max_steps=4)
    assert [row.samples_seen for row in rows(tmp_path / "run.h5")] == truth


class LeftBehind(pl.Callback):
    """The weights that each update left."""

    def __init__(self):
        self.trained = {}

    def on_train_batch_end(self, trainer, module, *_):
        if not trainer.fit_loop._skip_backward:  # the pass that SWA adds for the statistics of norms makes no update
            self.trained[trainer.global_step] = [p.detach().clone() for p in module.parameters()]


class PutsAverage(pl.Callback):
    """As an averaging callback ends: through .data, which no version counter sees."""

    def on_train_end(self, trainer, module):
        for parameter in module.parameters():
            parameter.data.mul_(0.5)


def swa():
    return pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)


def ema():
    return pl.callbacks.EMAWeightAveraging(decay=0.5)


SWAPS = {"swa": swa, "ema": ema, "own": PutsAverage}


@pytest.mark.filterwarnings("ignore:SWA is currently only", "ignore:.*lr_scheduler.step")
@pytest.mark.parametrize(("swap", "first", "norm"), one_in(3, itertools.product(SWAPS, [True, False], [False, True])))
def test_a_row_holds_the_trained_weights_or_says_that_it_does_not(tmp_path, swap, first, norm):
    """Oracle: the weights at each measurement, beside those that the update left."""
    measured, spy = {}, LeftBehind()

    class Looks(NTKTracker):
        def _take(self, trainer, module, *args, **options):
            measured[trainer.global_step] = [p.detach().clone() for p in module.parameters()]
            super()._take(trainer, module, *args, **options)

    tracker = Looks(tmp_path / "run.h5", probe=Probe(*data(N).tensors), schedule=1, observables="trace", log=False)
    own = [spy, tracker, SWAPS[swap]()] if first else [spy, SWAPS[swap](), tracker]
    fit(Sees(batchnorm=norm), *own, loader=DataLoader(data(N), batch_size=8), max_epochs=3, max_steps=-1)
    found = {row.step: row for row in rows(tmp_path / "run.h5")}
    assert sorted(found) in (list(range(10)), list(range(11)))
    for step in sorted(found)[1:]:
        same = step in spy.trained and all(map(torch.equal, measured[step], spy.trained[step]))
        said = "the weights are not those that the last update left" in found[step].message
        assert said is not same, step
    if not first and not norm:
        assert "the weights are not" in found[9].message


def test_a_fit_without_a_batch_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"no batch was trained.*run\.h5 was not written"):
        fit(Sees(), NTKTracker(tmp_path / "run.h5", probe=9, log=False), limit_train_batches=0)
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no", "error:kerneltrack")
@pytest.mark.parametrize("stage", ["validate", "predict"])
def test_what_trains_nothing_says_so_and_is_no_run(tmp_path, capsys, stage):
    module = Sees()
    module.validation_step = lambda batch, batch_idx: None
    module.predict_step = lambda batch, batch_idx: self_call(module, batch)
    one = trainer(NTKTracker(tmp_path / "run.h5", probe=9, schedule=1, observables="trace"), max_steps=2)
    getattr(one, stage)(
        module, DataLoader(data(N), batch_size=N), **({"verbose": False} if stage == "validate" else {})
    )
    assert f"{stage} trains nothing" in capsys.readouterr().err
    assert not (tmp_path / "run.h5").exists()
    one.fit(module, DataLoader(data(N), batch_size=N))
    assert [row.step for row in rows(tmp_path / "run.h5")] == [0, 1, 2]


def self_call(module, batch):
    return module(batch[0])


@pytest.mark.filterwarnings("ignore:.*", "error:kerneltrack")
def test_a_search_for_the_learning_rate_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = Sees()
    module.lr = 0.05
    tracker = NTKTracker(tmp_path / "run.h5", probe=9, schedule=1, observables="trace", log=False)
    one = trainer(tracker, max_steps=3, enable_checkpointing=True)
    loader = DataLoader(data(N), batch_size=N)
    pl.tuner.Tuner(one).lr_find(module, loader, num_training=5)
    assert not (tmp_path / "run.h5").exists()
    one.fit(module, loader)
    assert [row.step for row in rows(tmp_path / "run.h5")] == [0, 1, 2, 3]


@pytest.mark.parametrize("other", ["Fabric", "object"])
def test_another_kind_of_trainer_is_refused_by_name(tmp_path, other):
    from types import SimpleNamespace

    given = SimpleNamespace(callbacks=[]) if other == "object" else fabric()
    with pytest.raises(
        TrackerError, match=r"expected the Trainer of pytorch_lightning.*Trainer\(callbacks.*kerneltrack\.Tracker"
    ):
        NTKTracker(tmp_path / "run.h5", log=False).on_train_start(given, Sees())


def fabric():
    return __import__("lightning.fabric", fromlist=["Fabric"]).Fabric(accelerator="cpu", devices=1)


def test_the_trainer_of_transformers_is_refused(tmp_path):
    with pytest.raises(TrackerError, match=r"got the Trainer of transformers.*transformers\.NTKTrackerCallback"):
        NTKTracker(tmp_path / "run.h5").on_init_end(None, None, None, model=None)
