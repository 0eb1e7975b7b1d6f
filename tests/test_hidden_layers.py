"""Gates and the readout's share, measured on networks of every kind.

Oracles: the inputs of the nonlinearities by hand, layer by layer; the readout's own Jacobian by autograd; shares that are one.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # its usual name

from kerneltrack import Probe
from kerneltrack.measurement.hidden_layers import hidden_activations
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.references import References
from kerneltrack.ntk import Network
from kerneltrack.observables import select
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(5, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made(build):
    torch.manual_seed(3)
    model = build().double()
    for module in model.modules():  # statistics that are not those of the start
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


class Functional(nn.Module):
    """As in PyTorch's first example: functions of torch, in place, after pooling, and a layer that goes nowhere."""

    def __init__(self):
        super().__init__()
        self.conv, self.bare, self.linear, self.out = (
            nn.Conv2d(2, 3, 3),
            nn.Conv2d(2, 3, 3),
            nn.Linear(12, 4),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        x = F.relu_(F.max_pool2d(self.conv(x), 2) + 0 * self.bare(x).mean())
        return self.out(torch.flatten(x, 1).matmul(torch.eye(12).to(x)) @ self.linear.weight.T)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.out = nn.Conv2d(2, 3, 3), nn.Linear(12, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv(x), 2), inplace=True)
        x = F.dropout(self.linear(x.flatten(1)), training=self.training)
        return self.out(torch.where(x > 0, x, 0.1 * x))


class Scaled(nn.Module):
    """As in the NTK's parametrisation."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.out((0.5 * self.inner(x) / 3**0.5).relu_()) / 2


class Residual(nn.Module):
    """Two norms: one goes into a nonlinearity, the other into a sum."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.conv2, self.bn2 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.out = nn.Linear(72, 2)

    def forward(self, x):
        inner = torch.relu(self.bn1(self.conv1(x)))
        return self.out(torch.relu(x + self.bn2(self.conv2(inner))).flatten(1))


def frozen_norm():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    return model


def shared():
    linear = nn.Linear(3, 3)
    return nn.Sequential(linear, nn.Tanh(), linear, nn.GELU(), nn.Linear(3, 2))


def flat(tensor):
    return tensor.detach().reshape(len(tensor), -1).numpy()


