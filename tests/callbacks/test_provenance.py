"""An archive says where its numbers come from. Oracle: the same facts asked of torch, git and the operating system."""

import getpass
import importlib.metadata
import socket
import subprocess
import sys

import h5py
import pytest
import pytorch_lightning as pl
import torch

from kerneltrack import open_archive
from kerneltrack.archive import publish
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import Regressor, loader, trainer


class TwoGroups(Regressor):
    """Adam with a group of its own for the last layer, whose rate is a tensor."""

    def configure_optimizers(self):
        *others, last = list(self.parameters())
        groups = [{"params": others, "lr": 0.01, "weight_decay": 0.1}, {"params": [last], "lr": torch.tensor(0.02)}]
        return torch.optim.Adam(groups, betas=(0.8, 0.95))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("provenance") / "run.h5"
    pl.seed_everything(3, verbose=False)
    tracker = NTKTracker(path, probe=8, schedule=1, output="trace", loss="half_mse", metadata={"width": 4}, log=False)
    trainer(tracker, max_steps=2).fit(TwoGroups(), loader())
    return open_archive(path)


def test_the_run_is_described(archive):
    run = archive.provenance.run
    for package in ("torch", "pytorch-lightning", "numpy", "h5py", "kerneltrack"):
        assert run["versions"][package] == importlib.metadata.version(package)
    assert run["versions"]["hdf5"] == h5py.version.hdf5_version
    assert run["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run["model"] == f"{TwoGroups.__module__}.TwoGroups"
    assert run["seed"] == 3
    assert run["device"] == "cpu"
    assert run["precision"] == "32-true"
    assert run["strategy"] == "SingleDeviceStrategy"
    assert run["loss"] == "half_mse"
    assert run["created"].startswith("20")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert run["git_revision"] == (head.stdout.strip() if head.returncode == 0 else None)
    assert archive.provenance.metadata == {"width": 4}


def test_the_optimizer_has_its_settings_and_its_groups_are_named(archive):
    (adam,) = archive.provenance.run["optimizers"]
    assert adam["class"] == "Adam"
    assert [group["betas"] for group in adam["groups"]] == [[0.8, 0.95]] * 2
    assert [group["weight_decay"] for group in adam["groups"]] == [0.1, 0]
    assert [group["lr"] for group in adam["groups"]] == pytest.approx([0.01, 0.02])
    assert archive[0].learning_rates == pytest.approx((0.01, 0.02))
    assert [entry["group"] for entry in archive.provenance.parameters][-2:] == [0, 1]


def test_the_parameter_table_is_the_models(archive):
    model = TwoGroups()
    table = {entry["name"]: entry for entry in archive.provenance.parameters}
    assert list(table) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert table[name]["shape"] == list(parameter.shape)
        assert table[name]["dtype"] == "float32"
        assert table[name]["trainable"] is True
        assert name.startswith(table[name]["layer"])


def test_the_probe_says_what_was_measured(archive):
    settings = archive.probes["train"].settings
    assert settings["output"] == "trace"
    assert settings["mode"] == "eval"  # of BatchNorm and dropout
    assert settings["dtype"] == "float32"
    assert settings["loss"] == "half_mse"
    assert settings["loss_normalisation"] == "mean over the probe's samples"
    assert settings["parameters"] == "all that require grad"
    assert archive.probes["train"].inputs is None
    with h5py.File(archive.path) as file:
        assert file["probes/train"].attrs["inputs_stored"] == 0
        assert file["probes/train"].attrs["fingerprint"].decode().startswith("sha256:")


def test_what_is_private_stays_private(archive, tmp_path):
    private = archive.provenance.private
    assert private["host"] == socket.gethostname()
    assert private["user"] == getpass.getuser()
    assert private["command"] == sys.argv
    publish(archive.path, tmp_path / "public.h5", licence="CC0-1.0", authors="A", contact="a@example.org")
    assert open_archive(tmp_path / "public.h5").provenance.private == {}
