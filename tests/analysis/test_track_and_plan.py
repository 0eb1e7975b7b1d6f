"""Replaying checkpoints and planning. Oracles: the live run's archive, and closed forms of a linear model."""

import json
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive
from kerneltrack.analysis.cli import main
from kerneltrack.analysis.commands import MeasuringOptions
from kerneltrack.analysis.commands import plan as plans
from kerneltrack.analysis.commands.track import run_track
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import OutputError, TrackerError
from kerneltrack.observables import catalogue, select
from tests.analysis.saved_checkpoints import Saves

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
Y = X[:, :1].sin()


class Net(pl.LightningModule):
    def __init__(self, width=5):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.3)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 1)

    def forward(self, x):
        return self.map(x)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """This file's classes as an importable module, and a saved probe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "nets", sys.modules[Net.__module__])
    Probe(X, Y, name="train").save("probe.npz")
    return tmp_path


class Noisy(Net):
    """BatchNorm and dropout: what is measured depends on buffers, and the function in training is another one."""

    def __init__(self, width=5, adam=False):
        super().__init__(width)
        self.adam = adam
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1)
        )

    def configure_optimizers(self):
        return (
            torch.optim.Adam(self.parameters(), lr=0.05, betas=(0.0, 0.999))
            if self.adam
            else super().configure_optimizers()
        )


def out_of_order(step):
    """Names whose order is not that of the steps."""
    return f"{(7 * step + 3) % 11:02d}"


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*logging interval.*")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:.*lr_scheduler.step.*")
@pytest.mark.parametrize(
    "options", [pytest.param({}, id="SGD", marks=pytest.mark.nightly), pytest.param({"adam": True}, id="Adam")]
)
def test_checkpoints_give_the_live_numbers(here, options):
    """The same state, the same instrument: bit for bit, but for what needs both sides of an update."""
    tracker = NTKTracker("live.h5", probe="probe.npz", schedule=1, loss="half_mse", log=False)
    trainer = pl.Trainer(
        max_steps=4,
        accelerator="cpu",
        callbacks=[tracker, Saves(out_of_order)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Noisy(width=4, **options), DataLoader(TensorDataset(X, Y), batch_size=6))
    assert (
        run_track(
            "ckpt/*.ckpt", "nets:Noisy", here / "probe.npz", here / "replay.h5", MeasuringOptions(loss="half_mse")
        )
        == 0
    )
    names = {o.name for o in select("default") if "update" not in o.needs}
    with open_archive("live.h5") as live, open_archive("replay.h5") as replay:
        assert live.steps.tolist() == replay.steps.tolist() == [0, 1, 2, 3, 4]
        for a, b in zip(live, replay, strict=True):
            assert a.learning_rates == b.learning_rates
            found, again = a.probes["train"], b.probes["train"]
            names |= {n for n in (*found, *again) if n not in catalogue()}
            for name in sorted(names):
                assert (name in found) == (name in again), (a.step, name)
                assert np.array_equal(found.get(name, 0), again.get(name, 0), equal_nan=True), (a.step, name)
        last = live[-1].probes["train"]
        assert {"kernel", "anchored_linearization_error", "function_gap", "stability_ratio"} <= set(last)
    with pytest.raises(OutputError, match=r"nothing was touched \(in .*replay"):
        run_track("ckpt/*.ckpt", "nets:Noisy", here / "probe.npz", here / "replay.h5", MeasuringOptions())


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*", "ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*logging interval.*", "ignore:.*treespec, LeafSpec.*")
def test_checkpoints_give_the_leading_pairs(here):
    """Oracle: all pairs of the same checkpoints, by LAPACK. Lanczos in float32: to 1e-4 of λ_1."""
    pl.Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=[Saves(out_of_order)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    ).fit(Net(), DataLoader(TensorDataset(X, Y), batch_size=6))
    command = [
        "track",
        "--checkpoints",
        "ckpt/*.ckpt",
        "--model",
        "nets:Net",
        "--probe",
        "probe.npz",
        "--reduction",
        "trace",
    ]
    assert main([*command, "-o", "all.h5"]) == 0
    assert main([*command, "-o", "few.h5", "--eigenpairs", "leading", "--top-k", "3"]) == 0
    with open_archive("all.h5") as every, open_archive("few.h5") as few:
        assert few.steps.tolist() == every.steps.tolist() == [0, 1, 2]
        for a, b in zip(every, few, strict=True):
            values, first = a.probes["train"]["eigenvalues"], b.probes["train"]["eigenvalues"]
            np.testing.assert_allclose(first, values[:3], atol=1e-4 * values[0])
            assert b.probes["train"]["eigenvectors"].shape[-1] == 3
            assert len(values) == len(X)


@pytest.mark.parametrize(
    ("pattern", "model", "match"),
    [
        ("none/*.ckpt", "nets:Net", "matches no file"),
        ("*.ckpt", "nets", "module:Class"),
        ("*.ckpt", "nets:Missing", "cannot be imported"),
        ("*.ckpt", "no_such_module:Net", "cannot be imported"),
    ],
)
def test_bad_use_is_refused(here, pattern, model, match):
    torch.save({"global_step": 3, "epoch": 0, "state_dict": {}}, "a.ckpt")
    with pytest.raises(TrackerError, match=match):
        run_track(pattern, model, here / "probe.npz", here / "replay.h5", MeasuringOptions())


def test_two_checkpoints_of_one_step_are_refused(here):
    """Copies of one are one; these differ."""
    for number, name in enumerate("ab"):
        torch.save({"global_step": 3, "epoch": 0, "state_dict": {"w": torch.ones(1) * number}}, f"{name}.ckpt")
    with pytest.raises(TrackerError, match="two checkpoints of step 3"):
        run_track("*.ckpt", "nets:Net", here / "probe.npz", here / "replay.h5", MeasuringOptions())


def test_a_plan_of_a_linear_model_is_its_closed_form(here, capsys):
    """Θ = XXᵀ + 11ᵀ; weights hold Σ‖x‖² of the trace, biases N; the largest stable rate is 2N/λ_1. float32: 1e-5."""
    assert plans.run_plan("nets:Linear", here / "probe.npz", MeasuringOptions(loss="half_mse"), as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    theta = X.double() @ X.double().T + 1
    assert facts["largest_learning_rate"] == pytest.approx(
        2 * len(X) / float(torch.linalg.eigvalsh(theta)[-1]), rel=1e-5
    )
    assert facts["layer_shares"] == {"map": pytest.approx(1.0)}
    assert facts["disk_bytes"] > 0
    assert facts["seconds"] > 0


def test_a_plan_of_the_leading_pairs_forms_no_kernel_that_does_not_fit(here, capsys):
    """A kernel of 300 samples has 360,000 bytes. Oracle: all pairs are refused within 300 KiB, the leading ones are not."""
    Probe(torch.randn(300, 3), name="wide").save("wide.npz")
    command = ["plan", "--model", "nets:Net", "--probe", "wide.npz", "--memory-budget", "300KiB"]
    assert main(command) == 2
    assert 'eigenpairs="leading"' in capsys.readouterr().err
    leading = [*command, "--eigenpairs", "leading", "--top-k", "2"]
    assert main([*leading, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["memory_bytes"] is first["flops"] is first["condition_number"] is None
    assert first["layer_shares"] == {}
    assert first["disk_bytes"] > 0
    assert main(leading) == 0
    assert "no kernel formed" in capsys.readouterr().out


def test_a_plan_prints_its_receipt(here, capsys):
    assert plans.run_plan("nets:Net", here / "probe.npz", MeasuringOptions()) == 0
    out = capsys.readouterr().out
    said = (
        "layers.0.weight",
        "one snapshot",
        "of memory at its peak",
        "on disk",
        "name the loss",
        "share of the trace",
    )
    for words in said:
        assert words in out


def test_a_model_that_needs_arguments_is_refused(here):
    with pytest.raises(TrackerError, match="without arguments"):
        plans.run_plan("torch.nn:Linear", here / "probe.npz", MeasuringOptions())
