"""The accelerator's branch of the engine, run on the CPU: exact on every model, and what its plan says of backward passes.

Oracle: the double loop over plain autograd in float64. Each kernel is asked for twice: planned, and by the kept plan, where
samples are looked at beside the kernel.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.errors import MemoryBudgetError
from kerneltrack.ntk.contraction import ORDERS
from kerneltrack.ntk.machine import Machine, use
from kerneltrack.ntk.methods import passes
from tests.ntk.exact_kernels import OUTPUTS, exact
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.preferred import prefer
from tests.ntk.problems import PROBLEMS
from tests.ntk.test_batches import built, padded
from tests.ntk.test_batches import truth as truth_of_batch
from tests.ntk.test_orders import SIZES, setting, truth
from tests.tiers import diagonals, one_in

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")


@pytest.fixture(autouse=True)
def accelerator():
    with use(Machine.accelerator(memory=80e9)):
        yield


#: Every third problem; those before meet the same machine with a tape in test_recording.py.
EVERY_THIRD = one_in(3, (pytest.param(*case, id=case[1]) for case in enumerate(PROBLEMS)), first=1)


@pytest.mark.parametrize(("number", "name"), EVERY_THIRD)
def test_every_model(number, name):
    """Reductions and shapes in turn."""
    problem, output = PROBLEMS[name], list(OUTPUTS)[number % len(OUTPUTS)]
    square = number // len(OUTPUTS) % 2 == 0
    model, (x1, x2) = problem.model(), problem.split()
    for _ in range(2):
        kernel = kt.empirical_ntk(model, x1, None if square else x2, output=OUTPUTS[output], forward=problem.forward)
        assert distance(kernel, exact(name, output, square)) < EXACT


@pytest.mark.parametrize(
    ("wanted", "output"),
    diagonals(3, [order.name for order in ORDERS if order.name != "tied"], ["full", "diagonal", "trace"]),
)
def test_every_order_that_applies(monkeypatch, wanted, output):
    """Also where it is not the cheapest, with all of the workspace and with room for one sample at a time."""

    prefer(monkeypatch, wanted)
    met = 0
    for name in SIZES:
        model, x = setting(name)
        met += any(wanted in use.order.split("+") for use in kt.ntk_plan(model, x, output=OUTPUTS[output]).uses)
        expected = truth(name, output)
        assert distance(kt.empirical_ntk(model, x, output=OUTPUTS[output]), expected) < EXACT
        assert distance(kt.empirical_ntk(model, x[1:], x[:4], output=OUTPUTS[output]), expected[1:, :4]) < EXACT
    assert met


class LooksAtData(torch.autograd.Function):
    """x², whose backward pass asks whether the gradient is positive, and is right either way."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient if bool(gradient.sum() > 0) else gradient * x * 2

    @staticmethod
    def vmap(info, in_dims, x):
        return LooksAtData.apply(x), in_dims[0]


class Net(nn.Module):
    """Two layers with ``between`` in the middle."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.between = nn.Linear(4, 6), nn.Linear(6, 3), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


def attention(*backends):
    def attend(h):
        with sdpa_kernel(list(backends)):
            q = h.unflatten(-1, (3, 2)).unsqueeze(1)
            return F.scaled_dot_product_attention(q, q.tanh(), q.sin()).flatten(1)

    return attend


def looking_on(h):
    h.register_hook(lambda gradient: None)
    return h.tanh()


#: What stands between two layers → what the plan says of backward passes.
BETWEEN = {
    "attention by its formula": (attention(SDPBackend.MATH), "3 outputs go backward in one pass"),
    "attention by any backend": (
        attention(SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH),
        "outputs go backward",
    ),
    "activation in place": (lambda h: F.relu_(h.mul_(2)), "3 outputs go backward in one pass"),
    "leaky relu in place": (nn.LeakyReLU(0.1, inplace=True), "3 outputs go backward in one pass"),
    "pooling": (
        lambda h: F.avg_pool1d(h.unsqueeze(1), 2, 1, 0).squeeze(1).repeat(1, 2)[:, :6],
        "3 outputs go backward in one",
    ),
    "norm": (nn.LayerNorm(6), "3 outputs go backward in one pass"),
    "tensor hook that looks on": (looking_on, "captured in ordinary batches"),
    "backward pass that looks at data": (
        LooksAtData.apply,
        "outputs go backward one by one: an operation cannot be batched",
    ),
    "checkpoint": (lambda h: checkpoint(torch.tanh, h, use_reentrant=False), "every parameter by plain autodiff"),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_outputs_together_or_one_by_one(between):
    """Batched equals looped, whichever the trial decides; the decision is printed. In float64, and in float32 to rounding."""
    torch.manual_seed(3)
    module, said = BETWEEN[between]
    model, x = Net(module).double(), torch.randn(5, 4, dtype=torch.float64)
    rows = jacobian(model, x)
    for _ in range(3):
        assert distance(kt.empirical_ntk(model, x), contract(rows, rows, "full")) < EXACT
    assert said in str(kt.ntk_plan(model, x))
    batched = kt.empirical_ntk(model.float(), x.float())
    with use(Machine()):
        looped = kt.empirical_ntk(model, x.float())
    torch.testing.assert_close(batched, looped, rtol=1e-5, atol=1e-5 * float(looped.abs().max()))


@pytest.mark.parametrize(
    ("name", "output"),
    diagonals(
        2, ["mlp", "lenet", "gpt-tied", "embedding-padding", "vit", "conv-grouped"], ["full", "diagonal", "trace"]
    ),
)
def test_little_memory(name, output):
    """The smallest budget that is not refused: tiles, blocks of samples, and chunks of outputs."""
    problem = PROBLEMS[name]
    model, (x, _) = problem.model(), problem.split()
    with pytest.raises(MemoryBudgetError) as refusal:
        kt.empirical_ntk(model, x, output=output, memory_budget=1)
    for _ in range(2):
        kernel = kt.empirical_ntk(model, x, output=output, memory_budget=refusal.value.required_bytes)
        assert distance(kernel, exact(name, output)) < EXACT


def test_how_outputs_of_a_batch_go_backward_is_tried_once(monkeypatch):
    """Oracle: a count. Of a model that vmap refuses a plan is made in every call; the trial would cost as much as the kernel."""
    model, x, tried = built("flattened"), padded(9), []
    why = passes._why_looped
    monkeypatch.setattr(passes, "_why_looped", lambda trial, eps: tried.append(trial) or why(trial, eps))
    for count, given in ((1, x), (1, x), (2, padded(5)), (2, padded(5)), (2, x)):
        kernel = kt.empirical_ntk(model, given)
        assert len(tried) == count
    assert distance(kernel, truth_of_batch(model, x)) < EXACT
