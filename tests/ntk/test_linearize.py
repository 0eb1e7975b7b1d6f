"""The linearised network is the network at its anchor, and it can be trained.

Oracles: f_0 + J_0 (θ − θ_0) with the double loop's J_0 (oracles.py); the discrete form of kernel gradient flow,
f_{t+1} = f_t − η Θ_0 ∇L(f_t), which gradient descent on a function linear in θ obeys step by step; the same polynomial
written with torch.func; central differences (gradcheck).
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.errors import KernelError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def build(*, normed=True):
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))
    model = With(
        lambda m, x: m.factor * m.head(m.body(x)) * m.table["scale"][0] + m.shift + float(m.array[0]),
        body=body,
        head=parametrizations.weight_norm(nn.Linear(8, 3)) if normed else nn.Linear(8, 3),
    )
    model.factor, model.table, model.shift, model.array = 1.0, {"scale": [1.5]}, torch.ones(3), np.ones(1)
    model.body[0].bias.requires_grad_(False)
    model.body[1].running_var.uniform_(0.5, 2)
    return model.double().eval()


def theta_of(model, by=0.0):
    return {
        name: (p.detach() + by * torch.randn_like(p)).requires_grad_()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def polynomial(model):
    """f_0 + J_0 (θ − θ_0) by torch.func alone, for a model that stays as it is, and that forward mode differentiates."""
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    def taylor(x, theta):
        def network(values):
            return functional_call(model, values, (x,))

        value, slope = jvp(network, (start,), ({name: theta[name] - start[name] for name in start},))
        return value + slope

    return taylor


# ------------------------------------------------------------ it can be trained

LOSSES = {
    "mean-squares": lambda f: F.mse_loss(f, torch.linspace(-1, 1, 18, dtype=f.dtype).view(6, 3)),
    "cross-entropy": lambda f: F.cross_entropy(f, torch.arange(6) % 3),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_descent_is_kernel_gradient_flow(loss):
    """Step by step; Θ_0 by the double loop, ∇L by autograd on the outputs alone."""
    model, rate = build(), 0.05
    linear, theta = kt.linearize(model), theta_of(model)
    rows = jacobian(model, X)
    kernel = torch.from_numpy(contract(rows, rows, "full"))
    flow = model(X).detach()
    optimizer = torch.optim.SGD(theta.values(), lr=rate)
    for _ in range(20):
        outputs = linear(X, theta)
        assert distance(outputs.detach(), flow.numpy()) < EXACT
        optimizer.zero_grad()
        LOSSES[loss](outputs).backward()
        optimizer.step()
        leaf = flow.clone().requires_grad_()
        LOSSES[loss](leaf).backward()
        flow = flow - rate * torch.einsum("nmop,mp->no", kernel, leaf.grad)
    assert distance(linear(X, theta).detach(), flow.numpy()) < EXACT
    assert LOSSES[loss](flow) < LOSSES[loss](model(X))


def test_gradients_by_parameters_and_inputs():
    model, u = build(normed=False), torch.randn(6, 3, dtype=torch.float64)
    linear, theta, x = kt.linearize(model), theta_of(model, 0.3), X.clone().requires_grad_()
    linear(x, theta).backward(u)
    rows = jacobian(model, X)
    for name, value in theta.items():
        assert distance(value.grad.ravel(), np.einsum("no,nop->p", u.numpy(), rows[name])) < EXACT
    expected = grad(lambda x: (polynomial(model)(x, theta) * u).sum())(X)
    assert distance(x.grad, expected.detach().numpy()) < EXACT


def test_central_differences():
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double(), X[:2, :2]
    linear, theta = kt.linearize(model), theta_of(model, 0.3)

    def of_theta(*values):
        return linear(x, dict(zip(theta, values, strict=True))) ** 2

    assert torch.autograd.gradcheck(of_theta, tuple(theta.values()))
    assert torch.autograd.gradgradcheck(of_theta, tuple(theta.values()))
    assert torch.autograd.gradcheck(lambda x: linear(x, theta), (x.clone().requires_grad_(),))


def per_sample(linear):
    return lambda theta: vmap(grad(lambda t, x: (linear(x[None], t) ** 2).sum()), (None, 0))(theta, X)


FUNCTIONS = {
    "grad": lambda linear: grad(lambda t: (linear(X, t) ** 2).sum()),
    "vmap": lambda linear: lambda theta: {"": vmap(lambda x: linear(x[None], theta)[0])(X)},
    "vmap-of-grad": per_sample,
    "jacrev": lambda linear: jacrev(lambda t: linear(X, t)),
    "ensemble": lambda linear: (
        lambda theta: {"": vmap(lambda t: linear(X, t))({k: torch.stack([v, 2 * v]) for k, v in theta.items()})}
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_func(name):
    """Oracle: the same transforms over the polynomial that torch.func itself makes."""
    model = build(normed=False)
    theta = {key: value.detach() for key, value in theta_of(model, 0.3).items()}
    found = FUNCTIONS[name](kt.linearize(model))(theta)
    expected = FUNCTIONS[name](polynomial(model))(theta)
    assert found.keys() == expected.keys()
    assert all(distance(found[key], expected[key].numpy()) < EXACT for key in expected)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.c(checkpoint(lambda z: torch.tanh(self.b(z)), self.a(x), use_reentrant=False))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x.unflatten(1, (2, 2)))[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))[:, :3]


MODELS = {
    "checkpoint": (Checkpointed, X),
    "lstm": (Recurrent, X),
    "tied": (Tied, X),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 3)), torch.arange(24).view(6, 4) % 9),
    "pair": (lambda: nn.Bilinear(4, 4, 3), (X, X.flip(0))),
    "nothing-of-x": (lambda: With(lambda m, x: m.a.weight[:, :3].expand(len(x), 3) + 0 * x[:, :3], a=nn.Linear(3, 1)), X),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_other_models(name):
    """The gradient is taken after the live model has moved: nothing of it is read any more."""
    kind, x = MODELS[name]
    model = kind().double()
    rows, f_0 = jacobian(model, x), model(*(x if isinstance(x, tuple) else (x,))).detach()
    linear, theta = kt.linearize(model), theta_of(model, 0.3)
    step = {key: (theta[key] - p).detach().ravel().numpy() for key, p in model.named_parameters()}
    value, u = linear(x, theta), torch.randn(6, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    expected = f_0.numpy() + sum(np.einsum("nop,p->no", block, step[key]) for key, block in rows.items())
    assert distance(value.detach(), expected) < EXACT
    for part, key in zip(torch.autograd.grad(value, list(theta.values()), u), theta, strict=True):
        assert distance(part.ravel(), np.einsum("no,nop->p", u.numpy(), rows[key])) < EXACT


# ------------------------------------------------------------ the anchor stays


def trained(model):
    model.train()
    model(3 * X + 1)
    model.eval()


def thawed(model):
    model.body[0].bias.requires_grad_(True)
    model.body[0].bias.data.add_(1)


def replaced(model):
    model.head = nn.Linear(8, 3).double()


def hooked(model):
    model.head.register_forward_hook(lambda module, given, outputs: 2 * outputs)


CHANGES = {
    "training": trained,
    "mode": lambda m: m.train(),
    "data": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
    "buffer": lambda m: m.body[1].running_var.data.mul_(4),
    "frozen-data": lambda m: m.body[0].bias.data.add_(1),
    "thawed": thawed,
    "all-frozen": lambda m: m.requires_grad_(False),
    "state-dict": lambda m: m.load_state_dict({k: torch.rand_like(v.double()) for k, v in m.state_dict().items()}),
    "replaced": replaced,
    "removed": lambda m: m.body.pop(2),
    "pruned": lambda m: prune.l1_unstructured(m.body[0], "weight", amount=0.5),
    "unparametrised": lambda m: nn.utils.parametrize.remove_parametrizations(m.head, "weight"),
    "other-method": lambda m: setattr(m.body[2], "forward", torch.relu),
    "hook": hooked,
    "dtype": lambda m: m.float(),
    "number": lambda m: setattr(m, "factor", 2.0),
    "list": lambda m: m.table["scale"].__setitem__(0, 3.0),
    "tensor-attribute": lambda m: m.shift.mul_(2),
    "array": lambda m: m.array.__setitem__(0, 2.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_that_happens_to_the_model_moves_the_anchor(change):
    """Oracle: bytes, of a second linearisation that nothing happens to. Nor does a call leave a trace in the module."""
    model = build()
    untouched, linear, theta = kt.linearize(copy.deepcopy(model)), kt.linearize(model), theta_of(model, 0.3)
    CHANGES[change](model)
    state, modules, modes = (
        copy.deepcopy(model.state_dict()),
        list(model.modules()),
        [m.training for m in model.modules()],
    )
    attributes = [dict(vars(module), type=type(module)) for module in modules]
    assert torch.equal(linear(X, theta), untouched(X, theta))
    assert torch.equal(linear(X, {}), untouched(X, {}))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.state_dict().keys() == state.keys()
    assert list(model.modules()) == modules
    assert [m.training for m in model.modules()] == modes
    for module, kept in zip(modules, attributes, strict=True):
        after = dict(vars(module), type=type(module))
        assert after.keys() == kept.keys()
        assert all(after[name] is value for name, value in kept.items())


def test_none_is_the_model_now_and_carries_no_gradient():
    model = build()
    linear, theta = kt.linearize(model), theta_of(model, 0.3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(theta.get(name, p))
    assert torch.equal(linear(X), linear(X, theta).detach())
    assert not linear(X).requires_grad


def test_an_anchor_of_its_own():
    """Oracle: the double loop at that θ_0."""
    model = build()
    start = {name: value.detach() for name, value in theta_of(model, 0.5).items()}
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            p.copy_(start.get(name, p))
    linear = kt.linearize(model, start)
    for value in start.values():
        value.zero_()  # it was copied
    rows, f_0, step = (
        jacobian(moved, X),
        moved(X).detach().numpy(),
        {k: p.detach() for k, p in model.named_parameters()},
    )
    now = dict(moved.named_parameters())
    change = {name: (step[name] - now[name]).detach().ravel().numpy() for name in rows}
    expected = f_0 + sum(np.einsum("nop,p->no", block, change[name]) for name, block in rows.items())
    assert distance(linear(X), expected) < EXACT


# ------------------------------------------------------------ what is refused

WRONG = {
    "unknown": ({"nope": torch.ones(3)}, "'nope', which is no trainable parameter"),
    "buffer": ({"body.1.running_mean": torch.zeros(8)}, "buffers and frozen parameters belong to the anchor"),
    "frozen": ({"body.0.bias": torch.zeros(8)}, "'body.0.bias', which is frozen"),
    "shape": ({"body.0.weight": torch.zeros(1, 4)}, r"expected a tensor \(8, 4\) on cpu, got \(1, 4\)"),
    "device": ({"body.0.weight": torch.zeros(8, 4, device="meta")}, "on meta"),
    "number": ({"body.0.weight": 1.0}, "got float"),
    "no-mapping": ([torch.zeros(8, 4)], "no mapping"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_refusals(wrong):
    given, words = WRONG[wrong]
    linear = kt.linearize(build())
    with pytest.raises(KernelError, match=words):
        linear(X, given)
    with pytest.raises(KernelError, match=words):
        kt.linearize(build(), given)


def test_current_parameters_that_are_gone():
    model = build()
    linear = kt.linearize(model)
    prune.l1_unstructured(model.body[0], "weight", amount=0.5)
    with pytest.raises(KernelError, match=r"gone: body\.0\.weight"):
        linear(X)


def test_derivatives_that_it_has_not():
    model = build()
    linear, theta, x = kt.linearize(model), theta_of(model), X.clone().requires_grad_()
    first = torch.autograd.grad(linear(x, theta).sum(), x, create_graph=True)[0]
    with pytest.raises(KernelError, match="no further derivative"):
        first.sum().backward()
    plain = {name: value.detach() for name, value in theta.items()}
    with pytest.raises(KernelError, match="no forward-mode derivative"):
        jvp(lambda t: linear(X, t), (plain,), (plain,))
