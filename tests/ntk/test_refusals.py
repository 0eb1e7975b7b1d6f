"""Bad input is refused with the cause and the remedy; what can be computed exactly is not refused.

Every test fails if the call returns, raises something else, or does not name the culprit.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import KernelError, KerneltrackError, MemoryBudgetError, UnsupportedModelError
from kerneltrack.ntk.contraction.token import Token
from kerneltrack.ntk.methods import execution
from tests.ntk.exact_kernels import tightest
from tests.ntk.models import Bare, With, mlp
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.problems import PROBLEMS

N = 5


@pytest.fixture
def x():
    return torch.randn(N, 4, dtype=torch.float64)


def refused(model, x, match, error=KernelError, **options):
    """The call raises; the message says ``match``, and what would have been right or what to do about it."""
    with pytest.raises(error, match=match) as raised:
        kt.empirical_ntk(model.double() if isinstance(model, nn.Module) else model, x, **options)
    assert raised.value.remedy or raised.value.expected
    return raised.value


every_method = pytest.mark.parametrize("method", ["auto", "jacobian", "products", "structured"])


# ------------------------------------------------------------ modes that make the kernel ill-defined


@every_method
def test_batch_norm_in_training_mode(x, method):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    refused(model, x, r"(?s)\b1\b.*eval", method=method)
    model[1].eval()
    assert kt.empirical_ntk(model, x, method="auto").shape == (N, N, 2, 2)


def test_batch_norm_without_running_statistics(x):
    """It uses the batch's statistics in eval mode too."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    refused(model, x, r"\b1\b")


def test_instance_norm_updates_its_statistics_in_training_mode():
    """It never couples samples, but in training mode a measurement would move its running statistics."""
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, track_running_stats=True), nn.Flatten())
    model = model.double().train()
    x = torch.randn(N, 2, 4, dtype=torch.float64)
    before = model[1].running_mean.clone()
    with pytest.raises(KernelError, match=r"\b1\b"):
        kt.empirical_ntk(model, x)
    assert torch.equal(before, model[1].running_mean)


@every_method
def test_active_dropout(x, method):
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))).train()
    refused(model, x, r"(?s)1\.0.*eval", method=method)


def test_dropout_that_drops_nothing_is_no_matter(x):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0), nn.Linear(3, 2)).double().train()
    plain = nn.Sequential(model[0], model[2])
    assert distance(kt.empirical_ntk(model, x), kt.empirical_ntk(plain, x).numpy()) == 0


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (
            lambda: With(
                lambda m, x: m.head(F.dropout(m.body(x), 0.5, training=True)),
                body=nn.Linear(4, 4),
                head=nn.Linear(4, 2),
            ),
            (4,),
        ),
        (lambda: With(lambda m, x: m.body(x) + torch.randn_like(x), body=nn.Linear(4, 4)), (4,)),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.RReLU()).train(), (4,)),
        (
            lambda: With(
                lambda m, x: m.body(x)[0][:, -1], body=nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True)
            ).train(),
            (3, 4),
        ),
        (
            lambda: With(
                lambda m, x: m.body(x, x, x)[0][:, -1], body=nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
            ).train(),
            (3, 4),
        ),
        (
            lambda: With(
                lambda m, x: m.body(x).mean(1), body=nn.TransformerEncoderLayer(4, 2, 5, batch_first=True)
            ).train(),
            (3, 4),
        ),
    ],
    ids=["functional-dropout", "noise", "rrelu", "lstm-dropout", "attention-dropout", "encoder-dropout"],
)
@every_method
def test_randomness_in_the_model(model, shape, method):
    """Two forward passes differ, so no kernel is the kernel."""
    state = torch.random.get_rng_state()
    refused(model(), torch.randn(N, *shape, dtype=torch.float64), r"(?i)dropout|random|body", method=method)
    torch.random.set_rng_state(state)


def test_a_refusal_leaves_the_generator_alone(x):
    model = With(lambda m, x: m.body(x) + torch.randn_like(x), body=nn.Linear(4, 4)).double()
    state = torch.random.get_rng_state()
    with pytest.raises(KernelError, match=r"(?i)random|body|dropout"):
        kt.empirical_ntk(model, x)
    assert torch.equal(state, torch.random.get_rng_state())


# ------------------------------------------------------------ models that couple samples


@pytest.mark.parametrize(
    "couple",
    [
        lambda m, x: m.body(x) - m.body(x).mean(0),
        lambda m, x: m.body(x).softmax(0),
        lambda m, x: m.body(x.flip(0)),
        lambda m, x: m.body(x).cumsum(0),
        lambda m, x: m.body(x) / len(x),
        lambda m, x: F.batch_norm(m.body(x), None, None, training=True),
    ],
    ids=["batch-mean", "softmax", "flip", "cumsum", "batch-size", "batch-norm"],
)
@every_method
def test_a_model_that_couples_samples(x, couple, method):
    refused(With(couple, body=nn.Linear(4, 3)), x, "(?i)couple|sample", UnsupportedModelError, method=method)


