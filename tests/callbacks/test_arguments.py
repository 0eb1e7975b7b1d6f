"""Wrong arguments are refused when the tracker is made, or before the first batch where they need the data.

Every message names the argument, the value that came, and what to do. Oracle of completeness: the tracker's signature.
"""

import inspect
import pickle
import re

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kerneltrack import Probe, schedule
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveError, KernelError, KerneltrackError, ObservableError, ProbeError, TrackerError
from tests.callbacks.lightning_runs import Regressor, data, trainer

#: Argument → values that no tracker can work with, each beside what of it the message must say.
WRONG = {
    "archive": [
        ("", "''"), (5, "5"), (None, "None"), (".", "'.'"), ("/dev/null", "'/dev/null'"), ("run.png", "'run.png'"),
        ("probe.NPZ", "'probe.h5'"), ("last.ckpt", "'last.ckpt'"),
    ],
    "probe": [
        (0, "0"), (-3, "-3"), (True, "True"), (2.5, "2.5"), (None, "None"), ({}, "{}"), ("missing.npz", "missing.npz"),
        ({"train": "missing.npz"}, "missing.npz"), ({"train": 0}, "0"), ({"train": True}, "True"), ({"mine": 256}, "mine"),
        ({"two words": Probe(torch.ones(2, 3))}, "two words"),
    ],
    "schedule": [
        (0, "0"), (-1, "-1"), (True, "True"), (2.5, "2.5"), ("daily", "'daily'"), (None, "None"), ([1, 2], "[1, 2]"),
        ({"train": "daily"}, "'daily'"),
    ],
    "output": [("mean", "'mean'"), (3, "3"), (None, "None")],
    "gauge": [("centred", "'centred'"), (True, "True"), (None, "None")],
    "top_k": [(-1, "-1"), (2.5, "2.5"), ("all", "'all'"), (True, "True")],
    "observables": [("nonsense", "nonsense"), (["trace", "nonsense"], "nonsense"), (5, "5"), ([5], "[5]"), (None, "None")],
    "loss": [("hinge", "'hinge'"), (5, "5"), (["mse"], "['mse']")],
    "keep_kernel": [("some", "'some'"), (True, "True")],
    "metadata": [
        (5, "5"), ({"seed": torch.ones(2)}, "tensor"), ({"lr": float("nan")}, "nan"), ({3: "x"}, "{3: 'x'}"), ("x", "'x'"),
    ],
    "max_overhead": [(0, "0"), (1, "1"), (2, "2"), (-0.1, "-0.1"), ("5%", "'5%'"), (True, "True")],
    "log": [("yes", "'yes'"), (1, "1"), (None, "None")],
    "forward": [("model", "'model'"), (5, "5")],
    "if_exists": [("append", "'append'"), (True, "True")],
    "on_error": [("ignore", "'ignore'"), (None, "None")],
    "split": [("xy", "'xy'"), ((0, 1), "(0, 1)")],
    "probe_seed": [(-1, "-1"), ("a", "'a'"), (1.5, "1.5"), (None, "None")],
    "keep_inputs": [("no", "'no'"), (0, "0")],
    "method": [("fast", "'fast'"), (None, "None")],
    "params": [(5, "5"), ([], "[]"), ([5], "[5]"), ({"a": 1}, "{'a': 1}")],
    "memory_budget": [("lots", "'lots'"), (0, "0"), (-5, "-5"), (2.5, "2.5"), ("0GiB", "'0GiB'"), (True, "True")],
    "eigenpairs": [("some", "'some'"), (None, "None"), (3, "3")],
    "keep_forks": [(4, "4"), ("2GiB", "'2GiB'"), (None, "None")],
    "fork_at": [(3, "3"), ("12", "'12'"), ([-1], "[-1]"), ([True], "[True]"), ([1.5], "[1.5]"), (None, "None"), ([3], "[3]")],
    "log_figures": [("stabilty", "'stabilty'"), (["loss", "runs"], "'runs'"), (None, "None"), (5, "5"), ([5], "5")],
}  # fmt: skip


