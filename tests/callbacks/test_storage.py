"""The disk fails while a network trains. Oracle: the same training on a disk that does not."""

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl

from kerneltrack import open_archive
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ArchiveError
from tests.callbacks.lightning_runs import Regressor, loader, trainer


class FillsTheDisk(pl.Callback):
    """From one step to another no file can be put in its place."""

    def __init__(self, monkeypatch, start, stop):
        self.steps, self.replace = range(start, stop), os.replace
        self.step = -1
        monkeypatch.setattr(os, "replace", self.replaced)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.step = trainer.global_step

    def replaced(self, source, target):
        if self.step in self.steps and Path(target).suffix == ".h5":
            raise OSError(28, "No space left on device")
        self.replace(source, target)


def fit(path, on_error, *callbacks):
    pl.seed_everything(0, verbose=False)
    model = Regressor()
    tracker = NTKTracker(path, probe=8, schedule=1, on_error=on_error, log=False)
    trainer(tracker, *callbacks, max_steps=8).fit(model, loader())
    return [p.detach().clone() for p in model.parameters()]


def test_training_goes_on_and_the_next_row_is_stored_once_there_is_room(tmp_path, monkeypatch):
    expected = fit(tmp_path / "whole.h5", "warn")
    with pytest.warns(UserWarning, match=r"could not store step [23].*cannot be stored: got No space left"):
        found = fit(tmp_path / "run.h5", "warn", FillsTheDisk(monkeypatch, 2, 4))
    assert all(a.equal(b) for a, b in zip(expected, found, strict=True))
    with open_archive(tmp_path / "run.h5") as archive, open_archive(tmp_path / "whole.h5") as whole:
        assert archive.steps.tolist() == [0, 1, 4, 5, 6, 7, 8]
        assert archive[2].message.startswith("could not store steps 2, 3")
        values = [[row.probes["train"]["eigenvalues"].tolist() for row in each] for each in (archive, whole)]
        assert values[0] == [each for step, each in enumerate(values[1]) if step not in (2, 3)]


@pytest.mark.filterwarnings("ignore:the parts of")  # closing cannot join them either, and says so
def test_training_stops_with_a_clear_error_otherwise(tmp_path, monkeypatch):
    with pytest.raises(ArchiveError, match=r"cannot be stored: got No space left on device .in .*run.h5"):
        fit(tmp_path / "run.h5", "raise", FillsTheDisk(monkeypatch, 2, 4))
    with open_archive(tmp_path / "run.h5") as archive:
        assert archive.steps.tolist() == [0, 1]
