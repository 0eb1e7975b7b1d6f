"""Checkpoints as real trainings write them: the live numbers bit for bit, or one line and no archive.

Oracle: the tracker's own archive of the same training, for every number that does not need both sides of an update.
"""

import argparse
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands.checkpoints import read
from kerneltrack.callbacks import NTKTracker
from kerneltrack.observables import select
from tests.analysis.saved_checkpoints import Saves
from tests.tiers import later

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:.*lr_scheduler.step.*"),
    pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module`.*"),
]


def layers(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))


class Trained(pl.LightningModule):
    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.3)


class Net(Trained):
    def __init__(self, width=4, folder=None, options=None):
        super().__init__()
        self.save_hyperparameters()
        self.layers = layers(width)


class OneCycle(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class AllGiven(Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Finetuned(Trained):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        return self.head(self.backbone(x))


class Configured(Trained):
    def __init__(self):
        super().__init__()
        self.layers = None

    def configure_model(self):
        self.layers = layers() if self.layers is None else self.layers


class MadeInSetup(Trained):
    """Its layers are there when a Trainer has called setup; half of them before."""

    def __init__(self):
        super().__init__()
        self.layers = None

    def setup(self, stage):
        assert stage == "fit"
        self.layers = layers()


class HalfInSetup(MadeInSetup):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 3)

    def forward(self, x):
        return self.layers(self.body(x))


class SetupNeedsTrainer(Net):
    """Whole without its setup."""

    def setup(self, stage):
        self.steps = self.trainer.max_steps


class MadeByTrainer(Trained):
    """Nothing without its Trainer."""

    def setup(self, stage):
        self.layers = layers(self.trainer.datamodule.width)


class OtherSetup(nn.Sequential):
    """No LightningModule: its method of that name is another one."""

    def __init__(self):
        super().__init__(*layers())

    def setup(self, width, depth):
        raise AssertionError


class Given(Trained):
    def __init__(self, net):
        super().__init__()
        self.save_hyperparameters()
        self.layers = net


class Ignoring(Trained):
    def __init__(self, net):
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.layers = net


class Broken(Net):
    def __init__(self):
        super().__init__()
        len(5)


class NeedsData(Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.trainer.datamodule.rate)


def ignoring():
    return Ignoring(layers())


def given():
    return Given(layers())


def frozen():
    module = Net()
    module.layers[0].requires_grad_(False)
    return module


class Freezes(pl.Callback):
    """Without a state of its own: the checkpoint does not know."""

    def setup(self, trainer, pl_module, stage):
        pl_module.layers[0].requires_grad_(False)


class FreezesAndSaysSo(pl.callbacks.BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.layers[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "nets", sys.modules[Net.__module__])
    Probe(X, Y, name="train").save("probe.npz")
    return tmp_path


def fit(module, *callbacks):
    tracker = NTKTracker("live.h5", probe="probe.npz", schedule=1, loss="half_mse", log=False)
    pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        callbacks=[tracker, *callbacks, Saves()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    ).fit(module, DataLoader(TensorDataset(X, Y), batch_size=6))


def track(model, pattern="ckpt/*.ckpt"):
    words = f"track --checkpoints {pattern} --model nets:{model} --probe probe.npz --loss half_mse -o replay.h5"
    return main(words.split())


def refused(capsys, model, *said, pattern="ckpt/*.ckpt"):
    """Exit code 2, one line with those words, and nothing beside what was there."""
    before = sorted(os.listdir())
    assert track(model, pattern) == 2
    text = capsys.readouterr().err
    assert text.startswith("kerneltrack: ")
    assert text.count("\n") == 1
    assert [word for word in said if word not in text] == [], text
    assert sorted(os.listdir()) == before


def unfreezes():
    return pl.callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False, backbone_initial_lr=0.01)


@pytest.mark.parametrize(
    ("made", "callbacks", "model"),
    [
        (OneCycle, (), "OneCycle"),
        (Finetuned, (unfreezes,), "Finetuned"),
        (Configured, (), "Configured"),
        (lambda: Net(5, pathlib.Path("/data"), argparse.Namespace(a=1)), (), "Net"),
        later((ignoring, (), "ignoring")),
        later((given, (), "given")),
        (Net, (Freezes,), "frozen"),
        (Net, (FreezesAndSaysSo,), "Net"),
    ],
    ids=["a Trainer", "thawed", "configured", "path", "ignored", "a module", "frozen", "frozen by name"],
)
def test_the_live_numbers(here, capsys, made, callbacks, model):
    fit(made(), *(callback() for callback in callbacks))
    shutil.copy("ckpt/3.ckpt", "ckpt/last.ckpt")  # as save_last does
    assert track(model) == 0, capsys.readouterr().err
    names = {o.name for o in select("default") if "update" not in o.needs} | {"kernel"}
    with open_archive("live.h5") as live, open_archive("replay.h5") as replay:
        assert replay.steps.tolist() == [0, 1, 2, 3]
        for a, b in zip(live, replay, strict=True):
            assert a.learning_rates == b.learning_rates
            found, again = a.probes["train"], b.probes["train"]
            assert not [n for n in names if not np.array_equal(found.get(n, 0), again.get(n, 0), equal_nan=True)]
            assert {n in found for n in names} > {n in found for n in names if (n in found) != (n in again)}


@pytest.mark.parametrize(
    ("made", "callbacks", "model", "said"),
    [
        (
            AllGiven,
            (Freezes,),
            "AllGiven",
            ("layers.0.weight is the same in every checkpoint", "--params 'layers.2.*'"),
        ),
        (AllGiven, (FreezesAndSaysSo,), "AllGiven", ("layers.0.weight is the same in every checkpoint",)),
        (ignoring, (), "Ignoring", ("argument: 'net'", "Name a function")),
        (given, (), "Given", ("the hyper-parameter 'net'", "Sequential", "Name a function")),
        (Net, (), "Broken", ("object of type 'int' has no len()",)),
        (Net, (), "NeedsData", ("configure_optimizers", "datamodule")),
        (Net, (), "Finetuned", ("backbone.weight",)),
    ],
)
def test_one_line_and_no_archive(here, capsys, made, callbacks, model, said):
    fit(made(), *(callback() for callback in callbacks))
    refused(capsys, model, *said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("module.ckpt", "a saved "),
        ("weights.ckpt", "does not say its step"),
        ("nothing.ckpt", "expected the entries"),
        ("text.ckpt", "another kind of file"),
        ("empty.ckpt", "another kind of file"),
        ("folder.ckpt", "a folder"),
        ("w.safetensors", "expected the entries"),
        ("short.ckpt", "ends too early"),
        ("other.ckpt", "two checkpoints of step 1"),
    ],
)
def test_files_of_other_kinds_are_called_by_name(here, capsys, name, said):
    torch.save({"global_step": 1, "epoch": 0, "state_dict": Net().state_dict()}, "good.ckpt")
    data = pathlib.Path("good.ckpt").read_bytes()
    if name == "folder.ckpt":
        os.mkdir(name)
    elif name == "other.ckpt":
        torch.save({"global_step": 1, "epoch": 0, "state_dict": Net().state_dict()}, name)
    elif name in ("module.ckpt", "weights.ckpt"):
        torch.save(Net() if name == "module.ckpt" else Net().state_dict(), name)
    elif name == "nothing.ckpt":
        torch.save({"step": 1, "loss": 0.5}, name)
    else:
        kinds = {"text.ckpt": b"hello world\n", "empty.ckpt": b"", "short.ckpt": data[:2000]}
        pathlib.Path(name).write_bytes(kinds.get(name, b"\x02\0\0\0\0\0\0\0{}"))
    refused(capsys, "Net", name, said, pattern="*.ckpt" if name == "other.ckpt" else name)


def test_reading_runs_none_of_a_checkpoints_code(tmp_path):
    """Oracle: a file that a pickle would make. What stands for the object says which class it was of."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    parts = {"global_step": 1, "epoch": 0, "state_dict": {"w": torch.ones(2)}, "hyper_parameters": {"x": Harm()}}
    torch.save(parts, tmp_path / "x.ckpt")
    found = read(tmp_path / "x.ckpt")
    assert torch.equal(found["state_dict"]["w"], torch.ones(2))
    assert found["hyper_parameters"]["x"].name.endswith(".mkdir")
    assert os.listdir(tmp_path) == ["x.ckpt"]
    torch.load(tmp_path / "x.ckpt", weights_only=False)  # negative control: read as a pickle it does harm
    assert sorted(os.listdir(tmp_path)) == ["harm", "x.ckpt"]


def test_a_plan_builds_what_a_trainer_would(here, capsys):
    """Oracle: the layer of which the model is said to consist; and the module's own error where it has one."""
    assert main(["plan", "--model", "nets:Configured", "--probe", "probe.npz"]) == 0
    assert "layers.2.weight" in capsys.readouterr().out
    assert main(["plan", "--model", "nets:Broken", "--probe", "probe.npz"]) == 2
    said = capsys.readouterr().err
    assert "has no len()" in said
    assert "without arguments" not in said


@pytest.mark.parametrize("model", ["MadeInSetup", "HalfInSetup", "OtherSetup"])
def test_a_plan_calls_setup_as_a_trainer_would(here, capsys, model):
    """Oracle: the layer that setup makes is among those that the plan names."""
    assert main(["plan", "--model", f"nets:{model}", "--probe", "probe.npz"]) == 0
    told = capsys.readouterr()
    assert ("2.weight" if model == "OtherSetup" else "layers.2.weight") in told.out
    assert "setup" not in told.err


def test_a_setup_that_needs_a_trainer_is_said_where_the_model_is_whole_without_it(here, capsys):
    assert main(["plan", "--model", "nets:SetupNeedsTrainer", "--probe", "probe.npz"]) == 0
    assert 'setup("fit") of the model was left out, because it raised RuntimeError' in capsys.readouterr().err


def test_a_model_that_has_no_parameters_without_its_trainer_is_refused_with_the_remedy(here, capsys):
    assert main(["plan", "--model", "nets:MadeByTrainer", "--probe", "probe.npz"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "MadeByTrainer has no parameters" in said
    assert "name a function that builds the module: --factory module:function" in said


def made_in_setup():
    return MadeInSetup()


def test_checkpoints_of_a_model_made_in_setup(here, capsys):
    """By class they are refused with the remedy, a function; by a function they are measured. Oracle: its weights' kernel."""
    model = MadeInSetup()
    tracker = NTKTracker("live.h5", probe=Probe.load("probe.npz"), schedule=2, log=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_steps=2, callbacks=[tracker], enable_checkpointing=False, **quiet).fit(
        model, DataLoader(TensorDataset(X, Y), batch_size=6)
    )
    torch.save(
        {"state_dict": model.state_dict(), "global_step": 2, "epoch": 1, "pytorch-lightning_version": pl.__version__},
        "last.ckpt",
    )
    command = ["track", "--checkpoints", "last.ckpt", "--probe", "probe.npz", "-o", "replayed.h5", "--model"]
    assert main([*command, "nets:MadeInSetup"]) == 2
    assert "Name a function that builds the module" in capsys.readouterr().err
    assert main([*command, "nets:made_in_setup"]) == 0
    with open_archive("live.h5") as live, open_archive("replayed.h5") as again:
        values = [archive[-1].probes["train"]["eigenvalues"] for archive in (live, again)]
    np.testing.assert_array_equal(*values)