def test_every_argument_is_tried():
    assert list(WRONG) == [name for name in inspect.signature(NTKTracker.__init__).parameters if name != "self"]


@pytest.mark.parametrize(
    ("argument", "value", "said"), [(name, value, said) for name, cases in WRONG.items() for value, said in cases]
)
def test_what_needs_no_data_is_refused_when_the_tracker_is_made(argument, value, said):
    given = {"archive": "run.h5", "probe": 8, argument: value}
    with pytest.raises(KerneltrackError) as caught:
        NTKTracker(**given)
    message = str(caught.value)
    assert re.search(rf"\b{argument}\b", message), message
    assert said in message, message
    assert caught.value.remedy, "the message does not say what to do"
    assert message.endswith(caught.value.remedy)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"eigenpairs": "leading", "top_k": 0}, r'eigenpairs="leading" with top_k=0: expected at least one eigenpair'),
        ({"max_overhead": 0.1, "schedule": schedule.Seconds(5)}, r"max_overhead with Seconds\(5\).*counted beforehand"),
        (
            {"schedule": {"val": 3}, "probe": {"train": Probe(torch.ones(2, 3))}},
            r"schedule: expected one per probe: \['train'\]",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_when_the_tracker_is_made(given, match):
    with pytest.raises(TrackerError, match=match):
        NTKTracker("run.h5", **given)


def plain(**options):
    return Regressor(batchnorm=False, dropout=0.0, momentum=0.0, **options)


class Counts(pl.Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        Counts.steps += 1


def raises(model, x):
    raise ValueError("this forward takes something else")


def integers(outputs):
    return outputs.argmax(-1, keepdim=True)


def triples(batch):
    return batch


class Triples(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        x, y = data()[index]
        return x, y, index


ONES = torch.ones(4, 3)
NEEDS_DATA = {
    "folder": ({"archive": "a file/run.h5"}, ArchiveError, "a file"),
    "targets": ({"probe": Probe(ONES, torch.zeros(4, 2))}, ProbeError, r"targets of probe 'probe'.*shape \(4, 1\).*Reshape"),
    "classes": ({"probe": Probe(ONES, torch.arange(4))}, ProbeError, "integer targets of probe 'probe'.*Pass real-valued"),
    "inputs": ({"probe": Probe(torch.zeros(4, 7))}, ProbeError, "probe 'probe' cannot be put through the network.*shapes.*Give a"),
    "no targets": ({"probe": Probe(ONES), "loss": "half_mse"}, ProbeError, "no targets, which loss='half_mse' needs. Give"),
    "a sum": (
        {"probe": Probe(ONES, ONES[:, :1]), "loss": torch.nn.MSELoss(reduction="sum")}, TrackerError, "mean.*loss=None",
    ),
    "schedules": ({"schedule": {"other": 3}, "probe": 8}, TrackerError, r"schedule: expected one per probe: \['train'\]"),
    "params": ({"params": ["layers.9.weight"]}, KernelError, "layers.9.weight"),
    "nothing left": ({"params": lambda name: False}, KernelError, "widen params="),
    "forward": ({"forward": raises}, ProbeError, "forward=.*ValueError: this forward takes something else"),
    "output": ({"output": integers}, KernelError, "output= returned integers"),
    "memory": ({"memory_budget": 64}, KernelError, "memory_budget= cannot hold.*Raise the budget.*eigenpairs=\"leading\""),
    "split": ({"split": triples}, ProbeError, r"split: expected a callable.*got list of length 3. Return a pair"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "error", "match"), NEEDS_DATA.values(), ids=NEEDS_DATA)
def test_what_needs_the_data_is_refused_before_the_first_batch(tmp_path, monkeypatch, given, error, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    Counts.steps = 0
    tracker = NTKTracker(**{"archive": "run.h5", "log": False, "probe": 8, **given})
    dataset = Triples() if "split" in given else data(24)
    with pytest.raises(error, match=match):
        trainer(tracker, Counts()).fit(plain(), DataLoader(dataset, batch_size=24))
    assert Counts.steps == 0
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy"])
def test_sharding_that_was_not_measured_is_refused_before_the_first_batch(tmp_path, monkeypatch, strategy):
    """The strategies need hardware that is not here; the tracker goes by the name of the class or of its bases."""
    base = type(strategy, (pl.strategies.SingleDeviceStrategy,), {})
    mine = type("Mine", (base,), {})
    Counts.steps = 0
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, log=False)
    with pytest.raises(
        TrackerError, match=r"NTKTracker with Mine: expected one device, DDPStrategy, or Model.*kerneltrack track"
    ):
        trainer(tracker, Counts(), strategy=mine("cpu")).fit(plain(), DataLoader(data(), batch_size=24))
    assert Counts.steps == 0


def half(outputs, targets):
    return (outputs - targets).square().mean() / 2


def named_weight(name):
    return name.endswith("weight")


EVERYTHING = {
    "probe": {"train": Probe(*data().tensors), "val": Probe(*data(9).tensors)},
    "schedule": {"train": schedule.Every(4, window=2) | schedule.OnLearningRateChange(), "val": "epoch"},
    "output": integers, "top_k": 3, "observables": ["trace"], "loss": half, "keep_kernel": "all",
    "metadata": {"seed": 3}, "log": False, "forward": raises, "if_exists": "replace", "on_error": "warn",
    "split": triples, "probe_seed": 4, "keep_inputs": True, "method": "jacobian", "params": named_weight,
    "memory_budget": "1GiB", "eigenpairs": "leading", "keep_forks": True, "fork_at": (3,),
}  # fmt: skip


def test_a_tracker_with_every_argument_pickles():
    tracker = NTKTracker("run.h5", **EVERYTHING)
    copy = pickle.loads(pickle.dumps(tracker))
    assert copy.state_dict() == tracker.state_dict()
    assert copy.state_key == tracker.state_key
    assert copy._arguments.schedule == tracker._arguments.schedule
    assert copy._arguments.loss == tracker._arguments.loss
    assert copy._arguments.probe["val"].fingerprint == tracker._arguments.probe["val"].fingerprint
    assert copy._given == tracker._given == {"archive", *EVERYTHING}


def test_a_tracker_pickles_after_a_fit_without_what_it_measured(tmp_path):
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, log=False)
    trainer(tracker, max_steps=2).fit(plain(), DataLoader(data(), batch_size=24))
    copy = pickle.loads(pickle.dumps(tracker))
    assert copy.state_dict().keys() == tracker.state_dict().keys()
    assert copy.state_key == tracker.state_key
    assert not hasattr(copy, "log")


def test_the_state_is_what_torch_loads_without_running_code(tmp_path):
    """A checkpoint is read with weights_only=True: tensors and plain values."""
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, log=False, observables="all", loss="half_mse")
    saved = tmp_path / "run.ckpt"

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(saved)

    trainer(tracker, Saves(), max_steps=2).fit(plain(), DataLoader(data(), batch_size=24))
    state = torch.load(saved, weights_only=True)["callbacks"][tracker.state_key]
    assert state["step"] == 2 or state["step"] == 1
    assert state["memory"]["anchor"]["parameters"].keys() == {n for n, _ in plain().named_parameters()}


def test_trackers_of_one_trainer_have_their_own_state(tmp_path):
    first, second = (NTKTracker(tmp_path / f"{name}.h5", probe=8) for name in "ab")
    assert first.state_key != second.state_key


def test_an_unknown_observable_is_told_by_its_name():
    with pytest.raises(ObservableError, match="nonsense"):
        NTKTracker("run.h5", observables="nonsense")
