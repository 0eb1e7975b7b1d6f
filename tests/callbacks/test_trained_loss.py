"""What a row says of the trained loss and of the samples, and when a named loss is refused.

Oracles: the losses that the module itself keeps, by hand; the same training without the tracker, bit for bit.
"""

import warnings
from collections import UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import TrackerError
from tests.callbacks.lightning_runs import Regressor, data, trainer

N = 24


class Plain(Regressor):
    """Nothing random; it can add a penalty, and its optimizer can be another one."""

    def __init__(self, optimizer=None, penalty=0.0, loss=lambda f, y: (f - y).square().mean() / 2):
        torch.manual_seed(0)
        super().__init__(batchnorm=False, dropout=0.0, momentum=0.0)
        self.optimizer, self.penalty, self.loss = optimizer, penalty, loss

    def training_step(self, batch, batch_idx):
        x, y = batch.values() if isinstance(batch, UserDict) else (batch[0], batch[1])
        loss = self.loss(self(x), y)
        return self.kept(loss + self.penalty * sum(p.square().sum() for p in self.parameters()))

    def configure_optimizers(self):
        return self.optimizer(self.parameters()) if self.optimizer else super().configure_optimizers()


def fit(module, *callbacks, batch_size=N, collate=None, **options):
    loader = DataLoader(data(N), batch_size=batch_size, collate_fn=collate)
    trainer(*callbacks, **{"max_steps": 3, **options}).fit(module, loader)
    return [p.detach().clone() for p in module.parameters()]


def tracker(path, **options):
    probe = Probe(*data(N).tensors, name="train")
    few = {"probe": probe, "schedule": 1, "loss": "half_mse", "log": False, "observables": "probe_loss"}
    return NTKTracker(path, **{**few, **options})


def rows(path):
    with open_archive(path) as archive:
        return list(archive)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=1.0, max_iter=5)


def closures(parameters):
    """SGD that evaluates its closure twice at every update."""

    class Twice(torch.optim.SGD):
        def step(self, closure):
            super().step(closure)
            return super().step(closure)

    return Twice(parameters, lr=0.1)


@pytest.mark.parametrize("optimizer", [lbfgs, closures])
def test_closures(tmp_path, optimizer):
    """A row's loss is L(θ_t), that of the first closure, which is the probe's."""
    alone = fit(Plain(optimizer))
    watched = fit(Plain(optimizer), tracker(tmp_path / "run.h5"))
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    found = rows(tmp_path / "run.h5")
    assert [row.step for row in found] == [0, 1, 2, 3]
    for row in found[:-1]:
        assert row.training_loss == pytest.approx(float(row.probes["train"]["probe_loss"]), rel=1e-5)


def huber(f, y):
    return torch.nn.functional.huber_loss(f, y, delta=0.1)


@pytest.mark.parametrize(
    "own", [{"penalty": 0.01}, {"penalty": 1.0}, {"loss": huber}], ids=["penalty", "large", "huber"]
)
def test_a_loss_of_no_name_is_told_once_and_trained(tmp_path, own):
    alone = fit(Plain(**own))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watched = fit(Plain(**own), tracker(tmp_path / "run.h5"))
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert [row.step for row in rows(tmp_path / "run.h5")] == [0, 1, 2, 3]
    assert sum("adds something to the loss" in str(warning.message) for warning in told) == 1


def mse(f, y):
    return (f - y).square().mean()


@pytest.mark.parametrize(("trained", "named"), [(None, "mse"), (mse, "half_mse")])
def test_the_name_of_another_loss_is_refused(tmp_path, trained, named):
    module = Plain(loss=trained) if trained else Plain()
    right = {"mse": "half_mse", "half_mse": "mse"}[named]
    with pytest.raises(TrackerError, match=f"expected the loss that is trained, '{right}'"):
        fit(module, tracker(tmp_path / "run.h5", loss=named))


@pytest.mark.parametrize("batches", [1, 4, {0: 2, 1: 4}], ids=str)
def test_the_training_loss_is_what_training_step_gave(tmp_path, batches):
    """Oracle: the losses that the module keeps. Lightning hands them over divided by the accumulation."""
    from pytorch_lightning.callbacks import GradientAccumulationScheduler

    module, own = Plain(), []
    changing = isinstance(batches, dict)
    if changing:
        own.append(GradientAccumulationScheduler(batches))
    options = {} if changing else {"accumulate_grad_batches": batches}
    fit(module, tracker(tmp_path / "run.h5"), *own, batch_size=6, max_steps=-1, max_epochs=3, **options)
    found = rows(tmp_path / "run.h5")[:-1]
    ends = {1: range(1, 13), 4: (4, 8, 12)}[batches] if not changing else (2, 4, 8, 12)
    np.testing.assert_allclose(
        [row.training_loss for row in found], [float(module.losses[e - 1]) for e in ends], rtol=1e-6
    )


def as_user_dict(samples):
    x, y = (torch.stack(column) for column in zip(*samples, strict=True))
    return UserDict(x=x, y=y)


class Unknown:
    """A batch that nobody can look into."""

    def __init__(self, samples):
        self.pair = tuple(torch.stack(column) for column in zip(*samples, strict=True))

    def __getitem__(self, index):
        return self.pair[index]


TRUTH = [0, 12, 24, 36]


@pytest.mark.parametrize(("collate", "seen"), [(None, TRUTH), (as_user_dict, TRUTH), (Unknown, [0, -1, -1, -1])])
def test_samples_seen_is_the_truth_or_unknown(tmp_path, collate, seen):
    fit(Plain(), tracker(tmp_path / "run.h5"), batch_size=12, collate=collate)
    assert [row.samples_seen for row in rows(tmp_path / "run.h5")] == seen