# ------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (lambda m, x: m.body(x).view(-1, 1, 3), r"\(N, O\).*1, 3\)"),
        (lambda m, x: m.body(x).mean(), r"\(N, O\).*\(\)"),
        (lambda m, x: m.body(x)[:3], r"\(N, O\).*\(3, 3\)"),
        (lambda m, x: (m.body(x), x), "(?i)tuple"),
        (lambda m, x: {"logits": m.body(x)}, "(?i)dict"),
        (lambda m, x: m.body(x).argmax(1), "(?i)int64|integer"),
        (lambda m, x: m.body(x) / 0 * 0, "(?i)finite|nan"),
        (lambda m, x: torch.complex(m.body(x), x[:, :3]), "(?i)complex"),
        (lambda m, x: m.body(x).detach(), "(?i)parameter|gradient|depend"),
    ],
    ids=["3-axes", "loss", "fewer-rows", "tuple", "dict", "integer", "not-finite", "complex", "detached"],
)
@every_method
def test_outputs_that_have_no_kernel(x, rule, match, method):
    refused(With(rule, body=nn.Linear(4, 3)), x, match, method=method)


def test_the_remedy_for_a_tuple_works(x):
    model = With(lambda m, x: (m.body(x), x), body=nn.Linear(4, 3)).double()
    assert "forward" in refused(model, x, "(?i)tuple").remedy
    kernel = kt.empirical_ntk(model, x, forward=lambda model, x: model(x)[0])
    rows = jacobian(model.body, x)
    assert distance(kernel, contract(rows, rows, "full")) < EXACT


@pytest.mark.parametrize(
    ("callable_output", "match"),
    [(lambda f: f[None], r"\(K,\)"), (lambda f: f.argmax(keepdim=True), "(?i)integer|int64")],
    ids=["matrix", "integer"],
)
def test_a_callable_output_of_another_shape(x, callable_output, match):
    refused(mlp(), x, match, output=callable_output)


# ------------------------------------------------------------ parameters


@every_method
def test_no_trainable_parameter(x, method):
    refused(mlp().requires_grad_(False), x, "(?i)trainable", UnsupportedModelError, method=method)


def test_a_model_without_parameters(x):
    refused(nn.Tanh(), x, "(?i)parameter", UnsupportedModelError)


def test_a_parameter_that_does_not_exist(x):
    refused(mlp(), x, "0.wieght", params=["0.wieght", "0.bias"])


def test_a_parameter_that_is_frozen(x):
    model = mlp()
    model[0].weight.requires_grad_(False)
    refused(model, x, "0.weight", params=["0.weight", "0.bias"])


def test_a_predicate_that_matches_nothing(x):
    refused(mlp(), x, "(?i)parameter", params=lambda name: False)


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (-1.0, "(?i)positive"),
        (0.0, "(?i)positive"),
        (float("nan"), "(?i)positive|finite"),
        ({"w": 1.0}, r"\bb\b"),
        ({"w": 1.0, "b": 1.0, "c": 1.0}, r"\bc\b"),
        ({"w": torch.ones(4, 3), "b": 1.0}, r"(?s)\bw\b.*\(3, 4\).*\(4, 3\)"),
        ({"w": -torch.ones(3, 4), "b": 1.0}, r"(?i)(?s)\bw\b.*positive|positive.*\bw\b"),
    ],
    ids=["negative", "zero", "nan", "missing", "unknown", "shape", "negative-entries"],
)
def test_a_metric_that_is_none(x, metric, match):
    model = Bare(lambda p, x: F.linear(x, p.w, p.b), w=(3, 4), b=(3,))
    refused(model, x, match, metric=metric)


# ------------------------------------------------------------ inputs and arguments


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        (torch.randn(0, 4, dtype=torch.float64), "(?i)empty|no sample|0"),
        ({}, "(?i)empty|no tensor"),
        ((torch.randn(5, 4), torch.randn(4, 4)), "(?i)5.*4"),
        (torch.tensor(1.0), "(?i)axis|0-d|scalar|shape"),
        ([[1.0, 2.0, 3.0, 4.0]], "(?i)tensor"),
        (torch.full((5, 4), float("nan"), dtype=torch.float64), "(?i)finite|nan"),
    ],
    ids=["no-samples", "empty", "unequal", "no-axis", "lists", "nan"],
)
def test_inputs_that_are_no_probe(inputs, match):
    refused(mlp(), inputs, match, KerneltrackError)


def test_the_two_sides_must_be_alike(x):
    refused(mlp(), x, "(?i)x2|shape|structure", KerneltrackError, x2={"x": x})


@pytest.mark.parametrize("side", ["model", "probe"])
def test_two_devices(x, side):
    """The meta device stands in for an accelerator."""
    model = mlp().to("meta") if side == "model" else mlp()
    refused(model, x if side == "model" else x.to("meta"), "(?i)meta.*cpu|cpu.*meta", KerneltrackError)


