"""Which fit goes on with a run, and which is a new one.

Oracles: what a tracker made for that fit alone gives, row by row and bit for bit; the run that was never interrupted.
"""

import shutil
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kerneltrack import Probe, open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveExistsError
from tests.callbacks.lightning_runs import Regressor, data, trainer

#: Lightning's word on a checkpoint that holds what nobody asks for, which is what some of these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

#: One of each memory: θ_0 and f_0, Θ_0, its eigenvectors, the Jacobian at θ_0, the state before and its eigenvectors.
REMEMBERING = [
    "parameter_distance", "displacement_energy", "anchored_linearization_error", "relative_kernel_change",
    "subspace_overlap_with_initial", "jacobian_change", "kernel_angular_velocity", "subspace_overlap_with_previous",
]  # fmt: skip
#: Differ between two runs of one training.
TIMES = {"wall_time", "train_seconds", "snapshot_seconds"}


def net(seed=0):
    torch.manual_seed(seed)
    return Regressor(batchnorm=False, dropout=0.0, momentum=0.0)  # a fit that goes on has a new optimizer


def loader():
    """One batch to an epoch, so that a checkpoint never lies within one."""
    return DataLoader(data(), batch_size=24)


def nothing(batch, batch_idx):
    """A validation step."""


def tracker(path, **options):
    """One that compares with θ_0 and with the state before, by everything that remembers them."""
    return NTKTracker(
        path, probe=Probe(*data().tensors, name="train"), schedule=2, observables=REMEMBERING, log=False, **options
    )


class Saves(pl.Callback):
    """A checkpoint at each of the steps; the tracker beside it is in it."""

    def __init__(self, folder, *steps):
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def rows(path, **options):
    """What an archive holds, times and identifiers aside."""
    with open_archive(path, **options) as archive:
        return [
            {name: value for name, value in vars(snapshot).items() if name not in TIMES | {"probes"}}
            | {name: np.asarray(value) for name, value in snapshot.probes["train"].items()}
            for snapshot in archive
        ]


