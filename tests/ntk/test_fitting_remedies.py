"""A refusal names the remedy that fits the model, and the remedy as it is written works.

Oracle: the double loop over plain autograd in float64, of the network written without what was refused.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from tests.ntk.models import Bare, With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

N = 5


@pytest.fixture
def x():
    return torch.randn(N, 4, dtype=torch.float64)


def refusal(match, model, x, **options):
    with pytest.raises(UnsupportedModelError, match=match) as raised:
        kt.empirical_ntk(model, x, **options)
    return raised.value.remedy


def forward_of(remedy):
    """The forward= that a remedy names, as Python."""
    return eval(re.search(r"forward=(lambda model, x: .*?)(?:;|\.$|\. )", remedy)[1])


def expect(kernel, plain, x):
    rows = jacobian(plain, x)
    assert distance(kernel, contract(rows, rows, "full")) < EXACT


# ------------------------------------------------------------ outputs


class ModelOutput(OrderedDict):
    """As transformers' ModelOutput: an OrderedDict of what is not None, whose keys are attributes too."""

    def __post_init__(self):
        for name, value in list(vars(self).items()):
            if value is not None:
                self[name] = value


@dataclass
class Classified(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple | None = None


@dataclass
class Encoded(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None


@dataclass
class Plain:
    value: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("kind", ["ModelOutput", "dataclass"])
def test_the_logits_of_an_output_object(x, kind, method):
    """Also for dict inputs, by the operator and linearised; nothing else of the object matters."""

    def rule(m, ids):
        logits, hidden = m.body(ids), (ids, ids)
        return Classified(logits=logits, hidden_states=hidden) if kind == "ModelOutput" else Plain(ids, logits)

    model = With(rule, body=nn.Linear(4, 3)).double()
    expect(kt.empirical_ntk(model, {"ids": x}, method=method), model.body, x)
    assert torch.equal(kt.linearize(model)({"ids": x}), model.body(x))


@pytest.mark.parametrize(
    ("rule", "pick"),
    [
        (lambda m, x: (x, m.body(x)), "[0]"),
        (lambda m, x: {"scores": m.body(x)}, "['scores']"),
        (lambda m, x: {"logits": m.body(x)}, "['logits']"),
        (lambda m, x: Encoded(m.body(x[:, None]), x), "['last_hidden_state'].mean(1)"),
        (lambda m, x: torch.return_types.max((m.body(x), x.argmax(1))), "[0]"),
    ],
    ids=["tuple", "dict", "dict-of-logits", "hidden-states", "structseq"],
)
@pytest.mark.parametrize("given", ["tensor", "dict", "tuple"])
def test_the_remedy_picks_a_tensor(x, rule, pick, given):
    """Written for the way in which the model is called; before, model(x)[...] for all. Other tensors are named."""
    inputs = {"tensor": x, "dict": {"x": x}, "tuple": (x,)}[given]
    remedy = refusal("does not return a tensor", With(rule, body=nn.Linear(4, 3)).double(), inputs)
    call = {"tensor": "model(x)", "dict": "model(**x)", "tuple": "model(*x)"}[given]
    assert f"lambda model, x: {call}{pick}" in remedy
    picked = forward_of(remedy)(With(rule, body=nn.Linear(4, 3)).double(), inputs)
    assert picked.shape[0] == N
    assert picked.dim() == 2


CONV = {
    "at the end": lambda m, x: F.adaptive_avg_pool2d(m.conv(x), 1).squeeze(),
    "in the middle": lambda m, x: m.head(torch.tanh(F.adaptive_avg_pool2d(m.conv(x), 1).squeeze())),
}


@pytest.mark.parametrize("given", ["tensor", "dict"])
@pytest.mark.parametrize("place", CONV)
def test_the_remedy_for_squeeze_works(place, given):
    """.flatten(1) of the outputs, which was said before, does not fit: they have one axis."""
    images = torch.randn(N, 2, 4, 4, dtype=torch.float64)
    model = With(CONV[place], conv=nn.Conv2d(2, 4, 2), head=nn.Linear(4, 3)).double()
    inputs = images if given == "tensor" else {"x": images}
    remedy = refusal("the output is not", model, inputs, params=lambda name: place != "at the end" or "conv" in name)
    assert ".squeeze(-1) or .flatten(1)" in remedy
    kernel = kt.empirical_ntk(
        model, inputs, forward=forward_of(remedy), params=lambda name: place != "at the end" or "conv" in name
    )

    def flat(m, x):
        pooled = F.adaptive_avg_pool2d(m.conv(x), 1).flatten(1)
        return pooled if place == "at the end" else m.head(torch.tanh(pooled))

    plain = With(flat, conv=model.conv, head=model.head)
    if place == "at the end":
        plain.head.requires_grad_(False)
    expect(kernel, plain, images)


def test_a_squeeze_that_fails_for_one_sample_is_named(x):
    model = With(
        lambda m, x: m.head(m.body(x[:, None]).squeeze()).softmax(1), body=nn.Linear(4, 4), head=nn.Linear(4, 3)
    )
    assert ".squeeze(-1)" in refusal("one sample", model.double(), x)


@pytest.mark.parametrize("given", ["samples first", "samples second"])
def test_a_model_that_reads_sequences_first(given):
    """Told of batch_first=False whichever way the samples lie, and turned on their way in it is exact."""
    x = torch.randn(N, 7, 4, dtype=torch.float64)
    model = With(lambda m, x: m.head(m.body(x)[0][-1]), body=nn.RNN(4, 3), head=nn.Linear(3, 2)).double()
    remedy = refusal("the output is not", model, x if given == "samples first" else x.transpose(0, 1))
    assert "batch_first=False" in remedy
    turned = With(lambda m, x: m.head(m.body(x.transpose(0, 1))[0][-1]), body=model.body, head=model.head)
    expect(kt.empirical_ntk(model, x, forward=forward_of(remedy)), turned, x)


@pytest.mark.parametrize("layer", [nn.LSTM(4, 4), nn.TransformerEncoderLayer(4, 2, 5, 0.0)], ids=["lstm", "encoder"])
def test_coupling_names_the_modules_that_read_sequences_first(layer):
    """Samples on axis 0 are read as the sequence, and the outputs have the right shape."""

    def rule(m, x):
        y = m.body(x)
        return (y[0] if isinstance(y, tuple) else y)[:, -1]

    model = With(rule, body=layer).double()
    remedy = refusal("couples", model, torch.randn(N, 3, 4, dtype=torch.float64))
    assert re.search(r"'body.*batch_first=False.*transpose\(0, 1\)", remedy)


def test_a_loss_is_no_output(x):
    assert "loss" in refusal("the output is not", With(lambda m, x: m.body(x).mean(), body=nn.Linear(4, 3)).double(), x)


# ------------------------------------------------------------ models


@pytest.mark.parametrize("door", [kt.empirical_ntk, kt.ntk_plan, kt.NTKOperator, lambda model, x: kt.linearize(model)])
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda net: lambda x: net(x), "forward=lambda"),
        (lambda net: net.forward, "Give the Linear itself"),
        (lambda net: functools.partial(net), "Give the Linear itself"),
        (lambda net: nn.Linear, r"Give an instance: Linear\(...\)"),
        (lambda net: dict(net.named_parameters()), "Give the module"),
    ],
    ids=["function", "method", "partial", "class", "parameters"],
)
def test_a_model_that_is_no_module(x, make, remedy, door):
    with pytest.raises(UnsupportedModelError, match=r"no torch\.nn\.Module") as raised:
        door(make(nn.Linear(4, 3).double()), x)
    assert re.search(remedy, raised.value.remedy)


