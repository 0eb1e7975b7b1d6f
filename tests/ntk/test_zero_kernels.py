"""Kernels that are zero: what is left of them is rounding, and no defect.

Oracle: mathematics. Softmax does not see a shift of all keys; a softmax sums to one and a layer norm to zero; an instance
norm takes a bias away. Bound: a derivative that cancels is at most some dozens of units in the last place of the terms,
which are of order one here, so the kernel is below (64 eps)² times the parameters of one sample's row.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import AuditError
from kerneltrack.ntk.methods import Execution
from kerneltrack.ntk.network.independence import _lost
from tests.ntk.models import With
from tests.tiers import diagonals


def attention():
    def forward(m, x):
        weights = (m.q(x) @ m.k(x).transpose(-1, -2) / 8**0.5).softmax(-1)
        return m.o(torch.tanh((weights @ m.v(x)).mean(1)))

    return With(forward, **{name: nn.Linear(8, 8) for name in "qkvo"})


def classes(*last):
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), *last)


def convolution():
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4), nn.Tanh(), nn.Flatten(), nn.Linear(32, 2))


def frozen_but_the_bias():
    model = convolution().requires_grad_(False)
    model[0].bias.requires_grad_(True)
    return model


ZERO = {
    "key-bias": (attention, (5, 8), {"params": ["k.bias"]}),
    "sum-of-softmax": (lambda: classes(nn.Softmax(-1)), (4,), {"output": "sum"}),
    "sum-of-norm": (lambda: classes(nn.LayerNorm(5, elementwise_affine=False)), (4,), {"output": "sum"}),
    "sum-in-forward": (lambda: classes(nn.Softmax(-1)), (4,), {"forward": lambda m, x: m(x).sum(1)}),
    "callable": (classes, (4,), {"output": lambda f: f.log_softmax(-1).exp().sum()[None]}),
    "bias-before-norm": (convolution, (2, 10), {"params": ["0.bias"]}),
    "frozen-but-the-bias": (frozen_but_the_bias, (2, 10), {}),
}


@pytest.mark.parametrize(("name", "dtype"), diagonals(3, ZERO, [torch.float32, torch.float64, torch.bfloat16]), ids=str)
def test_zero_is_zero(name, dtype):
    build, shape, options = ZERO[name]
    model, x = build().to(dtype), torch.randn(6, *shape).to(dtype)
    bound = sum(p.numel() for p in model.parameters()) * (64 * torch.finfo(dtype).eps) ** 2
    for method in ("auto", "jacobian", "products"):
        assert kt.empirical_ntk(model, x, method=method, **options).abs().max() <= bound
    operator = kt.NTKOperator(model, x, **options)
    v = torch.ones(operator.shape[0], dtype=dtype)
    for _ in range(3):
        assert operator.matvec(v).abs().max() <= bound * len(v)


@pytest.mark.audit
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_a_wrong_kernel_is_still_found(monkeypatch, dtype, factor):
    """The floor is for kernels that are rounding: a plan that is off by a third is refused in every precision."""
    run = Execution.add_to

    def wrong(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(factor)

    monkeypatch.setattr(Execution, "add_to", wrong)
    with pytest.raises(AuditError, match="disagrees"):
        kt.empirical_ntk(classes().to(dtype), torch.randn(6, 4).to(dtype))


@pytest.mark.audit
def test_a_zero_kernel_does_not_stand_for_the_plan(monkeypatch):
    """A plan that was audited on a zero kernel is audited again: here it is right at first, then off by two."""
    run = Execution.add_to
    model, x = classes(), torch.randn(6, 4)
    head = model[2].weight.detach().clone()
    model[2].weight.data.zero_()
    assert not kt.empirical_ntk(model, x, params=["0.weight"]).any()

    def wrong(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(2)

    monkeypatch.setattr(Execution, "add_to", wrong)
    model[2].weight.data.copy_(head)
    with pytest.raises(AuditError, match="disagrees"):
        kt.empirical_ntk(model, x, params=["0.weight"])


@pytest.mark.parametrize(
    ("sizes", "unsteady", "want"),
    [
        ([1.0, 2.0], [1e-16, 1e-16], [0.0, 0.0]),  # digits are right: nothing is allowed
        ([1.0, 3e-17], [1e-16, 2e-17], [0.0, 3e-17]),  # one that cancels beside one that does not
        ([1.0, 4e-15, 3e-15], [1e-16, 5e-15, 1e-15], [0.0, 5e-15, 5e-15]),  # of several that cancel, the largest
        ([4e-17, 3e-17], [5e-17, 1e-17], [1e-15, 1e-15]),  # where all cancel, a unit of what they are derivatives of
        ([1e-12, 1e-12], [1e-12, 1e-12], [0.0, 0.0]),  # unsteady and larger than rounding: that has another reason
        ([0.0, 0.0], [0.0, 0.0], [1e-15, 1e-15]),  # zero exactly, by luck of the order of its sum
    ],
)
def test_what_a_derivative_without_digits_may_be_off_by(sizes, unsteady, want):
    """By hand: what rounding of one processor hides, another shows."""
    given = (torch.tensor(part, dtype=torch.float64) for part in (sizes, unsteady))
    assert _lost(*given, 1e-15).tolist() == want
