"""What a row keeps and says of its update: the kernel, the rates that the update really used, the training's own seconds.

Oracles: the kernel by plain autograd of a copy of the network; the rates that the module itself set; a clock beside the run.
"""

import copy
import math
import time

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement.instrument import Instrument
from tests.callbacks.lightning_runs import Regressor, data, loader, trainer


def by_autograd(module, x):
    """Θ (N, N) of a module with one output, a gradient for each sample."""
    rows = []
    for sample in x:
        gradients = torch.autograd.grad(module(sample[None]).squeeze(), list(module.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    jacobian = torch.stack(rows).double()
    return (jacobian @ jacobian.T).numpy()


class Copies(pl.Callback):
    """The network before every update and at the end."""

    def __init__(self):
        self.at = {}

    def on_train_batch_start(self, trainer, module, *_):
        self.at[trainer.global_step] = copy.deepcopy(module.layers).eval()

    def on_train_end(self, trainer, module):
        self.at[trainer.global_step] = copy.deepcopy(module.layers).eval()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [0, 5]),
        ({"keep_kernel": "ends"}, [0, 5]),
        ({"keep_kernel": "none"}, []),
        ({"keep_kernel": "all"}, [0, 2, 4, 5]),
    ],
    ids=["default", "ends", "none", "all"],
)
def test_the_kernels_that_were_asked_for_are_stored(tmp_path, given, kept):
    """Fails where "ends", the default, forgets the last state or keeps what lies between, and where "none" keeps one."""
    x, y = data(6).tensors
    copies, tracker = Copies(), NTKTracker(tmp_path / "run.h5", probe=Probe(x, y), schedule=2, log=False, **given)
    trainer(copies, tracker, max_steps=5).fit(Regressor(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2, 4, 5]
        found = {row.step: row.probes["probe"]["kernel"] for row in archive if "kernel" in row.probes["probe"]}
    assert list(found) == kept
    for step, kernel in found.items():
        expected = by_autograd(copies.at[step], x)
        # float32 sums over a few dozen parameters
        np.testing.assert_allclose(kernel[:, :, 0, 0], expected, atol=1e-5 * np.abs(expected).max())


class Linear(Regressor):
    """A linear model trained on the whole batch: what −η Θ m/N predicts of an update is exact, at the rate it used."""

    def __init__(self):
        super().__init__(batchnorm=False, dropout=0.0, momentum=0.0, lr=0.2)
        self.layers, self.used = nn.Linear(3, 1), []

    def set(self, optimizer):
        rate = 0.02 * (self.global_step + 1)
        self.used.append(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


class WarmsUp(Linear):
    """As Lightning's own documentation warms up: inside the step, after the measurement."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        self.set(optimizer)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


class ByHand(Linear):
    """Manual optimisation that sets the rate between the gradient and the step."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.set(optimizer)
        optimizer.step()
        return loss


@pytest.mark.parametrize("model", [WarmsUp, ByHand])
def test_the_rates_are_those_that_the_update_used(tmp_path, model):
    """Fails where the rates at the measurement, a few lines earlier, are stored or used: its error would be (1 − η'/η)²."""
    x, y = data().tensors
    tracker = NTKTracker(tmp_path / "run.h5", probe=Probe(x, y), schedule=1, loss="half_mse", log=False)
    module = model()
    trainer(tracker, max_steps=6).fit(module, loader(batch_size=24, shuffle=False))
    with open_archive(tmp_path / "run.h5") as archive:
        rows = list(archive)[:-1]
    assert [row.learning_rates for row in rows] == [pytest.approx((rate,)) for rate in module.used]
    errors = [float(row.probes["probe"]["kernel_flow_error"]) for row in rows]
    assert max(errors) < 1e-6  # squared rounding of float32 outputs over a change of a few hundredths of them


def test_seconds_of_training_are_those_without_measuring(tmp_path, monkeypatch):
    """Each half of a measurement sleeps for 0.1 s: between rows 1 and 7 training took the clock's time less that of six.

    From row 1 on, because the first opens the archive. Fails where ``train_seconds`` includes what is measured before an
    update, or behind it, by 0.6 s each; how long a machine stays in the hooks between the two clocks is allowed for by half
    of that.
    """
    nap = 0.1
    for half in ("measure", "complete"):
        real = getattr(Instrument, half)
        monkeypatch.setattr(Instrument, half, lambda self, *a, real=real, **k: time.sleep(nap) or real(self, *a, **k))
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=1, log=False)

    class Clock(pl.Callback):
        """Placed before the tracker: it reads the clock just before each measurement."""

        began, at = math.nan, {}

        def on_train_start(self, *_):
            self.began = time.perf_counter()

        def on_train_batch_start(self, trainer, *_):
            self.at[trainer.global_step] = time.perf_counter() - self.began

    clock = Clock()
    trainer(clock, tracker, max_steps=8).fit(Regressor(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        rows = list(archive)[:-1]
    measuring = sum(row.snapshot_seconds for row in rows[1:7])
    assert measuring >= 12 * nap
    training = rows[7].train_seconds - rows[1].train_seconds
    assert training >= 0
    assert training == pytest.approx(clock.at[7] - clock.at[1] - measuring, abs=0.3)