def test_the_remedy_for_complex_parameters_works(x):
    weight = torch.randn(4, 3, dtype=torch.complex128)

    def rule(m, x):
        return (x.to(torch.complex128) @ (m.w if m.w.is_complex() else torch.view_as_complex(m.w))).abs()

    model = Bare(rule)
    model.w = nn.Parameter(weight)
    assert "torch.view_as_real(w)" in refusal("complex", model, x)
    model.w = nn.Parameter(torch.view_as_real(weight))
    real = Bare(lambda p, x: ((x @ p.a).square() + (x @ p.b).square()).sqrt(), a=(4, 3), b=(4, 3)).double()
    real.a.data, real.b.data = weight.real.clone(), weight.imag.clone()
    expect(kt.empirical_ntk(model, x), real, x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("door", [kt.empirical_ntk, kt.ntk_plan, kt.NTKOperator])
def test_reentrant_checkpointing(x, door):
    """torch's own RuntimeError before; without reentrance the kernel is exact."""

    def rule(reentrant):
        return lambda m, x: m.c(checkpoint(m.b, torch.tanh(m.a(x)), use_reentrant=reentrant))

    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    with pytest.raises(UnsupportedModelError, match="reentrant") as raised:
        door(With(rule(True), **layers).double(), x)
    assert "use_reentrant=False" in raised.value.remedy
    plain = With(lambda m, x: m.c(m.b(torch.tanh(m.a(x)))), **layers).double()
    expect(kt.empirical_ntk(With(rule(False), **layers).double(), x), plain, x)


def counting(kept):
    def hook(module, args, output):
        kept["n"] = kept.get("n", 0) + 1
        return output * kept["n"]

    return hook


def averaging(kept):
    def hook(module, args, output):
        kept["mean"] = 0.9 * kept.get("mean", 0) + output.detach().mean()
        return output - kept["mean"]

    return hook


@pytest.mark.parametrize("hook", [counting, averaging])
@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_hooks_that_keep_state_are_named(x, hook, method):
    """Told to call eval() before, which changes nothing."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[1].register_forward_hook(hook({}))
    assert "['1'] have hooks of their own" in refusal("have hooks", model, x, method=method)


# ------------------------------------------------------------ masks, and parts that are left out


class Encoder(nn.Module):
    """Tokens to a mean over them: "own" by each sample's own mask, "all" by that of all, "cut" to the longest sample."""

    def __init__(self, pooling):
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.pooling = pooling

    def forward(self, input_ids, **given):
        (mask,) = given.values()
        h = torch.tanh(self.mix(self.table(input_ids)))
        if self.pooling == "cut":
            return self.head(h[:, : int(mask.sum(1).max())].mean(1))
        count = mask.sum(1, keepdim=True) if self.pooling == "own" else mask.sum() / len(mask)
        return self.head((h * mask[..., None]).sum(1) / count)


def tokens(key):
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([6, 2, 3, 5, 4])[:, None]).double()
    return {"input_ids": torch.randint(9, (N, 6), generator=generator), key: mask}