#: network, inputs, and by layer what its nonlinearity is given, by hand.
CASES = {
    "linear and ReLU": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), X, lambda m: {"0": m[0](X)},
    ),
    "in place": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), X, lambda m: {"0": m[0](X)},
    ),
    "a convolution before BatchNorm": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)), IMAGES,
        lambda m: {"1": m[:2](IMAGES)},
    ),
    "a norm without parameters is no layer": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.SiLU(), nn.Linear(4, 2)), X,
        lambda m: {"0": m[:2](X)},
    ),
    "a norm that does not train is no layer": (frozen_norm, X, lambda m: {"0": m[:2](X)}),
    "LayerNorm and GELU": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)), X, lambda m: {"1": m[:2](X)},
    ),
    "nothing but linear layers": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), X, lambda m: {}),
    "one of two goes into the next": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), X, lambda m: {"1": m[:2](X)},
    ),
    "pooling, dropout, and a nonlinearity of one's own": (
        Pooled, IMAGES,
        lambda m: {
            "conv": (z := F.max_pool2d(m.conv(IMAGES), 2)), "linear": m.linear(F.relu(z).flatten(1)),
        },
    ),
    "a number as a factor": (Scaled, X, lambda m: {"inner": 0.5 * m.inner(X) / 3**0.5}),
    "a sum of two branches is neither's": (Functional, IMAGES, lambda m: {}),
    "a residual block": (Residual, IMAGES, lambda m: {"bn1": m.bn1(m.conv1(IMAGES))}),
    "PReLU has parameters and no gates of its own": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2)), X, lambda m: {"0": m[0](X)},
    ),
    "a layer that is used twice": (
        shared, X, lambda m: {"0": torch.cat([m[0](X), m[:3](X)], dim=1)},
    ),
    "a readout that is squashed": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()), X,
        lambda m: {"0": m[0](X), "2": m[:3](X)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_gates_are_what_nonlinearities_are_given(case):
    build, inputs, by_hand = CASES[case]
    model = made(build)
    found = hidden_activations(Network(model), inputs).gates
    with torch.no_grad():
        expected = {layer: flat(value) for layer, value in by_hand(model).items()}
    assert found.keys() == expected.keys()
    for layer, value in expected.items():
        np.testing.assert_allclose(flat(found[layer]), value, rtol=1e-12, atol=1e-14)


def test_flips_are_told_where_there_are_gates_and_nowhere_else():
    """A convolution's own zero crossings, which were told before, are not those of the ReLU behind its norm."""
    build, inputs, _ = CASES["a convolution before BatchNorm"]
    model = made(build)
    instrument = Instrument(
        probe=Probe(inputs, torch.zeros(5, 2, dtype=torch.float64)),
        loss=ProbeLoss.of("half_mse"),
        observables=select("gate_flips"),
    )
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    start = instrument.measure(model, rule, step=0)
    with torch.no_grad():
        before = flat(model[:2](inputs))
        model[0].weight.normal_()
        after, own = flat(model[:2](inputs)), model[0](inputs)
    reading = instrument.measure(model, rule, step=1, references=References(initial=start.state))
    flips = reading.values["gate_flips"]
    assert np.isnan(flips[[0, 2]]).all()
    assert flips[1] == np.mean((after > 0) != (before > 0)) > 0
    assert np.mean((flat(own) > 0) != (after > 0)) > 0.01  # the two are not the same gates


def share(model, **options):
    """Both shares of the readout, by a measurement in float64."""
    names = ["conjugate_kernel_share", "conjugate_kernel_share_with_bias"]
    instrument = Instrument(
        probe=Probe(X, torch.zeros(5, 2, dtype=torch.float64)), observables=select(names), **options
    )
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    reading = instrument.measure(model, rule, step=0)
    return [float(reading.values[name]) for name in names], reading.reasons


def network(*, bias=True, frozen=True):
    model = made(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=bias)))
    model[0].requires_grad_(not frozen)
    return model


@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
def test_a_linear_model_on_frozen_features_is_all_readout(output):
    """Θ = (φφᵀ + 11ᵀ) ⊗ I_O: the share is one with the bias, and one without it where there is none."""
    (alone, both), _ = share(network(), output=output)
    assert both == pytest.approx(1, abs=1e-12)
    features = np.tanh(flat(network()[0](X)))
    assert alone == pytest.approx(np.sum(features**2) / (np.sum(features**2) + 5), rel=1e-12)
    assert share(network(bias=False), output=output)[0] == pytest.approx([1, 1], abs=1e-12)


@pytest.mark.parametrize("params", [None, ["2.weight"], ["2.bias", "0.weight"], ["0.weight"]])
def test_shares_are_of_what_the_kernel_is_of(params):
    """Oracle: squared gradients of each output by autograd, of the readout's chosen parameters and of all of them."""
    model = network(frozen=False)
    squares = dict.fromkeys((name for name, _ in model.named_parameters()), 0.0)
    for row in X:
        for o in range(2):
            gradients = torch.autograd.grad(model(row)[o], list(model.parameters()))
            for name, gradient in zip(squares, gradients, strict=True):
                squares[name] += float(gradient.square().sum())
    chosen = set(squares) if params is None else set(params)
    total = sum(squares[name] for name in chosen)
    expected = [squares[f"2.{name}"] if f"2.{name}" in chosen else np.nan for name in ("weight", "bias")]
    (alone, both), reasons = share(model, params=params)
    if np.isnan(expected[0]):
        assert np.isnan(alone)
        assert "the readout's weights are not among" in reasons["conjugate_kernel_share"]
    else:
        assert alone == pytest.approx(expected[0] / total, rel=1e-10)
    if np.isnan(expected).all():
        assert np.isnan(both)
    else:
        assert both == pytest.approx(np.nansum(expected) / total, rel=1e-10)
