"""Whatever precision a user has chosen, a measurement is in full float32 and leaves every switch as it was.

Oracles: what torch's own getters say, of the new interface and of the old one (which raises where the two differ, and
must raise afterwards where it raised before); the same settings followed by the same assignments without a measurement;
a kernel in float64.
"""

import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.callbacks import NTKTracker
from kerneltrack.training import provenance
from kerneltrack.undisturbed import undisturbed

BACKENDS = torch.backends
#: Every switch, by what torch's own getter calls it.
SWITCHES = [("generic", "all"), *((b, o) for b in ("cuda", "mkldnn") for o in ("all", "matmul", "conv", "rnn"))]
OLD = {
    "matmul": torch.get_float32_matmul_precision,
    "cublas": lambda: BACKENDS.cuda.matmul.allow_tf32,
    "cudnn": lambda: BACKENDS.cudnn.allow_tf32,
    "mkldnn": lambda: BACKENDS.mkldnn.allow_tf32,
}


def new(backend, operation):
    return torch._C._get_fp32_precision_getter(backend, operation)


def put(backend, operation, value):
    torch._C._set_fp32_precision_setter(backend, operation, value)


def said(read):
    try:
        return read()
    except RuntimeError:
        return "refused"


def readings():
    return {switch: new(*switch) for switch in SWITCHES} | {name: said(read) for name, read in OLD.items()}


@pytest.fixture(autouse=True)
def defaults():
    """torch's defaults, before and after."""
    reset()
    yield
    reset()


def reset():
    torch.set_float32_matmul_precision("highest")
    for switch in SWITCHES:
        put(*switch, "none")
    BACKENDS.cudnn.allow_tf32 = True


def attribute(path, value):
    owner, name = path.rsplit(".", 1)
    found = BACKENDS
    for part in owner.split(".")[1:]:
        found = getattr(found, part)
    setattr(found, name, value)


CHOICES = {
    "nothing": lambda: None,
    "cudnn.conv ieee": partial(attribute, "backends.cudnn.conv.fp32_precision", "ieee"),
    "cudnn.conv none": partial(attribute, "backends.cudnn.conv.fp32_precision", "none"),
    "cudnn.rnn ieee": partial(attribute, "backends.cudnn.rnn.fp32_precision", "ieee"),
    "cudnn tf32": partial(attribute, "backends.cudnn.fp32_precision", "tf32"),
    "cudnn ieee": partial(attribute, "backends.cudnn.fp32_precision", "ieee"),
    "all tf32": partial(attribute, "backends.fp32_precision", "tf32"),
    "all ieee": partial(attribute, "backends.fp32_precision", "ieee"),
    "cuda.matmul tf32": partial(attribute, "backends.cuda.matmul.fp32_precision", "tf32"),
    "cuda.matmul ieee": partial(attribute, "backends.cuda.matmul.fp32_precision", "ieee"),
    "mkldnn.matmul bf16": partial(attribute, "backends.mkldnn.matmul.fp32_precision", "bf16"),
    "mkldnn.conv tf32": partial(attribute, "backends.mkldnn.conv.fp32_precision", "tf32"),
    "mkldnn's own": partial(put, "mkldnn", "all", "bf16"),
    "high": partial(torch.set_float32_matmul_precision, "high"),
    "medium": partial(torch.set_float32_matmul_precision, "medium"),
    "medium, then all ieee": lambda: (
        torch.set_float32_matmul_precision("medium"), attribute("backends.fp32_precision", "ieee"),
    ),
    "high, then cuda.matmul ieee": lambda: (
        torch.set_float32_matmul_precision("high"), attribute("backends.cuda.matmul.fp32_precision", "ieee"),
    ),
    "allow_tf32 of cuBLAS": partial(attribute, "backends.cuda.matmul.allow_tf32", True),
    "no allow_tf32 of cuDNN": partial(attribute, "backends.cudnn.allow_tf32", False),
    "both": lambda: (
        attribute("backends.cudnn.allow_tf32", False), attribute("backends.cuda.matmul.fp32_precision", "tf32"),
    ),
}  # fmt: skip
#: What a user may set after a measurement; a switch that follows another must still follow it.
LATER = [None, *((("generic", "all"), value) for value in ("ieee", "tf32")), (("cuda", "all"), "ieee")]


@pytest.mark.parametrize("later", LATER, ids=str)
@pytest.mark.parametrize("choice", CHOICES)
def test_full_precision_inside_and_every_switch_as_before(choice, later):
    def then():
        if later is not None:
            put(*later[0], later[1])
        return readings()

    CHOICES[choice]()
    expected = then()
    reset()
    CHOICES[choice]()
    before = readings()
    with undisturbed(nn.Linear(1, 1)):
        assert {new(*switch) for switch in SWITCHES} == {"ieee"}
        assert said(OLD["matmul"]) == "highest" or before["matmul"] == "refused"
        assert said(OLD["cudnn"]) is False or before["cudnn"] == "refused"
    assert readings() == before
    assert then() == expected


def test_a_measurement_that_raises_leaves_every_switch_as_before():
    BACKENDS.cudnn.conv.fp32_precision = "ieee"
    before = readings()
    with pytest.raises(ValueError, match="in the middle"), undisturbed(nn.Linear(1, 1)):
        raise ValueError("in the middle")
    assert readings() == before


