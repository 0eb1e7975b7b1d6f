"""A network in a loop of one's own, and one update of it at a time."""

import torch
from torch import nn

import kerneltrack as kt

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()
PROBE = kt.Probe(X[:6], Y[:6])
NUMBERS = ["trace", "probe_loss", "stability_ratio", "linearization_error"]


class Loop:
    """A network, an optimizer, and one update of them at a time."""

    def __init__(self, **optimizer):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), **{"lr": 0.1, "momentum": 0.9, **optimizer})

    def tracker(self, path, **options):
        given = {"probe": PROBE, "loss": "mse", "log": False, "observables": NUMBERS, "schedule": 1, **options}
        return kt.Tracker(path, self.model, self.optimizer, **given)

    def loss(self, x=X, y=Y):
        return (self.model(x) - y).square().mean()

    def update(self, x=X, y=Y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss


def rows(path):
    with kt.open_archive(path) as archive:
        return list(archive)
