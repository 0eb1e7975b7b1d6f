"""A resumed run measures what its archive holds, or is refused before a batch is trained.

Oracle: the archive's bytes, and the losses that the module keeps while it trains.
"""

import copy
import functools
import inspect
import shutil

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveError, TrackerError
from tests.callbacks.lightning_runs import Regressor, trainer
from tests.tiers import one_in

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
    given = options.pop("only", {**given, **options})
    own = [NTKTracker(folder / "run.h5", **given)]
    own += [] if checkpoint else [Saves(folder / "4.ckpt")]
    loader = DataLoader(TensorDataset(X, Y[:, :outputs]), batch_size=24)
    trainer(*own, max_steps=steps).fit(net, loader, ckpt_path=checkpoint, weights_only=bool(checkpoint))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run of six steps with a checkpoint of its fourth; each kind is trained once, and put back for each test.

    A kind is told by its text, and a function's text has its address: what a kind was made of is kept, that no function of
    another test comes to lie there.
    """
    kinds = {}

    def begin(first):
        kind = repr(first)
        if kind not in kinds:
            kinds[kind] = tmp_path_factory.mktemp("begun"), first
            fit(kinds[kind][0], **first)
            shutil.copy(kinds[kind][0] / "run.h5", kinds[kind][0] / "whole.h5")
        folder, _ = kinds[kind]
        shutil.copy(folder / "whole.h5", folder / "run.h5")
        assert not (folder / "run.h5.parts").exists()
        return folder

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


@pytest.mark.parametrize("case", one_in(2, SAME))
def test_the_rest_may_change(begun, case):
    first, second = SAME[case]
    folder = begun(first)
    fit(folder, checkpoint=folder / "4.ckpt", steps=10, **second)
    with open_archive(folder / "run.h5") as archive:
        expected = [0, 2, 4, 6, 9, 10] if case == "schedule" else [0, 2, 4, 6, 8, 10]
        assert archive.steps.tolist() == expected
        assert {snapshot.status for snapshot in archive} == {"ok"}


#: What an archive can hold of each argument, none of them the default.
CHOSEN = {
    "probe": 9, "probe_seed": 3, "schedule": schedule.Every(3, window=2) | schedule.At((5,)),
    "observables": ["trace", "layer_trace"],
    "output": "trace", "top_k": 4, "loss": "mse", "method": "jacobian", "params": ["layers.4.weight"], "eigenpairs": "leading",
}  # fmt: skip


def kept(folder):
    """The archive's settings of the probe, and the steps."""
    with open_archive(folder / "run.h5") as archive:
        (record,) = archive.probes.values()
        run = archive.provenance.run
        return (
            record.settings,
            record.fingerprint,
            run["observables"],
            run["schedule"],
            archive.steps.tolist(),
            list(archive),
        )


def test_what_is_not_given_is_what_the_archive_holds(begun):
    """Oracle: the run that was given everything both times."""
    folder = begun({"only": {"log": False, **CHOSEN}})
    fit(folder, checkpoint=folder / "4.ckpt", steps=10, only={"log": False, **CHOSEN})
    whole = kept(folder)
    folder = begun({"only": {"log": False, **CHOSEN}})
    fit(folder, checkpoint=folder / "4.ckpt", steps=10, only={"log": False})
    alone = kept(folder)
    assert alone[:5] == whole[:5]
    assert alone[4] == [0, 1, 3, 4, 5, 6, 7, 9, 10]
    for ours, theirs in zip(alone[5], whole[5], strict=True):
        assert ours.probes["train"].keys() == theirs.probes["train"].keys()
        for name, value in theirs.probes["train"].items():
            np.testing.assert_array_equal(ours.probes["train"][name], value, err_msg=name)


DIFFERENT = {
    "output": ("full", "another output"), "top_k": (3, "another top_k"), "loss": (None, "another loss"),
    "params": (None, "another params"), "eigenpairs": ("all", "another eigenpairs"),
    "observables": ("trace", "another observables"),
    "probe": (8, "other probes"), "probe_seed": (0, "other probes"), "forward": (forward, "another forward"),
}  # fmt: skip


@pytest.mark.parametrize("argument", DIFFERENT)
def test_what_is_given_and_different_is_refused_by_name_the_default_too(begun, argument):
    folder, net = begun({"only": {"log": False, **CHOSEN}}), module()
    value, message = DIFFERENT[argument]
    before = (folder / "run.h5").read_bytes()
    with pytest.raises(ArchiveError, match=message):
        fit(folder, net=net, checkpoint=folder / "4.ckpt", steps=10, only={"log": False, argument: value})
    assert (folder / "run.h5").read_bytes() == before
    assert net.losses == []


def test_a_schedule_that_is_given_is_another_one(begun):
    folder = begun({"only": {"log": False, **CHOSEN}})
    fit(folder, checkpoint=folder / "4.ckpt", steps=10, only={"log": False, "schedule": 4})
    assert kept(folder)[4] == [0, 1, 3, 4, 8, 10]