def kernel_of(model, x):
    """Θ (N, N) by single backward passes in float64."""
    model = copy.deepcopy(model).double()
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(model(s[None]).sum(), list(model.parameters()))])
        for s in x
    ]
    J = torch.stack(rows)
    return J @ J.T


@pytest.mark.parametrize("choice", ["medium", "mkldnn.matmul bf16", "mkldnn's own", "all tf32"])
def test_the_kernel_is_in_full_precision(choice):
    """float32's own rounding is 1e-7; bfloat16 products (on processors that have them) are off by 1e-3, TF32 by 1e-4."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)), torch.randn(8, 64)
    CHOICES[choice]()
    before = readings()
    found = kt.empirical_ntk(model, x).squeeze()
    assert readings() == before
    exact = kernel_of(model, x.double())
    assert float((found.double() - exact).abs().max() / exact.max()) < 2e-6


#: Where torch's own bracket of cuDNN works without a measurement.
READABLE = [
    "nothing", "cudnn tf32", "all tf32", "cuda.matmul tf32", "mkldnn.matmul bf16", "mkldnn's own", "high", "medium",
    "allow_tf32 of cuBLAS", "no allow_tf32 of cuDNN", "both",
]  # fmt: skip


class Bracketed(nn.Module):
    """A forward inside of torch's own brackets, which read the old switches and set them again."""

    def __init__(self, flags):
        super().__init__()
        self.linear, self.flags, self.seen = nn.Linear(3, 1), flags, set()

    def forward(self, x):
        with self.flags():
            y = self.linear(x)
        self.seen |= {new(*switch) for switch in SWITCHES}
        return y


@pytest.mark.parametrize(
    "flags",
    [
        partial(BACKENDS.cudnn.flags, enabled=False),
        partial(BACKENDS.cudnn.flags, enabled=True, deterministic=True, allow_tf32=False),
        partial(BACKENDS.mkldnn.flags, enabled=False, allow_tf32=None),
        partial(BACKENDS.flags, fp32_precision="tf32"),
    ],
    ids=["cudnn off", "cudnn deterministic", "mkldnn off", "all"],
)
@pytest.mark.parametrize("choice", READABLE)
def test_a_forward_that_brackets_the_switches(choice, flags):
    CHOICES[choice]()
    before, model, x = readings(), Bracketed(flags), torch.randn(4, 3)
    found = kt.empirical_ntk(model, x).squeeze()
    torch.testing.assert_close(found, x @ x.T + 1, rtol=1e-5, atol=1e-6)
    assert model.seen == {"ieee"}
    assert readings() == before


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))

    def training_step(self, batch, batch_idx):
        return (self.layers(batch[0]) - batch[1]).square().mean() / 2

    def forward(self, x):
        return self.layers(x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, path=None):
    """The parameters after two updates."""
    torch.manual_seed(0)
    for layer in (module.layers[0], module.layers[2]):
        layer.reset_parameters()
    x = torch.randn(8, 3)
    data = TensorDataset(x, x[:, :1].sin())
    callbacks = [] if path is None else [NTKTracker(path, probe=kt.Probe(*data[:4]), schedule=1, log=False)]
    pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=2,
        callbacks=callbacks,
    ).fit(module, DataLoader(data, batch_size=4))
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize("choice", ["cudnn.conv ieee", "all tf32", "all ieee", "cuda.matmul tf32", "high", "both"])
def test_a_training_goes_on_as_without_the_tracker(tmp_path, choice):
    """Oracle: the same training without the tracker, bit for bit."""
    CHOICES[choice]()
    alone, before = fit(Net()), readings()
    watched = fit(Net(), tmp_path / "run.h5")
    assert readings() == before
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    with kt.open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("choice", ["nothing", "cudnn.conv ieee", "cuda.matmul tf32"])
def test_recurrent_modules_under_every_choice(choice):
    """Around them cuDNN is switched off, without ``cudnn.flags``, which torch refuses once switches differ.

    Oracle: the kernel and the readings without the choice.
    """
    gru, x = nn.GRU(2, 3, batch_first=True).eval(), torch.randn(3, 4, 2)
    kernel = partial(kt.empirical_ntk, gru, x, method="jacobian", forward=lambda m, x: m(x)[0][:, -1])
    plain = kernel()
    CHOICES[choice]()
    before = readings()
    assert torch.equal(kernel(), plain)
    assert readings() == before
    assert BACKENDS.cudnn.enabled


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ("nothing", "highest"),
        ("high", "high"),
        ("medium", "medium"),
        ("all ieee", "highest"),
        ("all tf32", "high"),
        ("cuda.matmul tf32", "high"),
        ("allow_tf32 of cuBLAS", "high"),
        ("mkldnn.matmul bf16", "medium"),
        ("high, then cuda.matmul ieee", "high"),
        ("cudnn.conv ieee", "highest"),
    ],
)
def test_the_provenance_says_it_in_the_old_words(choice, word):
    """Oracle: torch's own word, wherever it says one; elsewhere by hand."""
    CHOICES[choice]()
    if said(OLD["matmul"]) != "refused":
        assert said(OLD["matmul"]) == word
    assert provenance.public_facts(nn.Linear(1, 1))["matmul_precision"] == word
