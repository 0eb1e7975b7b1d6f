"""A measurement between the forward and the backward pass: the user's graph survives it, whatever is observed.

Oracle: the same training without a tracker, bit for bit; a graph that did not survive ends it with autograd's own error.
"""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.undisturbed import preserved_buffers
from tests.tracking.untracked import Untracked


def batchnorm():
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))


def frozen_batchnorm():
    model = batchnorm()
    model[1].eval()
    return model


def spectral():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 6)), nn.Tanh(), nn.Linear(6, 1))


def old_spectral():
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 6)), nn.Tanh(), nn.Linear(6, 1))


class Counts(nn.Module):
    """A buffer of the network's own that training writes and the backward pass reads."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.scale.mul_(1.01)
        return self.layers(x) * self.scale


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False)


def dropout():
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(6, 1))


def compiled():
    model = batchnorm()
    model.compile(backend="aot_eager")
    return model


MODELS = {
    f.__name__: f
    for f in (compiled, batchnorm, frozen_batchnorm, spectral, old_spectral, Counts, Checkpointed, dropout)
}
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()


def train(make, path=None, *, autocast=False):
    """Two updates, whose tracker measures the first state between forward and backward, with every observable."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    given = {"probe": kt.Probe(X[:4], Y[:4]), "loss": "mse", "schedule": 100, "log": False, "observables": "all"}
    with kt.Tracker(path, model, optimizer, **given) if path else Untracked() as tracker:
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = (model(X) - Y).square().mean()
                tracker.before()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            tracker.after(loss)
    return [*model.state_dict().values(), torch.get_rng_state()]


CASES = [(name, autocast) for name in MODELS for autocast in (False, True)]
QUICK = {("batchnorm", True), ("Counts", False), ("Checkpointed", False)}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "autocast"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.nightly) for case in CASES]
)
def test_the_graph_survives(tmp_path, name, autocast):
    found = train(MODELS[name], tmp_path / "run.h5", autocast=autocast)
    for ours, plain in zip(found, train(MODELS[name], autocast=autocast), strict=True):
        assert torch.equal(ours, plain)
    with kt.open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 2]
        assert {s.status for s in archive} == {"ok"}


def test_a_buffer_that_is_put_back_is_as_the_graph_saved_it():
    """Oracle: autograd's own check of what it saved. Negative control: the same value written by the user is refused."""
    buffer = torch.ones(3)
    model = nn.Module()
    model.register_buffer("scale", buffer)
    x = torch.ones(3, requires_grad=True)
    product = x * buffer
    with preserved_buffers(model):
        model.scale.mul_(2)
    product.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
    buffer.copy_(torch.ones(3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
