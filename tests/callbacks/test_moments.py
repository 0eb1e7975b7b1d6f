"""The right moment: whether an update happened, and what is told before the first one and after the last.

Oracle of update_applied: the weights themselves, copied on both sides of every update.
"""

import math
import re

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from kerneltrack import Probe, open_archive, schedule
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import Regressor, data, loader, trainer


class Weights(pl.Callback):
    """Whether each update moved the weights."""

    def __init__(self):
        self.moved, self.before = [], None

    def on_train_batch_start(self, trainer, module, *_):
        self.before = [p.detach().clone() for p in module.parameters()]

    def on_train_batch_end(self, trainer, module, *_):
        self.moved.append(any(not torch.equal(a, b) for a, b in zip(self.before, module.parameters(), strict=True)))


class Skips(Regressor):
    """Two batches of every five are skipped by the training step itself."""

    def training_step(self, batch, batch_idx):
        return None if self.global_step % 5 in (1, 2) else super().training_step(batch, batch_idx)


def scaled():
    """A loss scale that overflows for a few updates, on the CPU."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**20))]}


@pytest.mark.parametrize(
    ("model", "options"),
    [(Regressor, dict), (Skips, dict), (Regressor, scaled)],
    ids=["every update", "training_step returns None", "loss scaler"],
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*", "ignore:.*returned `None`.*")
def test_whether_the_update_happened(tmp_path, model, options):
    weights = Weights()
    tracker = NTKTracker(tmp_path / "run.h5", probe=8, schedule=1, loss="half_mse", log=False)
    trainer(weights, tracker, max_steps=14, **options()).fit(model(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        rows = list(archive)[:-1]
    assert [row.update_applied for row in rows] == weights.moved
    assert len(set(weights.moved)) == (1 if model is Regressor and options is dict else 2)
    for row in rows:
        error = float(row.probes["train"].get("linearization_error", math.nan))
        assert math.isfinite(error) is row.update_applied
        assert ("the update was skipped" in row.message) is not row.update_applied


def test_what_a_snapshot_costs_is_said_before_the_first_update(tmp_path, capsys):
    """Oracle: the clock and the file. The line comes first, and its bytes on disk are within a quarter of the file's growth."""
    said_at = []

    class Listens(pl.Callback):
        def on_before_optimizer_step(self, *_):
            said_at.append(capsys.readouterr().err)

    x, y = data(24).tensors
    tracker = NTKTracker(tmp_path / "run.h5", probe=Probe(x, y), schedule=3, keep_kernel="all")
    trainer(Listens(), tracker, max_steps=13).fit(Regressor(), loader())
    line = next(text for text in said_at[0].splitlines() if text.startswith("kerneltrack: one snapshot"))
    assert not any("one snapshot" in text for text in said_at[1:])
    found = re.fullmatch(
        r"kerneltrack: one snapshot: ([\d.]+) s \(the first\), (.*) of memory at its peak, ([\d.]+) KiB on disk; Every\(3\): "
        r"about 5 in all, \d+ s",
        line,
    )
    assert found, line
    with open_archive(tmp_path / "run.h5") as archive:
        assert len(archive) == 6  # 0, 3, 6, 9, 12 and the last
        # the first row's seconds, before what its update added
        assert 0 <= float(found[1]) <= archive[0].snapshot_seconds + 0.01
        stored = sum(value.nbytes for value in archive[0].probes["probe"].values()) / 2**10
    assert 0.75 * stored < float(found[3]) < 1.25 * stored
    assert re.search(r"kerneltrack: 6 snapshots in .*run\.h5 \(.* s, [\d.]+ % of the run\)", capsys.readouterr().err)


@pytest.mark.parametrize(("cap", "said"), [(None, True), (0.05, False)])
def test_a_run_that_measuring_would_take_over_is_told_after_a_few_updates(tmp_path, capsys, cap, said):
    """The model is so small that measuring takes nearly all of the time. Nothing where a limit was given."""
    heard = []

    class Listens(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            heard.append((trainer.global_step, capsys.readouterr().err))

        on_train_end = on_train_batch_start

    tracker = NTKTracker(
        tmp_path / "run.h5", probe=16, schedule=2, loss="half_mse", output="full", max_overhead=cap, log=True
    )
    trainer(tracker, Listens(), max_steps=6).fit(Regressor(), loader())
    lines = [(step, line) for step, text in heard for line in text.splitlines() if "of this run" in line]
    assert [step for step, _ in lines] == [4] * said  # three updates after the first one
    for _, line in lines:
        assert re.search(
            r"^kerneltrack: measuring takes about \d\d %.* of this run; .*max_overhead=0\.05 keeps 5 % with fewer snapshots$",
            line,
        ), line


def test_a_silent_tracker_says_nothing(tmp_path, capsys):
    trainer(NTKTracker(tmp_path / "run.h5", probe=8, schedule=3, log=False), max_steps=2).fit(Regressor(), loader())
    assert "kerneltrack" not in capsys.readouterr().err


def test_epochs_are_thinned_to_keep_the_share(tmp_path):
    """The model is so small that measuring takes most of the time: of the twenty epochs only a nested few are left."""
    options = {"max_epochs": 20, "max_steps": -1}
    tracker = NTKTracker(tmp_path / "run.h5", probe=16, schedule="epoch", max_overhead=0.05, log=False)
    trainer(tracker, **options).fit(Regressor(), loader())
    with open_archive(tmp_path / "run.h5") as archive:
        steps = archive.steps.tolist()
        assert steps[0] == 0
        assert steps[-1] == 60
        assert len(steps) < 12
        assert all(step % 3 == 0 for step in steps)
        assert any("for max_overhead=0.05: now Epochs(" in row.message for row in archive)


def test_rate_changes_are_measured_whatever_the_share(tmp_path):
    tracker = NTKTracker(
        tmp_path / "run.h5",
        probe=16,
        schedule=schedule.Every(1) | schedule.OnLearningRateChange(after=(0, 1)),
        max_overhead=0.01,
        log=False,
    )
    model = Regressor(rates=lambda step: 0.5 if step >= 31 else 1.0)
    trainer(tracker, max_steps=60).fit(model, loader())
    with open_archive(tmp_path / "run.h5") as archive:
        steps = set(archive.steps.tolist())
    assert {0, 31, 32, 60} <= steps
    assert len(steps) < 30


def test_a_resumed_tracker_keeps_its_halvings(tmp_path):
    """Every row after the resume lies on the grid that the first half had come to. Fails where halvings are not stored."""
    thinned, saved = [], tmp_path / "run.ckpt"

    class Watches(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            (tracker,) = (callback for callback in trainer.callbacks if isinstance(callback, NTKTracker))
            thinned.append(tracker._recorder.pace.thinned)

    def half(steps, **options):
        tracker = NTKTracker(tmp_path / "run.h5", probe=16, schedule=1, max_overhead=0.02, log=False)
        fitted = trainer(tracker, Watches(), max_steps=steps)
        fitted.fit(Regressor(), loader(), **options)
        return fitted

    half(12).save_checkpoint(saved)
    reached = thinned[-1]
    assert reached > 0
    thinned.clear()
    half(24, ckpt_path=saved)
    assert thinned[0] >= reached
    with open_archive(tmp_path / "run.h5") as archive:
        assert all(step % 2**reached == 0 for step in archive.steps.tolist() if 12 < step < 24)
