"""Recurrent layers in eval mode, of which cuDNN has no derivative, by every method and in the tracker's forward passes.

Oracle: the double loop over plain autograd on the CPU in float64.
"""

import copy

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.measurement.training_outputs import flags_of, training_outputs
from tests.gpu.moved import inputs_on, kernel_by
from tests.ntk.exact_kernels import matrix
from tests.ntk.oracles import EXACT, contract, distance, jacobian

pytestmark = pytest.mark.filterwarnings("ignore:.*projections is not supported with oneDNN.*")
X = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KINDS = {
    "rnn": lambda: nn.RNN(3, 2, batch_first=True),
    "rnn-relu": lambda: nn.RNN(3, 2, nonlinearity="relu", batch_first=True),
    "lstm": lambda: nn.LSTM(3, 2, num_layers=2, batch_first=True),
    "lstm-two-ways": lambda: nn.LSTM(3, 2, bidirectional=True, batch_first=True),
    "lstm-projected": lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True),
    "gru": lambda: nn.GRU(3, 2, batch_first=True, dropout=0.0),
}


class Net(nn.Module):
    def __init__(self, recurrence):
        super().__init__()
        self.conv, self.recurrence, self.head = nn.Conv1d(2, 3, 3), recurrence, nn.LazyLinear(2)

    def forward(self, x):
        return self.head(self.recurrence(self.conv(x).transpose(1, 2))[0][:, -1])


def network(kind):
    torch.manual_seed(0)
    model = Net(KINDS[kind]())
    model(X.float())  # what is lazy
    return model.double().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_every_method(device, kind):
    reference = network(kind)
    rows = jacobian(reference, X)
    expected, dense = contract(rows, rows, "full"), matrix(contract(rows, rows, "full"))
    model, x = copy.deepcopy(reference).to(device), inputs_on(device, X)
    for method in ("auto", "structured", "jacobian", "products"):
        kernel = kernel_by(method, model, x)
        assert kernel is None or distance(kernel, expected) < EXACT
    operator, v = kt.NTKOperator(model, x), torch.ones(8, dtype=torch.float64, device=device)
    for _ in range(3):
        assert distance(operator.matvec(v).cpu(), dense.sum(1)) < EXACT
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("kind", KINDS)
def test_the_linearised_network_is_trained(device, kind):
    """Oracle: J_0ᵀu by the double loop."""
    reference = network(kind)
    rows, model = jacobian(reference, X), copy.deepcopy(reference).to(device)
    theta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    kt.linearize(model)(inputs_on(device, X), theta).sum().backward()
    for name, value in theta.items():
        assert distance(value.grad.ravel().cpu(), rows[name].sum((0, 1))) < EXACT


@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_in_training(device, kind):
    """No dropout: they are those of the CPU."""
    reference = network(kind)
    model, flags = copy.deepcopy(reference).to(device), dict.fromkeys(flags_of(reference), True)
    found = training_outputs(model, inputs_on(device, X), flags)
    assert distance(found.cpu(), reference(X).detach().numpy()) < EXACT


@pytest.mark.filterwarnings("ignore:RNN module weights")
def test_cudnn_alone_would_refuse(device):
    """Why all of this is needed: fails on the day when cuDNN differentiates in eval mode."""
    model = network("lstm").to(device)
    if device.type == "cpu":
        return
    with pytest.raises(RuntimeError, match="training mode"):
        model(inputs_on(device, X)).sum().backward()