class Thirds(schedule.Schedule):
    def _is_due(self, clock):
        return clock.step % 3 == 0


PROBE = Probe(X[:10], Y[:10], name="train")
CANNOT_BE_HELD = {
    "forward": {"forward": forward}, "output": {"output": swapped}, "loss": {"loss": nn.MSELoss()}, "probe": {"probe": PROBE},
    "schedule": {"schedule": Thirds()},
}  # fmt: skip


@pytest.mark.parametrize("argument", CANNOT_BE_HELD)
def test_what_no_archive_can_hold_is_asked_for_again(begun, argument):
    own = {"log": False, "probe": 10, "observables": "trace", "schedule": 2, **CANNOT_BE_HELD[argument]}
    folder, net = begun({"only": own}), module()
    with pytest.raises(TrackerError, match=f"{argument}= is not given.*Pass the same {argument}= again"):
        fit(folder, net=net, checkpoint=folder / "4.ckpt", steps=10, only={"log": False})
    assert net.losses == []
    fit(folder, checkpoint=folder / "4.ckpt", steps=7, only={"log": False, **CANNOT_BE_HELD[argument]})


def enclosing(factor):
    def forward(model, x):
        return factor * model(x)

    return forward


def with_default(factor):
    def forward(model, x, by=factor):
        return by * model(x)

    return forward


def scaled(model, x, factor):
    return factor * model(x)


class Scales:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model, x):
        return self.factor * model(x)


class Opaque:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __mul__(self, value):
        return self.factor * value


MAKERS = {
    "closure": enclosing, "a tensor": lambda factor: enclosing(torch.tensor(factor)), "default": with_default,
    "partial": lambda factor: functools.partial(scaled, factor=factor), "object": Scales,
}  # fmt: skip


@pytest.mark.filterwarnings("error:kerneltrack")
@pytest.mark.parametrize("kind", one_in(2, MAKERS))
def test_two_callables_of_one_name(begun, kind):
    """The same code with the same values goes on without a word; other values are refused."""
    first = {"probe": PROBE, "observables": "trace", "log": False, "schedule": 2}
    folder, net = begun({"only": {**first, "forward": MAKERS[kind](1.0)}}), module()
    with pytest.raises(ArchiveError, match=r"another forward: expected the code of .* with other code"):
        fit(folder, net=net, checkpoint=folder / "4.ckpt", only={**first, "forward": MAKERS[kind](2.0)})
    assert net.losses == []
    fit(folder, checkpoint=folder / "4.ckpt", steps=7, only={**first, "forward": MAKERS[kind](1.0)})


@pytest.mark.parametrize("argument", ["output", "loss"])
def test_other_functions_of_one_name(begun, argument):
    def named(body):
        body.__qualname__ = "mine"
        return body

    once, twice = {
        "output": (lambda f: f[:1], lambda f: f[1:]),
        "loss": (lambda f, y: (f - y).square().mean(), lambda f, y: (f - y).abs().mean()),
    }[argument]
    first = {"probe": PROBE, "observables": "trace", "log": False, "schedule": 2}
    folder = begun({"only": {**first, argument: named(once)}})
    with pytest.raises(ArchiveError, match=f"another {argument}: expected the code of 'mine'"):
        fit(folder, checkpoint=folder / "4.ckpt", only={**first, argument: named(twice)})


def test_what_cannot_be_told_is_said(begun):
    first = {"probe": PROBE, "observables": "trace", "log": False, "schedule": 2}
    folder = begun({"only": {**first, "forward": enclosing(Opaque(1.0))}})
    with pytest.warns(UserWarning, match=r"whether forward=.*cannot be told: it holds a Opaque"):
        fit(folder, checkpoint=folder / "4.ckpt", steps=7, only={**first, "forward": enclosing(Opaque(1.0))})


def test_a_tool_that_passes_every_argument_gives_those_that_are_not_defaults():
    """As LightningCLI does; by hand nobody passes all of them."""
    defaults = {
        n: p.default
        for n, p in inspect.signature(NTKTracker.__init__).parameters.items()
        if n not in ("self", "archive")
    }
    assert NTKTracker("a.h5", **{**defaults, "top_k": 5, "loss": "mse"})._given == {"archive", "top_k", "loss"}
    assert NTKTracker("a.h5", top_k=64, loss=None)._given == {"archive", "top_k", "loss"}


def test_the_signature_shows_the_defaults():
    shown = inspect.signature(NTKTracker).parameters
    assert (shown["top_k"].default, shown["schedule"].default, shown["loss"].default) == (64, "log", None)
    copied = copy.deepcopy(NTKTracker("a.h5", top_k=3))
    assert copied._given == {"archive", "top_k"}
