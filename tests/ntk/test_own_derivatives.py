"""A forward pass that differentiates by itself: PDE residuals, forces, steps of an inner training.

Oracle: the double loop over autograd in float64, which knows of no mode, no hook and no transform; and a closed form.
"""

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.errors import KernelError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
BY = ("auto", "jacobian", "products")


def net(outputs=1):
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def residual(m, x):
    z = x.clone().requires_grad_(True)
    return grad(m(z).sum(), z, create_graph=True)[0][:, 1]


def force(m, x):
    x.requires_grad_(True)
    return -grad(m.net(x).sum(), x, create_graph=True)[0]


def laplacian(m, x):
    z = x.detach().requires_grad_(True)
    first = grad(m(z).sum(), z, create_graph=True)[0]
    return sum(grad(first[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(4))


def by_intermediate(m, x):
    h = m[0](x).tanh()
    return h * grad(m[2](h).sum(), h, create_graph=True)[0]


def constant_gradient(m, x):
    """No create_graph: the gradient is a number to autograd, and forward mode looks through that."""
    z = x.clone().requires_grad_(True)
    u = m(z)
    return u * (1 + grad(u.sum(), z, retain_graph=True)[0].sum(1, keepdim=True))


def inner_step(m, x):
    names = dict(m.named_parameters())
    steps = grad((x.new_ones(1, 4) @ m[0].weight.T).square().sum() + m[2].bias.sum(), [m[0].weight, m[2].bias])
    moved = dict(zip(("0.weight", "2.bias"), steps, strict=True))
    return torch.func.functional_call(m, {k: p - 0.1 * moved[k] if k in moved else p for k, p in names.items()}, (x,))


FORWARDS = {
    "residual": residual,
    "laplacian": laplacian,
    "by-an-intermediate": by_intermediate,
    "a-constant-gradient": constant_gradient,
    "an-inner-step": inner_step,
    "checkpointed": lambda m, x: residual(lambda z: checkpoint(m, z, use_reentrant=False), x),
    "torch.func": lambda m, x: torch.func.vmap(torch.func.grad(lambda t: m(t[None]).sum()))(x),
    "functional": lambda m, x: torch.autograd.functional.jacobian(lambda z: m(z).sum(0), x, create_graph=True)[0],
}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_kernel_is_that_of_what_the_forward_computes(name):
    model, forward = net(), FORWARDS[name]
    rows = jacobian(model, X.clone(), forward)
    truth = contract(rows, rows, "full")
    for method in BY:
        assert distance(kt.empirical_ntk(model, X, method=method, forward=forward), truth) < EXACT
    operator = kt.NTKOperator(model, X, forward=forward)
    matrix = truth.transpose(0, 2, 1, 3).reshape(operator.shape)
    for _ in range(2):  # by passes, then by what would be factors
        assert distance(operator.matmat(torch.eye(len(matrix), dtype=torch.float64)), matrix) < EXACT
    half = contract({k: v[:3] for k, v in rows.items()}, {k: v[3:] for k, v in rows.items()}, "full")
    assert distance(kt.empirical_ntk(model, X[:3], X[3:], forward=forward), half) < EXACT


def test_a_module_whose_output_is_a_force():
    model = With(force, net=net()).double()
    rows = jacobian(model, X.clone())
    for method in BY:
        assert distance(kt.empirical_ntk(model, X, method=method), contract(rows, rows, "full")) < EXACT
    assert not X.requires_grad
    anchor = kt.linearize(model)
    assert torch.allclose(anchor(X, {}), force(model, X.clone()).detach(), rtol=0, atol=1e-12)


def test_closed_form_of_a_residual():
    """u = a·x³/3 has u' = a x², so that Θ[n, m] = x_n² x_m²."""
    model = With(lambda m, x: m.a(x**3 / 3), a=nn.Linear(1, 1, bias=False)).double()
    x = torch.linspace(-1, 2, 5, dtype=torch.float64)[:, None]

    def slope(m, x):
        z = x.clone().requires_grad_(True)
        return grad(m(z).sum(), z, create_graph=True)[0]

    for method in BY:
        assert torch.allclose(kt.empirical_ntk(model, x, forward=slope, method=method)[..., 0, 0], x**2 @ (x**2).T)


def test_what_cannot_be_structured_is_said():
    model = net()
    assert "differentiates by itself" in str(kt.ntk_plan(model, X, forward=residual))
    with pytest.raises(KernelError, match="differentiates by itself"):
        kt.empirical_ntk(model, X, forward=residual, method="structured")


def asks_the_mode(m, x):
    h = m[0](x)
    return m[2](h.tanh() if torch.is_grad_enabled() else h)


def asks_the_tensor(m, x):
    """No transform of torch can follow this one: inside them nothing says that it requires grad."""
    h = m[0](x)
    return m[2](h.tanh() if h.requires_grad else h)


@pytest.mark.parametrize("forward", [asks_the_mode, asks_the_tensor])
def test_a_forward_that_asks_whether_gradients_are_on(forward):
    """Validation, capture and derivatives run one program; oracle as above, where gradients are on."""
    model = net(3)
    rows = jacobian(model, X, forward)
    for method in BY:
        kernel = kt.empirical_ntk(model, X, method=method, forward=forward)
        assert distance(kernel, contract(rows, rows, "full")) < EXACT
