"""Pairs and triples of consecutive states, whose later ones are light.

Oracles: the same training measured whole, the same without a tracker, calls that are counted, and the angle between stored
kernels by the definition.
"""

import math
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from kerneltrack import Probe, open_archive
from kerneltrack.archive import check
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement import curvature, instrument
from kerneltrack.measurement.kernels import Kernels
from kerneltrack.measurement.references import References
from kerneltrack.ntk import Network, NetworkState
from kerneltrack.observables import catalogue, is_light
from kerneltrack.schedule import Every, Log
from kerneltrack.training import ProbeLoss, UpdateRule
from tests.callbacks.lightning_runs import Regressor, data, loader, trainer

#: Lightning's word on a checkpoint beside an archive that has moved: the tracker finds its state by the file's name.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used")

STEPS, SIZE = 9, 12
#: What every row has, whatever was measured.
TIMES = {"wall_time", "train_seconds", "snapshot_seconds"}
#: A checkpoint before each of a group's three states, the group's first one aside: it is none of the open group's.
PLACES = (5, 6, 7)
#: With eigenpairs and without, with an update, and of the state before.
NAMES = [
    "trace", "stability_ratio", "linearization_error", "kernel_angular_velocity", "kernel_distance_from_previous",
    "subspace_overlap_with_previous", "relative_kernel_change", "cka_with_initial", "network_error", "class_within",
]  # fmt: skip


class Saves(pl.Callback):
    """A checkpoint at each of the steps, and an end at one of them as abrupt as Python allows."""

    def __init__(self, folder, steps, stop=None):
        self.folder, self.steps, self.stop = folder, steps, stop

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")
        if trainer.global_step == self.stop:
            raise RuntimeError("the machine went away")


def tracker(path, schedule, **options):
    probe = Probe(*data(SIZE).tensors, name="train")
    given = {"probe": probe, "loss": "half_mse", "keep_kernel": "all", "log": False, "observables": NAMES, "top_k": 3}
    return NTKTracker(path, schedule=schedule, **{**given, **options})


def fit(path, schedule, *callbacks, ckpt_path=None, steps=STEPS, **options):
    """The weights that a training with the tracker ends in."""
    pl.seed_everything(3, verbose=False)
    module = Regressor(dropout=0.0)
    watching = [] if path is None else [tracker(path, schedule, **options)]
    trainer(*watching, *callbacks, max_steps=steps).fit(
        module, loader(batch_size=24, shuffle=False), ckpt_path=ckpt_path
    )
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def rows(path):
    with open_archive(path) as archive:
        return list(archive)


