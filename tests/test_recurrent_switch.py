"""cuDNN is off while a recurrent module runs, and on for everything else: cuDNN differentiates no recurrence in eval mode.

Oracle: ``torch.backends.cudnn.enabled``, read by spies that stand in the place of torch's fused recurrences and of its
convolution. The switch has no effect on a CPU, so that where it stands can be seen without a GPU.
"""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import kerneltrack as kt
from kerneltrack.measurement.training_outputs import flags_of, training_outputs
from kerneltrack.ntk import NetworkState, cross_time_ntk
from kerneltrack.undisturbed import evaluating
from tests.ntk.exact_kernels import matrix

RECURRENCES = ("rnn_tanh", "rnn_relu", "lstm", "gru")
X = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """A convolution over time, a recurrent module, and the last state."""

    def __init__(self, recurrence):
        super().__init__()
        self.conv, self.recurrence, self.head = nn.Conv1d(2, 3, 3), recurrence, nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.recur(self.conv(x).transpose(1, 2))[:, -1])

    def recur(self, x):
        return self.recurrence(x)[0]


class Direct(Net):
    def recur(self, x):
        return self.recurrence.forward(x)[0]


class Packed(Net):
    def recur(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        return pad_packed_sequence(self.recurrence(pack_padded_sequence(x, lengths, batch_first=True))[0], True)[0]


class Own(nn.GRU):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return super().forward(x.tanh())[0], None


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(3, 2, batch_first=True), nn.GRU(2, 2, batch_first=True)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)[0]
        return x, None


def scaled():
    return parametrizations.weight_norm(nn.LSTM(3, 2, batch_first=True), "weight_hh_l0")


NETWORKS = {
    "rnn": lambda: Net(nn.RNN(3, 2, batch_first=True)),
    "rnn-relu": lambda: Net(nn.RNN(3, 2, nonlinearity="relu", batch_first=True)),
    "lstm": lambda: Net(nn.LSTM(3, 2, num_layers=2, batch_first=True)),
    "lstm-two-ways": lambda: Net(nn.LSTM(3, 1, bidirectional=True, batch_first=True)),
    "gru": lambda: Net(nn.GRU(3, 2, batch_first=True)),
    "nested": lambda: Net(Nested()),
    "subclass": lambda: Net(Own(3, 2, batch_first=True)),
    "forward-called": lambda: Direct(nn.GRU(3, 2, batch_first=True)),
    "packed": lambda: Packed(nn.LSTM(3, 2, batch_first=True)),
    "parametrised": lambda: Net(scaled()),
}


def network(name):
    torch.manual_seed(0)
    return NETWORKS[name]().double().eval()


@pytest.fixture
def seen(monkeypatch):
    """What the switch was, whenever a recurrence and whenever a convolution ran."""
    found = {"recurrence": [], "convolution": []}

    def spy(kind, real):
        def spying(*args, **kwargs):
            found[kind].append(torch.backends.cudnn.enabled)
            return real(*args, **kwargs)

        return spying

    for name in RECURRENCES:
        monkeypatch.setattr(torch._VF, name, spy("recurrence", getattr(torch._VF, name)), raising=False)
    tables = nn.modules.rnn._rnn_impls
    for name in tables:
        monkeypatch.setitem(tables, name, spy("recurrence", tables[name]))
    monkeypatch.setattr(F, "conv1d", spy("convolution", F.conv1d))
    return found


def kernel(method):
    def run(model):
        with contextlib.suppress(kt.errors.KernelError):  # where the structure does not apply
            kt.empirical_ntk(model, X, method=method)

    return run


def products(model):
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        operator.matvec(torch.ones(6, dtype=torch.float64))
    operator.diagonal()


def linear(model):
    theta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    kt.linearize(model)(X, theta)


USES = {
    **{method: kernel(method) for method in ("auto", "structured", "jacobian", "products")},
    "operator": products,
    "linearize": linear,
    "plan": lambda model: kt.ntk_plan(model, X),
    "cross-time": lambda model: cross_time_ntk(model, X, NetworkState.of(model)),
    "training-outputs": lambda model: training_outputs(model, X, flags_of(model)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["lstm", "packed"])
def test_every_use(use, name, seen):
    USES[use](network(name))
    assert set(seen["recurrence"]) == {False}
    assert set(seen["convolution"]) == {True}
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_module(name, seen):
    model = network(name)
    kernel("jacobian")(model)
    assert set(seen["recurrence"]) == {False}
    assert set(seen["convolution"]) == {True}
    assert not [child for child in model.modules() if "forward" in vars(child)]


def test_switched_off_by_the_user_it_stays_off(seen):
    with torch.backends.cudnn.flags(enabled=False):
        kernel("auto")(network("lstm"))
        assert not torch.backends.cudnn.enabled
    assert not any(seen["convolution"])


def test_an_exception_inside_puts_the_switch_back():
    model = network("lstm")
    with pytest.raises(RuntimeError), evaluating([*model.modules()]), evaluating([*model.modules()]):
        model.recurrence(X)  # six features where three are wanted
    assert torch.backends.cudnn.enabled
    assert "forward" not in vars(model.recurrence)


def test_a_forward_of_the_instance_is_kept():
    """Some libraries put one on the instance; it runs, and stands there afterwards."""
    model, calls = network("gru"), []
    real = model.recurrence.forward

    def own(*args):
        calls.append(torch.backends.cudnn.enabled)
        return real(*args)

    model.recurrence.forward = own
    found = matrix(kt.empirical_ntk(model, X, method="jacobian").numpy())
    assert model.recurrence.forward is own
    assert set(calls) == {False}
    del model.recurrence.forward
    assert (abs(found - matrix(kt.empirical_ntk(model, X, method="jacobian").numpy())) < 1e-12).all()
