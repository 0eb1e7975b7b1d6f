"""Checkpoints that need to be told about: frozen by a callback, averaged, of other loops, of hyper-parameters that are objects.

Oracles: the tracker's own archive of the same training; and for files of other loops the numbers of Lightning checkpoints
with the same weights, or of a state dict that is loaded by hand.
"""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.analysis.cli import main
from kerneltrack.callbacks import NTKTracker
from kerneltrack.observables import select
from tests.analysis.saved_checkpoints import Saves

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:.*is an instance of `nn.Module`.*"),
]


class Net(pl.LightningModule):
    def __init__(self, width=4, body=None):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(3, width), body or nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Freezes(pl.Callback):
    def on_fit_start(self, trainer, module):
        module.layers[0].requires_grad_(False)


class Named(nn.Module):
    """Gives a dict, whose entry forward= picks."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        return {"out": self.layers(x), "other": x}


class Plain(Named):
    def forward(self, x):
        return self.layers(x)


def with_sigmoid(hyper):
    """A factory of a checkpoint's hyper-parameters; the one that is an object it makes itself."""
    assert "body" not in hyper
    return Net(hyper.get("width", 4), nn.Sigmoid())


def picked(module, x):
    return module(x)["out"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "nets", sys.modules[Net.__module__])
    kt.Probe(X, Y, name="train").save("probe.npz")
    return tmp_path


def fit(module, *callbacks, steps=3):
    tracker = NTKTracker("live.h5", probe="probe.npz", schedule=1, loss="half_mse", log=False)
    torch.manual_seed(0)
    pl.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[tracker, *callbacks, Saves()], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(module, DataLoader(TensorDataset(X, Y), batch_size=6))  # fmt: skip


def track(*words, pattern="ckpt/*.ckpt", to="replay.h5"):
    return main(["track", "--checkpoints", pattern, "--probe", "probe.npz", "--loss", "half_mse", "-o", to, *words])


def rows(path):
    with kt.open_archive(path) as archive:
        return list(archive)


def unlike_the_live_run(live="live.h5", replay="replay.h5"):
    """Names of numbers that are not those of the live run, among those that need one side of an update."""
    names = {o.name for o in select("default") if "update" not in o.needs} | {"outputs", "kernel"}
    found = [(a.probes["train"], b.probes["train"]) for a, b in zip(rows(live), rows(replay), strict=True)]
    return sorted({n for n in names for a, b in found if not np.array_equal(a.get(n, 0), b.get(n, 0), equal_nan=True)})


def test_what_a_callback_froze_is_left_out_by_name(here, capsys):
    fit(Net(), Freezes())
    assert track("--model", "nets:Net") == 2
    assert "name what trained with --params, as in --params 'layers.2.*'" in capsys.readouterr().err
    assert track("--model", "nets:Net", "--params", "layers.2.*") == 0
    said = capsys.readouterr().err
    assert (
        "layers.0.bias, layers.0.weight: not in --params and the same in every checkpoint, so taken for frozen" in said
    )
    assert unlike_the_live_run() == []
    with kt.open_archive("replay.h5") as archive:
        assert archive.probes["train"].settings["parameters"] == "all that require grad"
    assert track("--model", "nets:Net", "--params", "layers.2.weight", "--params", "layers.7.*", to="no.h5") == 2
    assert "--params layers.7.*: expected the name of a parameter" in capsys.readouterr().err


def test_a_hyper_parameter_that_is_an_object_needs_a_factory(here, capsys):
    fit(Net(5, nn.Sigmoid()))
    before = sorted(os.listdir())
    assert track("--model", "nets:Net") == 2
    said = capsys.readouterr().err
    assert "the hyper-parameter 'body', a torch.nn.modules.activation.Sigmoid" in said
    assert "Name a function that builds the module: --factory module:function." in said
    assert sorted(os.listdir()) == before
    assert track("--factory", "nets:with_sigmoid") == 0
    assert unlike_the_live_run() == []
    assert [r.learning_rates for r in rows("replay.h5")] == [(0.3,)] * 4


def test_of_an_average_and_what_is_trained_either_is_measured(here, capsys):
    """Oracles: the live run, which measures what is trained; and the average that each checkpoint holds, loaded by hand."""
    fit(Net(), pl.callbacks.EMAWeightAveraging(decay=0.5))
    os.remove("ckpt/3.ckpt")  # of the end, where Lightning has put the average in the place of the others
    assert track("--model", "nets:Net") == 0
    assert track("--model", "nets:Net", "--weights", "average", to="average.h5") == 0
    live, current, average = (
        [r.probes["train"]["outputs"] for r in rows(f"{n}.h5")] for n in ("live", "replay", "average")
    )
    assert all(np.array_equal(a, b) for a, b in zip(live, current, strict=False))
    averaged = Net()
    averaged.load_state_dict(torch.load("ckpt/2.ckpt", weights_only=False)["state_dict"])
    with torch.no_grad():
        np.testing.assert_allclose(average[2], averaged(X).numpy(), rtol=1e-6)
    assert not np.allclose(average[2], current[2], rtol=1e-3)
    torch.save({"step": 1, "model": Net().state_dict()}, "plain.pt")
    assert track("--model", "nets:Net", "--weights", "average", pattern="plain.pt", to="no.h5") == 2
    assert "plain.pt holds no average of its weights" in capsys.readouterr().err


def saved(step):
    """A network at that step of some loop, and its optimizer."""
    torch.manual_seed(step)
    module = Plain()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1 / (1 + step))
    return module, optimizer


