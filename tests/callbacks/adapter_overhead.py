"""What the tracker takes of an update in each loop, for docs/setups.md: processor time inside its own methods, update by update."""

import functools
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.callbacks import NTKTracker
from kerneltrack.schedule import At
from tests.callbacks.lightning_runs import Regressor, trainer

UPDATES, MEASURED = 400, range(100, 112)
X = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :1].sin()
GIVEN = {"probe": 64, "loss": "mse", "schedule": At(tuple(MEASURED)), "log": False}


class Clock:
    """Seconds inside a tracker's methods, by the update that they belong to; a method that another one calls counts once."""

    def __init__(self):
        self.seconds, self.inside, self.update = defaultdict(float), False, 0

    def watch(self, tracker, names, ends):
        """Count the time in these methods; with the last of them, ``ends``, an update is over."""
        for name in names:
            setattr(tracker, name, self._timed(getattr(tracker, name), name == ends))
        return tracker

    def _timed(self, method, ends):
        @functools.wraps(method)
        def timed(*args, **kwargs):
            if self.inside:
                return method(*args, **kwargs)
            self.inside, began = True, time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[self.update] += time.process_time() - began
                self.inside = False
                self.update += ends

        return timed

    def medians(self):
        """Of updates whose states are not measured, and of those whose are, in seconds."""
        last = {0, 1, UPDATES - 1, UPDATES, MEASURED[0], MEASURED[-1] + 1}  # what begins, ends, or is told once
        idle = [s for update, s in self.seconds.items() if update not in {*last, *MEASURED}]
        busy = [s for update, s in self.seconds.items() if update in MEASURED and update not in last]
        return statistics.median(idle), statistics.median(busy)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=64)


def lightning(path, clock):
    class Net(Regressor):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def training_step(self, batch, batch_idx):
            return (self.layers(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    hooks = ["on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"]
    trainer(clock.watch(NTKTracker(path, **GIVEN), hooks, hooks[-1]), max_steps=UPDATES).fit(Net(), loader())


def plain(path, clock, fabric=None):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = loader()
    if fabric is not None:
        model, optimizer = fabric.setup(model, optimizer)
    tracker = kt.Tracker(path, model, optimizer, loader=batches, **GIVEN)
    methods = ["before", "_step_begins", "_step_ends", "after"]
    with clock.watch(tracker, methods, "after"):
        while tracker.step < UPDATES:
            for batch in batches:
                tracker.before(batch)
                loss = (model(batch[0]) - batch[1]).square().mean()
                optimizer.zero_grad()
                fabric.backward(loss) if fabric else loss.backward()
                optimizer.step()
                tracker.after(loss)


def with_fabric(path, clock):
    from lightning.fabric import Fabric

    plain(path, clock, Fabric(accelerator="cpu", devices=1))


def hugging_face(path, clock):
    from transformers import Trainer, TrainingArguments
    from transformers.modeling_outputs import SequenceClassifierOutput

    from kerneltrack.callbacks.transformers import NTKTrackerCallback

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def forward(self, x, labels=None):
            outputs = self.layers(x)
            loss = None if labels is None else (outputs - labels).square().mean()
            return SequenceClassifierOutput(loss=loss, logits=outputs)

    args = TrainingArguments(
        output_dir=str(path.parent), max_steps=UPDATES, per_device_train_batch_size=64, optim="sgd", use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no", max_grad_norm=0.0,
    )  # fmt: skip
    methods = ["on_step_begin", "_step_begins", "_step_ends", "on_step_end"]
    tracker = clock.watch(NTKTrackerCallback(path, **GIVEN), methods, "on_step_end")
    data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    Trainer(model=Net(), args=args, train_dataset=data, callbacks=[tracker]).train()


LOOPS = {
    "Lightning's Trainer": lightning,
    "a plain loop": plain,
    "Lightning Fabric": with_fabric,
    "Hugging Face's Trainer": hugging_face,
}


def medians():
    """Loop → seconds of an update that is not measured, and of one that is; the lower of two runs, on one thread."""
    found = defaultdict(list)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            for name, loop in LOOPS.items():
                clock = Clock()
                with tempfile.TemporaryDirectory() as folder:
                    loop(Path(folder) / "run.h5", clock)
                found[name].append(clock.medians())
    finally:
        torch.set_num_threads(threads)
    return {name: tuple(map(min, zip(*pairs, strict=True))) for name, pairs in found.items()}


if __name__ == "__main__":
    for name, (idle, busy) in medians().items():
        print(f"{name}: {1e6 * idle:.0f} µs, {1e3 * busy:.1f} ms")
