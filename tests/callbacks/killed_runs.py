"""Trainings that are killed within a group of states: run as a script, it forks one child for each place, and tells of them.

    python -m tests.callbacks.killed_runs FOLDER

Each child is killed by SIGKILL, which no one can catch. Printed: by place, the steps whose rows the writer had acknowledged.
"""

import json
import os
import signal
import struct
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl

from kerneltrack.archive import ArchiveWriter
from kerneltrack.schedule import Every
from tests.archive.kill import Child
from tests.callbacks.test_groups import fit

#: Hook and step at which the kill comes, of triples that begin at 0, 4, 8.
PLACES = {
    "after the first state": ("on_train_batch_end", 5),
    "in the second's update": ("on_before_optimizer_step", 5),
    "after the second state": ("on_train_batch_end", 6),
}


class Killed(pl.Callback):
    """A checkpoint at the end of every batch within the group, and the kill."""

    def __init__(self, folder, hook, step):
        self.folder, self.hook, self.step = folder, hook, step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in (5, 6):
            trainer.save_checkpoint(self.folder / "last.ckpt")
        self.die("on_train_batch_end", trainer)

    def on_before_optimizer_step(self, trainer, *_):
        self.die("on_before_optimizer_step", trainer)

    def die(self, hook, trainer):
        if (hook, trainer.global_step) == (self.hook, self.step):
            os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, place, pipe):
    """Trains until the kill; acknowledges each row that the writer has taken."""
    append = ArchiveWriter.append

    def acknowledged(self, snapshot):
        append(self, snapshot)
        os.write(pipe, struct.pack("<q", snapshot.step))

    ArchiveWriter.append = acknowledged
    warnings.simplefilter("ignore")
    os.dup2(2, 1)  # Lightning's own words are no part of the answer
    fit(folder / "run.h5", Every(4, window=3), Killed(folder, *PLACES[place]))


def main():
    os.fsync = lambda descriptor: None  # what is killed is a process, not its machine
    told = {}
    for number, place in enumerate(PLACES):
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir()
        child = Child(lambda pipe, folder=folder, place=place: killed(folder, place, pipe))
        assert child.wait() == -signal.SIGKILL
        told[place] = child.acknowledged()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