def same(a, b):
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for ours, theirs in zip(a, b, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{name} at step {ours['step']}")
    return True


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The rows of six steps with a tracker made for them alone."""
    path = tmp_path_factory.mktemp("fresh") / "run.h5"
    with warnings.catch_warnings():  # set up before the filters of a test
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer(tracker(path), max_steps=6).fit(net(1), loader())
    return rows(path)


def test_a_second_fit_of_one_tracker_is_a_new_run(tmp_path):
    """A loop over seeds: the first run's archive is not taken over."""
    watched = tracker(tmp_path / "run.h5")
    trainer(watched, max_steps=6).fit(net(0), loader())
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(ArchiveExistsError, match="nothing was touched"):
        trainer(watched, max_steps=6).fit(net(1), loader())
    assert (tmp_path / "run.h5").read_bytes() == before


def validates(watched, module):
    module.validation_step = nothing
    trainer(watched).validate(module, loader(), verbose=False)


def loads_weights(watched, module):
    """What is loaded into the module is no continuation: the fit begins at step 0."""
    module.load_state_dict(net(1).state_dict())


@pytest.mark.parametrize(
    ("between", "first"),
    [
        (None, 6),
        (validates, 1),
        (loads_weights, 6),
        pytest.param(None, 1, marks=pytest.mark.nightly),
        pytest.param(validates, 6, marks=pytest.mark.nightly),
        pytest.param(loads_weights, 1, marks=pytest.mark.nightly),
    ],
)
def test_a_new_run_remembers_nothing_of_the_one_before(tmp_path, fresh, between, first):
    watched = tracker(tmp_path / "run.h5", if_exists="replace")
    trainer(watched, max_steps=first).fit(net(0), loader())
    module = net(1)
    if between:
        between(watched, module)
    trainer(watched, max_steps=6).fit(module, loader())
    assert same(rows(tmp_path / "run.h5", all_segments=True), fresh)


def test_a_new_run_after_one_that_was_resumed(tmp_path, fresh):
    trainer(tracker(tmp_path / "run.h5"), Saves(tmp_path, 3), max_steps=6).fit(net(), loader())
    watched = tracker(tmp_path / "run.h5", if_exists="replace")
    trainer(watched, max_steps=8).fit(net(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert [row["step"] for row in rows(tmp_path / "run.h5")] == [0, 2, 4, 6, 8]
    trainer(watched, max_steps=6).fit(net(1), loader())
    assert same(rows(tmp_path / "run.h5", all_segments=True), fresh)


def test_a_new_run_after_a_checkpoint_that_could_not_be_restored(tmp_path, fresh):
    """The tracker's state is loaded, then the optimizer's refuses; the fit that follows begins at step 0."""
    trainer(tracker(tmp_path / "run.h5"), Saves(tmp_path, 1), max_steps=6).fit(net(), loader())
    checkpoint = torch.load(tmp_path / "1.ckpt", weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0]["params"].pop()
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    watched = tracker(tmp_path / "run.h5", if_exists="replace")
    with pytest.raises(ValueError, match="parameter group"):
        trainer(watched, max_steps=6).fit(net(), loader(), ckpt_path=tmp_path / "bad.ckpt", weights_only=True)
    trainer(watched, max_steps=6).fit(net(1), loader())
    assert same(rows(tmp_path / "run.h5", all_segments=True), fresh)


def test_another_module_in_the_same_trainer_is_a_new_run(tmp_path):
    """The trainer's counters go on; the network is another one."""
    watched = tracker(tmp_path / "run.h5")
    one = trainer(watched, max_steps=6)
    one.fit(net(0), loader())
    one.fit_loop.epoch_loop.max_steps = 12
    with pytest.raises(ArchiveExistsError):
        one.fit(net(1), loader())


def test_a_checkpoint_without_this_trackers_state_is_a_new_run(tmp_path):
    """At the very step at which the tracker's own run ended."""
    trainer(tracker(tmp_path / "other.h5"), Saves(tmp_path, 6), max_steps=7).fit(net(5), loader())
    watched = tracker(tmp_path / "run.h5", if_exists="replace")
    trainer(watched, max_steps=6).fit(net(0), loader())
    trainer(watched, max_steps=9).fit(net(1), loader(), ckpt_path=tmp_path / "6.ckpt", weights_only=True)
    found = rows(tmp_path / "run.h5", all_segments=True)
    trainer(tracker(tmp_path / "fresh.h5"), max_steps=9).fit(
        net(1), loader(), ckpt_path=tmp_path / "6.ckpt", weights_only=True
    )
    assert same(found, rows(tmp_path / "fresh.h5"))
    assert [row["step"] for row in found] == [6, 8, 9]
    assert "parameter_distance" not in found[0]


@pytest.mark.parametrize("epochs", [False, True], ids=["steps", "epochs"])
def test_a_fit_that_goes_on_in_its_trainer_continues_the_run(tmp_path, epochs):
    watched, module = tracker(tmp_path / "run.h5"), net()
    limits = {"max_epochs": 8, "max_steps": -1} if epochs else {"max_steps": 8}
    one = trainer(watched, **limits)
    one.fit(module, loader())
    if epochs:
        one.fit_loop.max_epochs = 12
    else:
        one.fit_loop.epoch_loop.max_steps = 12
    module.validation_step = nothing
    one.validate(module, loader(), verbose=False)
    one.fit(module, loader())
    whole = tracker(tmp_path / "whole.h5")
    trainer(whole, max_steps=12).fit(net(), loader())
    found, expected = rows(tmp_path / "run.h5"), rows(tmp_path / "whole.h5")
    assert [row["step"] for row in found] == [row["step"] for row in expected] == [0, 2, 4, 6, 8, 10, 12]
    assert "kernel_angular_velocity" not in found[4], "measured a second time, it is not the state before itself"
    for name in (
        "parameter_distance",
        "eigenvalues",
        "kernel_angular_velocity",
        "jacobian_change",
        "anchored_linearization_error",
    ):
        for a, b in zip(found[1:], expected[1:], strict=True):
            assert np.array_equal(a.get(name), b.get(name)) or (name, a["step"]) == ("kernel_angular_velocity", 8), name


def test_a_fit_that_goes_on_after_an_exception_continues_the_run(tmp_path):
    class Breaks(pl.Callback):
        broken = False

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3 and not self.broken:
                self.broken = True
                raise RuntimeError("power cut")

    watched, module = tracker(tmp_path / "run.h5"), net()
    one = trainer(watched, Breaks(), max_steps=6)
    with pytest.raises(RuntimeError, match="power cut"):
        one.fit(module, loader())
    one.fit(module, loader())
    assert [row["step"] for row in rows(tmp_path / "run.h5")] == [0, 2, 4, 6]


def test_trackers_of_one_file_name_in_two_folders(tmp_path):
    """Oracle: each tracker alone. Both go on from one checkpoint."""
    paths = [tmp_path / folder / "run.h5" for folder in "ab"]
    trainer(*map(tracker, paths), Saves(tmp_path, 3), max_steps=6).fit(net(), loader())
    trainer(*map(tracker, paths), max_steps=8).fit(net(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    trainer(tracker(tmp_path / "alone.h5"), Saves(tmp_path, 3), max_steps=6).fit(net(), loader())
    trainer(tracker(tmp_path / "alone.h5"), max_steps=8).fit(
        net(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=True
    )
    for path in paths:
        assert same(rows(path), rows(tmp_path / "alone.h5"))


def moved(tmp_path):
    shutil.move(tmp_path / "old", tmp_path / "new")
    return tmp_path / "new" / "run.h5"


def by_another_name(tmp_path):
    return tmp_path / "new" / ".." / "old" / "run.h5"


@pytest.mark.parametrize("where", [moved, by_another_name])
def test_a_run_whose_folder_is_called_otherwise_is_resumed(tmp_path, where):
    (tmp_path / "new").mkdir() if where is by_another_name else None
    trainer(tracker(tmp_path / "old" / "run.h5"), Saves(tmp_path, 3), max_steps=6).fit(net(), loader())
    path = where(tmp_path)
    trainer(tracker(path), max_steps=8).fit(net(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert [row["step"] for row in rows(path)] == [0, 2, 4, 6, 8]


def test_a_tracker_that_joins_another_takes_nothing_from_it(tmp_path):
    """The checkpoint holds the state of a/run.h5, whose tracker is there; b/run.h5 is new."""
    paths = [tmp_path / folder / "run.h5" for folder in "ab"]
    trainer(tracker(paths[0]), Saves(tmp_path, 4), max_steps=6).fit(net(), loader())
    trainer(*map(tracker, paths), max_steps=8).fit(net(), loader(), ckpt_path=tmp_path / "4.ckpt", weights_only=True)
    assert [row["step"] for row in rows(paths[0])] == [0, 2, 4, 6, 8]
    assert [row["step"] for row in rows(paths[1])] == [4, 6, 8]
    assert not any("parameter_distance" in row for row in rows(paths[1]))
