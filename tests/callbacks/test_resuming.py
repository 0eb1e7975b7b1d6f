"""A resumed run measures what its archive holds, or is refused before a batch is trained.

Oracle: the archive's bytes, and the losses that the module keeps while it trains.
"""

import functools
import shutil

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveError
from tests.callbacks.lightning_runs import Regressor, trainer

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = torch.stack([X.prod(1), X[:, 0].sin()], 1)


class Saves(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def module(outputs=2):
    torch.manual_seed(0)
    net = Regressor(batchnorm=False, dropout=0.0, momentum=0.0)
    net.layers[4] = nn.Linear(6, outputs)
    return net


def fit(folder, *, net=None, checkpoint=None, outputs=2, steps=6, freeze=None, **options):
    net = net or module(outputs)
    if freeze:
        freeze(net).requires_grad_(False)
    given = {"probe": Probe(X[:10], Y[:10, :outputs], name="train"), "schedule": 2, "loss": "half_mse", "log": False}
    given["observables"] = "trace"  # what is measured is not asked here, but in one case
    own = [NTKTracker(folder / "run.h5", **{**given, **options})]
    own += [] if checkpoint else [Saves(folder / "4.ckpt")]
    loader = DataLoader(TensorDataset(X, Y[:, :outputs]), batch_size=24)
    trainer(*own, max_steps=steps).fit(net, loader, ckpt_path=checkpoint, weights_only=bool(checkpoint))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run of six steps with a checkpoint of its fourth; each kind is trained once, and put back for each test."""
    folders = {}

    def begin(first):
        kind = repr(first)
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp("begun")
            fit(folders[kind], **first)
            shutil.copy(folders[kind] / "run.h5", folders[kind] / "whole.h5")
        shutil.copy(folders[kind] / "whole.h5", folders[kind] / "run.h5")
        assert not (folders[kind] / "run.h5.parts").exists()
        return folders[kind]

    return begin


def forward(model, x):
    return model(x)


def other_forward(model, x):
    return 2 * model(x)


def swapped(f):
    return f.flip(0)


CHANGED = {
    "loss": ({}, {"loss": "mse"}, r'another loss: expected "half_mse", got "mse"'),
    "no loss": ({}, {"loss": None}, r'another loss: expected "half_mse", got null'),
    "output": ({}, {"output": "diagonal"}, r'another output: expected "full", got "diagonal"'),
    "trace": ({"outputs": 1}, {"outputs": 1, "output": "trace"}, r'another output: expected "full", got "trace"'),
    "a callable output": ({}, {"output": swapped}, r'another output: expected "full", got "callable"'),
    "params": ({}, {"params": ["layers.4.weight"]}, r'another params: expected "all that require grad"'),
    "other params": (
        {"params": ["layers.0.weight"]}, {"params": lambda n: n.startswith("layers.4")}, r"another params: expected .*0.weight"
    ),
    "top_k": ({"top_k": 4}, {"top_k": 5}, r"another top_k: expected 4, got 5"),
    "observables": ({}, {"observables": ["trace", "layer_trace"]}, r'another observables: expected .*got \["layer_trace"\]'),
    "forward": ({"forward": forward}, {"forward": other_forward}, r'another forward: expected "forward", got "other_forward"'),
    "eigenpairs": ({"top_k": 4}, {"top_k": 4, "eigenpairs": "leading"}, r'another eigenpairs: expected "all", got "leading"'),
    "everything": ({}, {"loss": "mse", "params": ["layers.4.weight"]}, "another params"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_settings_of_another_meaning_are_refused(begun, case):
    """Also with on_error="warn", which is about measurements."""
    first, second, message = CHANGED[case]
    folder = begun(first)
    before, net = (folder / "run.h5").read_bytes(), module(second.get("outputs", 2))
    with pytest.raises(ArchiveError, match=message) as refusal:
        fit(
            folder,
            net=net,
            checkpoint=folder / "4.ckpt",
            steps=10,
            on_error="warn" if len(case) % 2 else "raise",
            **second,
        )
    assert "Resume with the" in str(refusal.value)
    assert str(folder / "run.h5") in str(refusal.value)
    assert (folder / "run.h5").read_bytes() == before
    assert net.losses == []


SAME = {
    "nothing": ({"observables": "default"}, {"observables": "default"}),
    "schedule": ({}, {"schedule": schedule.Every(3)}),
    "how it is computed": ({}, {"method": "jacobian", "memory_budget": "1GiB", "keep_kernel": "all", "max_overhead": 0.9}),
    "names in another order": ({"params": ["layers.0.weight", "layers.4.bias"]}, {"params": ["layers.4.bias", "layers.0.weight"]}),
    "a predicate for names": ({"params": ["layers.4.weight", "layers.4.bias"]}, {"params": lambda n: n.startswith("layers.4")}),
    "top_k beyond all modes": ({"top_k": 30}, {"top_k": 64}),
    "a partial": ({"forward": functools.partial(forward)}, {"forward": functools.partial(forward)}),
    "observables in another order": ({"observables": ["trace", "layer_trace"]}, {"observables": ["layer_trace", "trace"]}),
    "what trains at the start": ({"params": lambda n: True}, {"params": lambda n: True, "freeze": lambda m: m.layers[0]}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_the_rest_may_change(begun, case):
    first, second = SAME[case]
    folder = begun(first)
    fit(folder, checkpoint=folder / "4.ckpt", steps=10, **second)
    with open_archive(folder / "run.h5") as archive:
        expected = [0, 2, 4, 6, 9, 10] if case == "schedule" else [0, 2, 4, 6, 8, 10]
        assert archive.steps.tolist() == expected
        assert {snapshot.status for snapshot in archive} == {"ok"}