@pytest.mark.parametrize("key", ["attention_mask", "padding_mask", "lengths"])
@pytest.mark.parametrize("pooling", ["all", "cut"])
def test_coupling_by_padding_is_named(pooling, key):
    remedy = refusal("couples samples", Encoder(pooling).double(), tokens(key))
    assert f"['{key}'] tell padding" in remedy
    assert "mask.sum(1, keepdim=True)" in remedy  # what "own" does, whose kernel is there
    rows = jacobian(model := Encoder("own").double(), tokens(key))
    assert distance(kt.empirical_ntk(model, tokens(key)), contract(rows, rows, "full")) < EXACT


def test_padding_is_not_named_where_there_is_none(x):
    batchwise = With(lambda m, x: m.layer(x) - m.layer(x).mean(0), layer=nn.Linear(4, 3)).double()
    assert "padding" not in refusal("couples samples", batchwise, x)


def test_the_plan_says_how_a_model_is_captured_that_asks_for_values():
    """An encoder that asks whether anything is masked, as transformers' do: in batches, and where each sample has a call of
    its own, sample by sample."""

    class Asks(Encoder):
        def forward(self, input_ids, attention_mask):
            mask = attention_mask if bool((attention_mask == 0).any()) else torch.ones_like(attention_mask)
            return super().forward(input_ids, mask=mask)

    class Loops(Asks):
        def forward(self, input_ids, attention_mask):
            pairs = zip(input_ids.split(1), attention_mask.split(1), strict=True)
            return torch.cat([super(Loops, self).forward(*pair) for pair in pairs])

    given = tokens("attention_mask")
    for model, how in (
        (Asks("own"), "captured in ordinary batches, whose uses were compared with plain autodiff"),
        (Loops("own"), "sample by sample, which is as exact"),
    ):
        (note,) = kt.ntk_plan(model.double(), given).notes
        assert how in note
        assert "attention mask" in note
        assert "please file an issue" not in note
        rows = jacobian(model, given)
        assert distance(kt.empirical_ntk(model, given), contract(rows, rows, "full")) < EXACT


def test_the_plan_names_the_parameters_that_forward_leaves_out(x):
    """Their part of the kernel is zero, which is right and seldom what was meant."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2), nn.Linear(2, 2)).double()
    plan = kt.ntk_plan(model, x, forward=lambda m, x: m[1](m[0](x)))
    assert plan.notes == (
        "the outputs do not depend on 2.weight, 2.bias and 2 more: zero in the kernel; does forward= leave out a part of the "
        "model?",
    )
    assert kt.ntk_plan(model, x).notes == ()
    by_layer = kt.empirical_ntk(model, x, forward=lambda m, x: m[1](m[0](x)), by_layer=True)
    assert [bool(by_layer[layer].any()) for layer in ("0", "2", "3")] == [True, False, False]


def test_a_hook_that_adds_the_last_pass_is_no_squeeze(x):
    model, last = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double(), []

    def add_last(module, inputs, outputs):
        found = outputs + last.pop() if last else outputs
        last.append(outputs)
        return found

    model[0].register_forward_hook(add_last)
    assert refusal("the output is not", model, x).startswith(
        "Remove hooks that keep something from one pass to the next: ['0']"
    )