def test_a_probe_of_another_precision():
    """float32 inputs into a float64 model: exact, or refused naming both dtypes; never an error of torch."""
    model, x = mlp().double(), torch.randn(N, 4)
    try:
        kernel = kt.empirical_ntk(model, x)
    except KerneltrackError as refusal:
        message = str(refusal)
    else:
        rows = jacobian(model, x.double())
        assert distance(kernel, contract(rows, rows, "full")) < EXACT
        return
    assert "float32" in message
    assert "float64" in message


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"output": "mean"}, "(?s)mean.*trace|trace.*mean"),
        ({"method": "magic"}, "(?s)magic.*structured|structured.*magic"),
        ({"dtype": torch.int64}, "int64"),
        ({"memory_budget": "many"}, "many"),
        ({"memory_budget": 0}, "(?i)budget"),
        ({"memory_budget": -1}, "(?i)budget"),
    ],
    ids=["output", "method", "dtype", "budget-text", "budget-zero", "budget-negative"],
)
def test_options_that_do_not_exist(x, options, match):
    refused(mlp(), x, match, KerneltrackError, **options)


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("name", ["mlp", "lenet", "lstm", "gpt-tied", "weight-tanh"])
def test_a_budget_that_cannot_work_says_what_would(name, method):
    """The number works, holds the kernel, and stays the same whatever too small a budget is given."""
    problem = PROBLEMS[name]
    model, inputs = problem.model(), problem.inputs()
    least = tightest(model, inputs, method=method)
    assert least > 8 * 7 * 7
    with pytest.raises(MemoryBudgetError, match=r"(?i)budget") as again:
        kt.empirical_ntk(model, inputs, memory_budget=100, method=method)
    assert again.value.required_bytes == least
    kt.empirical_ntk(model, inputs, memory_budget=least, method=method)


@pytest.mark.parametrize("size", ["64MiB", "0.5GiB", "1 GB", 2**26])
def test_budgets_are_read(x, size):
    model = mlp().double()
    assert torch.equal(kt.empirical_ntk(model, x, memory_budget=size), kt.empirical_ntk(model, x))


# ------------------------------------------------------------ exact or refused


def traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, yet people load such models
        return torch.jit.trace(mlp().double(), torch.randn(2, 4, dtype=torch.float64))


ODD = {
    "traced": (traced, lambda: torch.randn(N, 4, dtype=torch.float64)),
    "sparse-embedding": (
        lambda: nn.Sequential(nn.Embedding(6, 3, sparse=True), nn.Flatten(), nn.Linear(9, 2)),
        lambda: torch.randint(6, (N, 3)),
    ),
    "scale-grad-by-freq": (
        lambda: nn.Sequential(nn.Embedding(3, 3, scale_grad_by_freq=True), nn.Flatten(), nn.Linear(12, 2)),
        lambda: torch.randint(3, (N, 4)),
    ),
    "parameter-as-input-of-conv": (
        lambda: Bare(lambda p, x: torch.cat([F.conv1d(p.image, w[None, None]) for w in x]).flatten(1)[:, :3],
                     image=(1, 1, 6)),
        lambda: torch.randn(N, 4, dtype=torch.float64),
    ),
    "complex-parameter": (
        lambda: Bare(lambda p, x: (x * torch.complex(p.a, p.b)).abs()[:, :3], a=(4,), b=(4,)),
        lambda: torch.randn(N, 4, dtype=torch.float64),
    ),
    "training-spectral-norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).train(),
        lambda: torch.randn(N, 4, dtype=torch.float64),
    ),
    "max-norm-embedding": (
        lambda: nn.Sequential(nn.Embedding(6, 3, max_norm=0.5), nn.Flatten(), nn.Linear(9, 2)),
        lambda: torch.randint(6, (N, 3)),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_exact_or_refused(odd, method):
    """Oracle: the double loop over plain autograd, on a copy. Either way weights and buffers stay."""
    build, draw = ODD[odd]
    model, x = build().double(), draw()
    untouched = copy.deepcopy(model)
    kernel = refusal = None
    try:
        kernel = kt.empirical_ntk(model, x, method=method)
    except KernelError as error:
        refusal = error
    before, after = untouched.state_dict(), model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    if refusal is not None:
        assert refusal.remedy
    else:
        rows = jacobian(untouched.eval(), x)
        assert distance(kernel, contract(rows, rows, "full")) < EXACT


@pytest.mark.parametrize(
    ("place", "name"), [(execution, "collect"), (Token, "add_many")], ids=["capture", "contraction"]
)
def test_out_of_memory_is_no_refusal_of_the_model(monkeypatch, place, name):
    """Plain autodiff needs more memory than structure does: whoever ran out of it must hear so, not wait for more."""

    def exhausted(*args, **options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(place, name, exhausted)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    with pytest.raises(RuntimeError, match="can't allocate"):
        kt.empirical_ntk(model, x)