def plain(snapshot):
    """What a row says, times aside, as comparable values."""
    found = {name: repr(value) for name, value in vars(snapshot).items() if name not in TIMES | {"probes"}}
    return found | {name: np.asarray(value).tobytes() for name, value in snapshot.probes["train"].items()}


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Triples that are light, triples that are whole, and no tracker: rows of both, and the weights of all three."""
    folder = tmp_path_factory.mktemp("groups")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])
        weights = [
            fit(folder / "light.h5", Every(4, window=3), Saves(folder, PLACES)),
            fit(folder / "whole.h5", Every(4, window=3, light=False)),
            fit(None, None),
        ]
    return folder, weights


def test_the_training_is_the_same_bit_for_bit(fits):
    _, weights = fits
    assert all(torch.equal(found, weights[-1]) for found in weights)


def test_every_state_of_a_group_knows_its_place_and_its_lag(fits):
    folder, _ = fits
    for name in ("light", "whole"):
        told = [(row.step, row.window, row.lag) for row in rows(folder / f"{name}.h5")]
        assert told == [(0, 0, 0), (1, 1, 1), (2, 2, 2), (4, 0, 0), (5, 1, 1), (6, 2, 2), (8, 0, 0), (9, 1, 1)]
        assert list(check(folder / f"{name}.h5")) == []


def test_a_light_state_has_the_numbers_that_the_whole_one_has(fits):
    """Bit for bit, for every name that it has: kernel, outputs, residual and all that follows without eigenpairs."""
    folder, _ = fits
    for light, whole in zip(rows(folder / "light.h5"), rows(folder / "whole.h5"), strict=True):
        ours, theirs = light.probes["train"], whole.probes["train"]
        extent = ("whole", "kernel", "outputs")[light.window] if light.step < STEPS else "whole"
        expected = set(theirs)
        if extent != "whole":
            named = {n for n, entry in catalogue().items() if n in theirs and is_light(entry.needs, extent)}
            expected = named | {"outputs", "residual", *(["kernel"] if extent == "kernel" else [])}
            assert light.message.startswith("light: " + {"kernel": "kernel and outputs", "outputs": "outputs"}[extent])
        assert set(ours) == expected
        for name in expected:
            if "previous" in getattr(catalogue().get(name), "needs", ()):
                continue  # a light state is nobody's state before
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{name} at step {light.step}")


def test_the_angular_velocity_is_the_angle_of_a_pair(fits):
    """Oracle: arccos of the cosine of the two stored kernels, one update apart; float32 kernels, so to 1e-6."""
    folder, _ = fits
    found = {row.step: row.probes["train"] for row in rows(folder / "light.h5")}
    for step, values in found.items():
        if step - 1 in found and "kernel" in values and "kernel" in found[step - 1]:
            a, b = (found[s]["kernel"] / np.linalg.norm(found[s]["kernel"]) for s in (step - 1, step))
            assert values["kernel_angular_velocity"] == pytest.approx(
                2 * math.asin(np.linalg.norm(a - b) / 2), rel=1e-5
            )
        else:
            assert "kernel_angular_velocity" not in values


@pytest.fixture(scope="module")
def gone(fits):
    """An archive whose run went away behind its checkpoints, with each place of a group begun once more after them."""
    folder = fits[0] / "gone"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])
        with pytest.raises(RuntimeError, match="went away"):
            fit(folder / "run.h5", Every(4, window=3), Saves(folder, PLACES, stop=8))
    assert list(check(folder / "run.h5")) == []
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_is_resumed_within_a_group_goes_on_in_it(fits, gone, tmp_path, place):
    """From a checkpoint at any place: oracle is the run that went through, bit for bit, weights and rows."""
    folder, weights = fits
    path = Path(shutil.copy(gone / "run.h5", tmp_path))
    assert torch.equal(fit(path, Every(4, window=3), ckpt_path=gone / f"{place}.ckpt"), weights[-1])
    assert list(check(path)) == []
    assert [plain(row) for row in rows(path)] == [plain(row) for row in rows(folder / "light.h5")]


#: What costs something: where it is called, and by which name.
COSTS = {
    "kernel": (Kernels, "measured"),
    "kernel with J": (Kernels, "with_jacobian"),
    "another kernel": (Kernels, "own"),
    "across time": (Kernels, "cross_time"),
    "forward": (Network, "outputs"),
    "jvp": (Network, "jvp"),
    "eigensystem": (instrument, "solved"),
    "curvature": (curvature, "largest_eigenvalues"),
    "update": (instrument, "update_effects"),
}


@pytest.mark.parametrize(("kernel", "passes"), [(True, {"kernel": 1, "forward": 1}), (False, {"forward": 1})])
def test_a_light_state_costs_its_kernel_and_one_forward_pass(monkeypatch, kernel, passes):
    """Counted, with every observable asked for: one kernel, one forward pass, and of all that costs something nothing else.

    Negative control: the whole state of the same network makes use of each of the others; its kernel, of one output, leaves
    J behind, which says what the update did.
    """
    counts, within = Counter(), []

    def counting(name, real):
        def counted(*args, **kwargs):
            counts[name] += not within  # a kernel's own passes are the kernel's
            within.extend([name] * ("kernel" in name))
            try:
                return real(*args, **kwargs)
            finally:
                del within[len(within) - ("kernel" in name) :]

        return counted

    for name, (home, function) in COSTS.items():
        monkeypatch.setattr(home, function, counting(name, getattr(home, function)))
    torch.manual_seed(0)
    net = Regressor(dropout=0.0, batchnorm=False).eval()
    first, *others = net.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others, "lr": 0.2}])  # P is not one number
    rule = UpdateRule.of([optimizer], {id(p): n for n, p in net.named_parameters()})
    measuring = instrument.Instrument(
        probe=Probe(*data(SIZE).tensors), loss=ProbeLoss.of("half_mse"), observables=tuple(catalogue().values())
    )
    start = NetworkState.of(net)
    begin = measuring.measure(net, rule, step=0, references=References(start=start)).state
    known = References(start=start, initial=begin, previous=begin, lagged=begin, lag=1)
    measuring.complete(net, measuring.measure(net, rule, step=1, references=known), rule)
    assert {name for name, count in counts.items() if count} == set(COSTS) - {"kernel"}
    counts.clear()
    reading = measuring.glance(net, rule, step=1, references=known, with_kernel=kernel)
    assert measuring.complete(net, reading, rule) is reading
    assert +counts == passes


def test_the_start_line_says_what_pairs_cost(tmp_path, capsys):
    fit(tmp_path / "run.h5", Log(), log=True, steps=30, observables=["trace"], keep_kernel="none")
    line = capsys.readouterr().err
    assert "Log(2, pairs=3)" in line
    assert "2 of them light" in line
    assert "around each step" not in line
    assert [row.step for row in rows(tmp_path / "run.h5") if row.window and len(row.probes["train"]) > 1] == [4, 9, 24]


def test_the_start_line_says_what_steps_of_the_rate_cost(tmp_path, capsys):
    fit(tmp_path / "run.h5", "log", log=True, steps=3, observables=["trace"], keep_kernel="none")
    line = capsys.readouterr().err
    assert "Log(2, pairs=3) | OnLearningRateChange(after=(0, 1, 10, 100), pairs=3, by=1.25): about 3 in all" in line
    assert ", and 4 around each step of the learning rate\n" in line


def test_the_lag_stands_in_the_file(fits):
    """NaN where a state is in no group: what is NaN is left out of a row's digest, so that older files need not have it."""
    folder, _ = fits
    with h5py.File(folder / "light.h5") as file:
        np.testing.assert_array_equal(file["lag"][:], [np.nan, 1, 2, np.nan, 1, 2, np.nan, 1])
        np.testing.assert_array_equal(file["window"][:], [0, 1, 2, 0, 1, 2, 0, 1])
