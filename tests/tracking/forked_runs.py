"""Trainings whose rate changes once, in a plain loop: shuffled batches, dropout, momentum, a change in mid-epoch."""

import copy
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt

SAMPLES, BATCH, PER_EPOCH = 28, 4, 7
NUMBERS = ["trace", "probe_loss"]


def network(*, dropout=0.3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 1))


def dataset():
    x = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x[:, :1].sin())


def optimizer_of(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **options})


def update(model, optimizer, batch):
    """One update, as the loop and its control make it."""
    x, y = batch
    optimizer.zero_grad()
    loss = (model(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    return loss


class Run:
    """A training of ``updates`` updates, at 0.05 until ``change``, then at a fifth of it; None: never.

    Attributes:
        seen: the weights and buffers before every update, and after the last.
        optimizers: the optimizer's state before every update.
        batches: of every update.
    """

    def __init__(
        self, change, updates, *, generator=None, make=DataLoader, between=lambda: None, seed=7, rates=None, **loader
    ):
        self.model = network()
        self.optimizer = optimizer_of(self.model)
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        given = {"batch_size": BATCH, "shuffle": True, **loader}
        self.loader = make(dataset(), **given, generator=generator and torch.Generator().manual_seed(generator))
        self.change, self.updates, self.between = change, updates, between
        self.rates = rates or (lambda t: 0.05 if change is None or t < change else 0.01)
        self.seen, self.states, self.batches = [], [], []

    def tracker(self, path, **options):
        given = {
            "loss": "mse",
            "observables": NUMBERS,
            "log": False,
            "schedule": kt.schedule.OnLearningRateChange(after=(0, 1, 10)),
        }
        probe = kt.Probe(*dataset().tensors)
        return kt.Tracker(
            path, self.model, self.optimizer, **{**given, "probe": probe, "loader": self.loader, **options}
        )

    def look(self):
        self.seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        self.states.append(copy.deepcopy(self.optimizer.state_dict()))

    def train(self, tracker=None, *, tell=True, body=update):
        t = 0
        while t < self.updates:
            for batch in self.loader:
                if t == self.updates:
                    break
                self.optimizer.param_groups[0]["lr"] = self.rates(t)
                self.look()
                self.batches.append([part.clone() for part in batch])
                if tracker is None:
                    body(self.model, self.optimizer, batch)
                else:
                    with tracker.update(batch if tell else None) as under_way:
                        loss = body(self.model, self.optimizer, batch)
                        under_way.loss = loss if tell else None
                t += 1
            self.between()
        self.look()
        return self

    def tracked(self, path, *, tell=True, body=update, **options):
        tracker = self.tracker(path, **{"keep_forks": True, **options})
        with tracker:
            self.train(tracker, tell=tell, body=body)
        self.kept = tracker
        return self


def same(a, b):
    """Whether two states of weights and buffers are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
