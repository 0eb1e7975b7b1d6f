"""Models that vmap refuses are captured in ordinary batches, and the sample axis is found.

Oracle: the double loop over plain autograd, one sample and one output at a time, in float64. Each model asks for values,
which is why vmap refuses it, and lays its samples out in its own way.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack.errors import AuditError, KernelError, UnsupportedModelError
from kerneltrack.ntk.capture.batch_axis import layout
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.problems import shake

#: Tokens and width of every model; the number of samples is the test's.
T, H = 4, 6


def padded(count: int, rows: tuple[int, ...] = (1,)) -> dict[str, Tensor]:
    """Token ids with a mask; some rows have a last token less."""
    ids = torch.randint(5, (count, T), generator=torch.Generator().manual_seed(count))
    mask = torch.ones(count, T, dtype=torch.long)
    mask[[row for row in rows if row < count], -1] = 0
    return {"ids": ids, "mask": mask}


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    return {
        "table": nn.Embedding(5, H),
        "up": nn.Linear(H, H),
        "norm": nn.LayerNorm(H),
        "head": nn.Linear(H, 2),
        **more,
    }


def attended(h: Tensor, mask: Tensor) -> Tensor:
    """Attention of (N, T, H) on itself; unmasked where nothing is masked, as transformers decide it."""
    allowed = None if bool((mask == 1).all()) else mask[:, None].bool()
    return F.scaled_dot_product_attention(h, h, h, allowed)


def pooled(h: Tensor, mask: Tensor) -> Tensor:
    return (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def plain(m, ids, mask):
    h = m.norm(m.up(m.table(ids)).tanh())
    return m.head(pooled(attended(h, mask), mask))


def flattened(m, ids, mask):
    """Tokens of all samples as rows of one matrix, as GPT-2's Conv1D has them."""
    h = attended(m.table(ids), mask)
    rows = torch.addmm(m.up.bias, h.reshape(-1, H), m.up.weight).tanh()
    return m.head(pooled(m.norm(rows).view(h.shape), mask))


def sequence_first(m, ids, mask):
    h = attended(m.table(ids), mask).transpose(0, 1).contiguous()
    h = m.norm(m.up(h).tanh()).transpose(0, 1)
    return m.head(pooled(h, mask))


def tokens_slowest(m, ids, mask):
    """Flattened with the tokens first: N·T rows, in which no sample's rows lie together."""
    h = attended(m.table(ids), mask).transpose(0, 1)
    rows = m.up(h.reshape(-1, H)).tanh()
    return m.head(pooled(m.norm(rows.view(h.shape).transpose(0, 1)), mask))


def features_first(m, ids, mask):
    """The weight acts from the left: samples on the last axis."""
    h = pooled(attended(m.table(ids), mask), mask)
    return m.head(m.norm((m.up.weight @ h.T).tanh().T))


def token_types(m, ids, mask):
    """Lookups that are the same for all samples, and that follow their number: positions, types, a class token."""
    types = torch.zeros(1, T, dtype=torch.long).expand(ids.shape)
    h = m.table(ids) + m.types(types) + m.position(torch.arange(T))[None]
    h = torch.cat([m.token.weight[None].expand(len(ids), -1, -1), h[:, 1:]], 1)
    h += m.token.weight.unsqueeze(0).repeat(len(ids), 1, 1)
    return m.head(pooled(attended(m.norm(m.up(h)), mask), mask))


def mixture(m, ids, mask):
    """Each token goes to one of two experts: how many rows an expert sees depends on the data."""
    h = attended(m.table(ids), mask)
    rows = h.reshape(-1, H)
    weight, chosen = m.up(rows)[:, :2].softmax(-1).max(-1)
    mixed = torch.zeros_like(rows)
    for number, expert in enumerate((m.one, m.two)):
        (own,) = torch.where(chosen == number)
        mixed.index_add_(0, own, expert(rows[own]).tanh() * weight[own, None])
    return m.head(pooled(m.norm(mixed.view(h.shape)), mask))


def tied(m, ids, mask):
    h = m.norm(attended(m.table(ids), mask))
    last = h[torch.arange(len(ids)), mask.sum(1) - 1]
    return F.linear(last, m.table.weight)[:, :2] + m.head(m.up(last))