def as_state_dict(step):
    module, _ = saved(step)
    torch.save({f"module.{name}": value for name, value in module.state_dict().items()}, f"files/weights-{step:04d}.pt")


def as_safetensors(step):
    save_file(saved(step)[0].state_dict(), f"files/epoch=1-step={step}.safetensors")


def as_a_loop_saves(step):
    module, optimizer = saved(step)
    ema = {name: value + 1 for name, value in module.state_dict().items()}
    parts = {"step": step, "epoch": 1, "model_state_dict": module.state_dict(), "ema": ema}
    torch.save({**parts, "optimizer_state_dict": optimizer.state_dict()}, f"files/{'abc'[step // 4]}.pt")


def as_transformers_saves(step):
    module, optimizer = saved(step)
    folder = pathlib.Path(f"files/checkpoint-{step}")
    folder.mkdir()
    save_file(module.state_dict(), folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": 1.5}))


@pytest.mark.parametrize(
    ("save", "epoch", "rates"),
    [
        (as_state_dict, 0, False),
        (as_safetensors, 1, False),
        (as_a_loop_saves, 1, True),
        (as_transformers_saves, 1, True),
    ],
)
def test_checkpoints_of_other_loops(here, save, epoch, rates):
    os.mkdir("files")
    for step in (8, 0, 4):
        save(step)
    assert track("--factory", "nets:Plain", pattern="files/*") == 0
    found = rows("replay.h5")
    assert [(row.step, row.epoch) for row in found] == [(0, epoch), (4, epoch), (8, epoch)]
    assert [row.learning_rates for row in found] == [(0.1 / (1 + row.step),) if rates else () for row in found]
    for row in found:
        module, _ = saved(row.step)
        trace = float(kt.empirical_ntk(module, X, output="trace").diagonal().sum())
        assert float(row.probes["train"]["trace"]) == pytest.approx(trace, rel=1e-6)
        assert np.isnan(row.probes["train"].get("stability_ratio", np.nan))  # of which optimizer, nobody says


def test_the_average_of_another_loop(here):
    os.mkdir("files")
    as_a_loop_saves(4)
    assert track("--factory", "nets:Plain", "--weights", "average", pattern="files/*") == 0
    module, _ = saved(4)
    module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})
    with torch.no_grad():
        np.testing.assert_allclose(rows("replay.h5")[0].probes["train"]["outputs"], module(X).numpy(), rtol=1e-6)


def test_forward_says_which_output_is_measured(here, capsys):
    os.mkdir("files")
    as_safetensors(4)
    assert track("--factory", "nets:Named", pattern="files/*") == 2
    assert "got dict. Pick a tensor" in capsys.readouterr().err
    assert track("--factory", "nets:Named", "--forward", "nets:picked", pattern="files/*") == 0
    assert track("--factory", "nets:Plain", pattern="files/*", to="plain.h5") == 0
    one, other = (rows(path)[0].probes["train"] for path in ("replay.h5", "plain.h5"))
    assert all(np.array_equal(one[n], other[n], equal_nan=True) for n in other)


@pytest.mark.parametrize("bad", ["another shape", "cut", "not finite"])
def test_a_checkpoint_that_fails_in_the_middle_leaves_nothing(here, bad):
    os.mkdir("files")
    for step in (0, 4, 8):
        as_state_dict(step)
    path = pathlib.Path("files/weights-0004.pt")
    if bad == "another shape":
        torch.save({"layers.0.weight": torch.ones(2, 2)}, path)
    elif bad == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        torch.save({name: value * float("nan") for name, value in saved(4)[0].state_dict().items()}, path)
    before = sorted(os.listdir())
    assert track("--factory", "nets:Plain", pattern="files/*", to="new/deep/run.h5") == 2
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--model or --factory: expected one of them, got neither"),
        (("--model", "nets:Net", "--factory", "nets:Plain"), "expected one of them, got both"),
        (("--factory", "nets"), "--factory: expected module:function, got nets"),
        (("--factory", "nets:X"), "--factory nets:X: expected a function, got an object of type Tensor"),
        (("--factory", "nets:picked"), "picked"),
        (("--factory", "nets:Plain", "--forward", "nets:nothing"), "--forward nets:nothing cannot be imported"),
    ],
)
def test_bad_use_is_refused(here, capsys, words, said):
    os.mkdir("files")
    as_state_dict(4)
    assert track(*words, pattern="files/*") == 2
    assert said in capsys.readouterr().err
    assert not os.path.exists("replay.h5")


def test_a_plan_builds_and_calls_a_module_as_track_does(here, capsys):
    """Oracle: the trace of each layer by kt.empirical_ntk of one module that is built alike."""
    torch.manual_seed(0)
    command = ["plan", "--factory", "nets:Named", "--forward", "nets:picked", "--probe", "probe.npz", "--json"]
    assert main([*command, "--params", "layers.2.*"]) == 0
    assert json.loads(capsys.readouterr().out)["layer_shares"] == {"layers.0": 0.0, "layers.2": 1.0}
    torch.manual_seed(0)
    assert main(command) == 0
    torch.manual_seed(0)
    parts = kt.empirical_ntk(Named(), X, output="trace", forward=picked, by_layer=True)
    traces = {name: float(kernel.diagonal().sum()) for name, kernel in parts.items()}
    found = json.loads(capsys.readouterr().out)["layer_shares"]
    assert found == pytest.approx({name: trace / sum(traces.values()) for name, trace in traces.items()}, rel=1e-5)
    shutil.rmtree("files", ignore_errors=True)
