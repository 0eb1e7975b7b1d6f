"""Trainings whose ``global_step`` jumps. Oracle: the states that the module itself saw before each batch, by hand."""

import pytest
import torch
from torch.utils.data import DataLoader

from kerneltrack import open_archive, schedule
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import Regressor, data, trainer


class Manual(Regressor):
    """Manual optimisation: which optimizers step after which batch is a function of the batch's number."""

    def __init__(self, steps):
        super().__init__(batchnorm=False, dropout=0.0, momentum=0.0)
        self.automatic_optimization = False
        self.steps, self.seen, self.batches = steps, [], 0

    def training_step(self, batch, batch_idx):
        if not self.seen or self.global_step != self.seen[-1][0]:
            self.seen.append((self.global_step, self.current_epoch))
        self.manual_backward((self(batch[0]) - batch[1]).square().mean() / 2)
        for number in self.steps(self.batches):
            self.optimizers()[number].step()
            self.optimizers()[number].zero_grad()
        self.batches += 1

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.layers[0], self.layers[4])]


def both(batch):
    return 0, 1


def critic(batch):
    return (0, 1) if batch % 3 == 2 else (0,)


def every_third_batch(batch):
    return (0,) if batch % 3 == 2 else ()


def changing(batch):
    return (0, 1) if batch in (0, 1, 5, 9, 10, 11, 17, 20, 26) else ()


def fit(path, steps, given, epochs=7):
    module = Manual(steps)
    tracker = NTKTracker(path, probe=5, schedule=given, observables="trace", log=False)
    options = {"max_epochs": epochs, "max_steps": -1}
    trainer(tracker, **options).fit(module, DataLoader(data(), batch_size=6))  # four batches an epoch
    with open_archive(path) as archive:
        return [(row.step, row.epoch, row.window) for row in archive], module


@pytest.mark.parametrize("steps", [both, critic, every_third_batch, changing])
@pytest.mark.parametrize("points", [(1, 3, 5, 7), range(0, 100, 3)], ids=["At", "Every"])
def test_each_point_is_met_by_the_first_state_after_it(tmp_path, steps, points):
    given = schedule.At(tuple(points)) if len(points) == 4 else 3
    rows, module = fit(tmp_path / "run.h5", steps, given)
    there = [step for step, _ in module.seen]
    met = {0} | {min(s for s in there if s >= point) for point in points if point <= there[-1]} | {module.global_step}
    assert [step for step, _, _ in rows] == sorted(met)


@pytest.mark.parametrize("steps", [both, critic, every_third_batch, changing])
def test_every_epoch_has_its_row(tmp_path, steps):
    """With three batches an update and four an epoch too; an update that takes a whole epoch leaves that one without a state."""
    rows, module = fit(tmp_path / "run.h5", steps, "epoch")
    firsts = {}
    for step, epoch in module.seen:
        firsts.setdefault(epoch, step)
    last = [] if module.global_step in firsts.values() else [module.global_step]
    assert [step for step, _, _ in rows] == [*firsts.values(), *last]
    assert [epoch for _, epoch, _ in rows[: len(firsts)]] == list(firsts)
    assert len(firsts) >= 6


@pytest.mark.parametrize("steps", [both, critic])
def test_a_pair_is_one_update_apart(tmp_path, steps):
    rows, module = fit(tmp_path / "run.h5", steps, schedule.Every(8, window=2))
    there = [*(step for step, _ in module.seen), module.global_step]
    seconds = [position for position, (_, _, window) in enumerate(rows) if window]
    assert len(seconds) > 3
    assert all(there.index(rows[i][0]) == there.index(rows[i - 1][0]) + 1 for i in seconds)