def images(m, ids, mask):
    """Convolutions, and norms of channels."""
    x = m.table(ids).transpose(1, 2).unsqueeze(-1) * mask[:, None, :, None]
    if bool((mask == 0).any()):
        x = x.clone()
    h = m.slope(m.groups(m.batch(m.conv(x))))
    return m.head(m.norm(h.mean((2, 3))))


def products(m, ids, mask):
    """Matrices in all their spellings: one for each head, with an ellipsis, over two axes, of pairs."""
    h = attended(m.table(ids), mask)
    heads = torch.matmul(h.unsqueeze(1), m.heads.weight).tanh()
    heads = torch.einsum("n...i,oi->n...o", heads, m.own.weight)
    h = h + torch.tensordot(heads, m.heads.weight, ([1, 3], [0, 2])).tanh()
    experts = h.reshape(1, -1, H).expand(2, -1, -1)
    h = torch.baddbmm(m.shift.weight[:, None, :3], experts, m.heads.weight).sum(0).view(len(ids), T, 3)
    return m.head(m.norm(m.pairs(pooled(h, mask), h[:, 0].tanh())))


class Twice(torch.autograd.Function):
    """2x, without a rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def own_function(m, ids, mask):
    return m.head(m.norm(Twice.apply(m.up(pooled(m.table(ids), mask)))))


def counted(m, ids, mask):
    """One call for each sample: two batches have no pass in common."""
    rows = [m.up(m.table(row)).tanh()[kept.bool()].mean(0) for row, kept in zip(ids, mask, strict=True)]
    return m.head(m.norm(torch.stack(rows)))


def written(m, ids, mask):
    """What layers return is changed in place: by a function, by a mask, through a view, and added to."""
    h = m.up(attended(m.table(ids), mask)).neg_()
    h[mask == 0] = 0.5
    y = m.norm(h)
    y.view(-1, H)[::2] *= 1.5
    y += m.table(ids)
    return m.head(pooled(y, mask))


#: name: formula, layers of its own, parameters that are left to their Jacobian (None: all).
MODELS = {
    "plain": (plain, {}, set()),
    "flattened": (flattened, {}, set()),
    "sequence first": (sequence_first, {}, set()),
    "tokens slowest": (tokens_slowest, {}, {"up.weight", "up.bias"}),
    "features first": (features_first, {}, set()),
    "token types": (
        token_types,
        {
            "types": lambda: nn.Embedding(2, H),
            "position": lambda: nn.Embedding(T, H),
            "token": lambda: nn.Embedding(1, H),
        },
        set(),
    ),
    "mixture": (
        mixture,
        {"one": lambda: nn.Linear(H, H), "two": lambda: nn.Linear(H, H)},
        {"one.weight", "one.bias", "two.weight", "two.bias"},
    ),
    "tied": (tied, {}, set()),
    "products": (
        products,
        {
            "heads": lambda: nn.Bilinear(H, 3, 2, bias=False),
            "own": lambda: nn.Linear(3, 3, bias=False),
            "shift": lambda: nn.Embedding(2, H),
            "pairs": lambda: nn.Bilinear(3, 3, H),
        },
        set(),
    ),
    "images": (
        images,
        {
            "conv": lambda: nn.Conv2d(H, H, (3, 1), padding=(1, 0)),
            "batch": lambda: nn.BatchNorm2d(H),
            "groups": lambda: nn.GroupNorm(2, H),
            "slope": lambda: nn.PReLU(H),
        },
        set(),
    ),
    "own function": (own_function, {}, set()),
    "written": (written, {}, set()),
    "one call a sample": (counted, {}, None),
}
models = pytest.mark.parametrize("name", MODELS)


def built(name: str) -> nn.Module:
    rule, more, _ = MODELS[name]
    torch.manual_seed(3)
    model = With(rule, **layers(**{key: make() for key, make in more.items()})).double().eval()
    shake(model)
    return model


def alone(plan: kt.ntk.Plan) -> set[str]:
    """The parameters that a plan leaves to their Jacobian."""
    assert plan.method == "structured"
    return {parameter for use in plan.uses if use.rule == "jacobian" for parameter in use.parameters}


def truth(model: nn.Module, x: dict[str, Tensor], output: str = "full"):
    rows = jacobian(model, x)
    return contract(rows, rows, output)


@pytest.mark.parametrize(
    ("few", "many", "axis"),
    [
        ((3, 4, 6), (5, 4, 6), 0),
        ((3, 3, 6), (3, 5, 6), 1),  # as many tokens as samples
        ((12, 6), (20, 6), 0),
        ((4, 6), (4, 6), None),
        ((12, 3), (20, 5), False),  # two axes follow the samples
        ((11, 6), (20, 6), False),  # rows that the data decide on
        ((4, 6), (6, 6), False),
        ((9, 6), (25, 6), False),  # N·N
        ((3, 6), (5, 6, 1), False),
    ],
)
def test_an_axis_is_the_samples_only_where_it_follows_their_number(few, many, axis):
    """Oracle: sizes k·N by hand; False where no one axis has them."""
    found = layout(torch.Size(few), torch.Size(many), (3, 5))
    if axis is False:
        assert found is None
        return
    assert found.axis == axis
    assert found.shape(3) == few
    if axis is not None:
        values = torch.arange(torch.Size(many).numel()).view(many)
        rows = found.apart(values, 5)
        assert rows.shape[0] == 5
        assert torch.equal(found.together(rows), values)
        assert torch.equal(
            rows[2].flatten(), values.movedim(axis, 0).unflatten(0, (5, -1))[2].movedim(0, axis).flatten()
        )


@models
@pytest.mark.parametrize("count", [T, H, 9, 1], ids=["N is T", "N is the width", "nine", "one"])
def test_the_kernel_of_a_batch(name, count):
    model, x = built(name), padded(count)
    assert distance(kt.empirical_ntk(model, x), truth(model, x)) < EXACT


@pytest.mark.parametrize("outputs", [2, 5])
def test_a_batch_is_written_to_from_some_call_on(outputs, monkeypatch):
    """Oracle: the loop over autograd, and a count: copies from when the model writes, and then nothing is tried twice."""
    table, up, head = nn.Embedding(5, H), nn.Linear(H, H), nn.Linear(H, outputs)
    model = With(lambda m, ids, mask: m.head(pooled(m.change(m.up(attended(m.table(ids), mask))), mask)))
    model.table, model.up, model.head = table, up, head
    model.double().eval()
    captures, runs = importlib.import_module("kerneltrack.ntk.methods.batched"), []
    whole = captures._captured
    monkeypatch.setattr(captures, "_captured", lambda *given: runs.append(given[3].writes) or whole(*given))
    x, found = padded(9), []
    for change in (torch.tanh, torch.tanh, torch.tanh_, torch.tanh_, torch.tanh):
        model.change = change
        runs.clear()
        assert distance(kt.empirical_ntk(model, x), truth(model, x)) < EXACT
        found.append(list(runs))
    assert not any(map(any, found[:2]))
    assert found[1] == [False]
    assert found[3] == found[4] == [True]


@models
def test_only_what_does_not_pass_is_left_to_its_jacobian(name):
    left = MODELS[name][2]
    model, x = built(name), padded(9)
    plan = kt.ntk_plan(model, x)
    if left is None:
        assert plan.method == "jacobian"
        return
    assert alone(plan) == left
    assert any("ordinary batches" in note for note in plan.notes)


@pytest.mark.parametrize("rows", [(), (4,), tuple(range(9))], ids=["none", "one", "all"])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal", "sum"])
def test_padded_rows_among_others(rows, output):
    model, x = built("flattened"), padded(9, rows)
    assert distance(kt.empirical_ntk(model, x, output=output), truth(model, x, output)) < EXACT


@pytest.mark.parametrize("name", ["plain", "token types", "mixture", "tied"])
def test_batches_of_few_samples(name, machine):
    """A budget for a few samples: chunks of other sizes, some padded and some not, and a rectangle with another probe."""
    machine(small_bytes=0)
    model, x, other = built(name), padded(9, (1, 5)), padded(5, (0, 1))
    options = {"memory_budget": 2**17}
    assert distance(kt.empirical_ntk(model, x, **options), truth(model, x)) < EXACT
    expected = contract(jacobian(model, x), jacobian(model, other), "full")
    assert distance(kt.empirical_ntk(model, x, other, **options), expected) < EXACT


@pytest.mark.parametrize("name", ["flattened", "tied", "mixture"])
def test_products_of_a_batch(name):
    """By passes and, from the second on, by factors where there are any."""
    model, x = built(name), padded(9)
    operator, v = kt.NTKOperator(model, x), torch.randn(18, dtype=torch.float64)
    expected = truth(model, x).transpose(0, 2, 1, 3).reshape(18, 18) @ v.numpy()
    for _ in range(3):
        assert distance(operator.matvec(v), expected) < EXACT


def test_samples_that_couple_are_refused():
    def coupled(m, ids, mask):
        h = pooled(attended(m.table(ids), mask), mask)
        return m.head(h - h.mean(0))

    with pytest.raises(UnsupportedModelError, match="couples samples"):
        kt.empirical_ntk(With(coupled, **layers()).double(), padded(9))


def test_a_pass_of_another_kind_is_compared_again():
    """Only the padded row, which no few samples show, has its tokens turned: the layout that was found is not believed."""

    def turned(m, ids, mask):
        h, padding = m.table(ids), bool((mask == 0).any())
        h = h.transpose(0, 1) if padding else h.transpose(0, 0)
        rows = m.up(h.reshape(-1, H)).tanh().view(h.shape)
        return m.head(pooled(m.norm(rows.transpose(0, 1) if padding else rows), mask))

    model = With(turned, **layers()).double()
    model.table.weight.data.normal_()
    for rows, left in (((), set()), ((1,), {"up.weight", "up.bias"}), ((), {"up.weight", "up.bias"})):
        x = padded(T * T, rows)
        assert distance(kt.empirical_ntk(model, x), truth(model, x)) < EXACT
        assert alone(kt.ntk_plan(model, x)) == left  # of just these parameters, from then on


def ordered(m, ids, mask):
    """Samples go through the layers sorted by length, and come back in their order."""
    order = mask.sum(1).argsort(stable=True)
    mask = mask[order]
    h = m.norm(m.up(m.table(ids[order])).tanh())
    return m.head(pooled(attended(h, mask), mask)[order.argsort()])


def test_an_order_that_depends_on_the_samples(monkeypatch):
    """Few samples in order show nothing, nor do calls and shapes: what is picked by is part of a program. Without audits."""
    monkeypatch.setattr(importlib.import_module("kerneltrack.ntk.methods.audit"), "_compare", lambda *given: True)
    model = With(ordered, **layers()).double()
    model.table.weight.data.normal_()
    for rows in ((0,), (2,), (0, 1), (2, 5)):
        x = padded(9, rows)
        assert distance(kt.empirical_ntk(model, x), truth(model, x)) < EXACT


def test_without_the_comparison_the_kernel_would_be_wrong(monkeypatch, request):
    """Negative control: rows in another order than the samples' pass every look at sizes."""
    for name in ("batched", "execution"):
        monkeypatch.setattr(importlib.import_module(f"kerneltrack.ntk.methods.{name}"), "differing", lambda *given: [])
    model, x = built("tokens slowest"), padded(9)
    if not request.config.getoption("--without-audit"):
        with pytest.raises(AuditError, match="disagrees with plain autodiff"):
            kt.empirical_ntk(model, x)
    monkeypatch.setattr(importlib.import_module("kerneltrack.ntk.methods.audit"), "_compare", lambda *given: True)
    assert distance(kt.empirical_ntk(model, x), truth(model, x)) > 1e-3


def test_structured_is_no_longer_refused_and_what_has_no_axis_still_is():
    x = padded(9)
    model = built("flattened")
    assert distance(kt.empirical_ntk(model, x, method="structured"), truth(model, x)) < EXACT
    with pytest.raises(KernelError, match=r"structured method does not apply"):
        kt.empirical_ntk(built("mixture"), x, method="structured")


@pytest.mark.audit
def test_a_batch_is_looked_at_once():
    """Oracle: a count of the model's calls. What was found is kept: a second call finds no axis again."""
    model, x, calls = built("flattened"), padded(9), []
    model.up.register_forward_pre_hook(lambda *given: calls.append(1))
    model.norm.register_forward_pre_hook(lambda *given: calls.append(1))
    kt.empirical_ntk(model, x)
    first, calls[:] = len(calls), []
    kt.empirical_ntk(model, x)
    kt.empirical_ntk(model, x)
    calls[:] = []
    kt.empirical_ntk(model, x)  # call 4 is audited, 3 was not
    fourth, calls[:] = len(calls), []
    kt.empirical_ntk(model, x)
    assert len(calls) < fourth < first
