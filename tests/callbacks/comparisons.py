"""A training, everything it leaves behind and everything on its way, and how two of those are compared bit for bit."""

import copy
import hashlib
import random
from contextlib import nullcontext

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from kerneltrack import schedule
from kerneltrack.callbacks import NTKTracker
from tests.callbacks.lightning_runs import Regressor, trainer
from tests.callbacks.setups import Setup

STEPS = 8


class Rows(DummyLogger):
    """A logger that keeps what the training logs, and not what the tracker does."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        kept = {name: value for name, value in metrics.items() if not name.startswith("ntk/")}
        if kept:
            self.rows.append((step, kept))


class Watch(pl.Callback):
    """Digests of all that a measurement could disturb, around every batch: gradients in flight are among them.

    It comes after the tracker in the list of callbacks, so it looks once the tracker has measured.
    """

    def __init__(self, generator):
        self.generator, self.trail = generator, []

    def look(self, trainer, module):
        tensors = [*module.parameters(), *module.buffers(), *(p.grad for p in module.parameters())]
        self.trail.append(
            {
                "tensors": digest(tensors),
                "optimizers": digest(pytree.tree_leaves([o.state_dict()["state"] for o in trainer.optimizers])),
                "generators": hashlib.sha256(repr(generators(self.generator)).encode()).digest(),
                "flags": [m.training for m in module.modules()],
            }
        )

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.look(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.look(trainer, pl_module)


class Spy(pl.Callback):
    """Copies the network at the start of each batch, before anything else could touch it, and in eval mode."""

    def __init__(self):
        self.modules = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step not in self.modules:
            layers = getattr(pl_module.layers, "_orig_mod", pl_module.layers)
            self.modules[trainer.global_step] = copy.deepcopy(layers).eval()


class Resumable(DataLoader):
    """A loader that goes on in the middle of an epoch, which Lightning does not do for ordinary ones."""

    start = yielded = 0

    def __iter__(self):
        start, self.start = self.start, 0
        for index, batch in enumerate(super().__iter__()):
            if index >= start:
                self.yielded = index + 1
                yield batch

    def state_dict(self):
        return {"yielded": self.yielded}

    def load_state_dict(self, state):
        self.start = state["yielded"] % len(self)


class Saves(pl.Callback):
    """A checkpoint at the first batch end from one step on, in the middle of an epoch."""

    def __init__(self, step, path):
        self.step, self.path, self.saved = step, path, False

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step >= self.step and not self.saved:
            self.saved = True
            trainer.save_checkpoint(self.path)


def train(setup, *callbacks, checkpoint=None, shuffle=True, **options):
    """A training of a set-up: the module, what it leaves, and how it came there."""
    pl.seed_everything(3, verbose=False)
    generator = torch.Generator().manual_seed(11)
    loader = Resumable(setup.dataset(), batch_size=6, shuffle=shuffle, generator=generator)
    module, watch, rows = setup.model(**options), Watch(generator), Rows()
    given = {"max_steps": STEPS, **{k: v() if callable(v) else v for k, v in setup.options.items()}}
    logging = {"logger": rows, "log_every_n_steps": 1}
    if given.get("barebones") or given.get("fast_dev_run"):
        logging = {"logger": False if "fast_dev_run" in given else None}
    others = [make() for make in setup.callbacks]
    fitted = trainer(*callbacks, watch, *others, **{**logging, **given})
    with pytest.raises(setup.raises) if setup.raises else nullcontext():
        fitted.fit(module, loader, ckpt_path=checkpoint)
    return module, {
        "weights and buffers": {name: value.clone() for name, value in module.state_dict().items()},
        "optimizers": [o.state_dict() for o in fitted.optimizers],
        "losses": module.losses,
        "logged": rows.rows,
        "grad": [p.grad for p in module.parameters()],
        "generators": generators(generator),
        "flags": [m.training for m in module.modules()],
        "trail": watch.trail,
    }


def run(*callbacks, model=Regressor, **options):
    """What a training leaves: everything that a later step could depend on."""
    return train(Setup(model, options=options), *callbacks)[1]


def tracker(path, *, cls=NTKTracker, **options):
    defaults = {"probe": 8, "schedule": schedule.Every(2, window=2), "loss": "half_mse"}
    return cls(path, **{**defaults, **options})


def generators(generator):
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        generator.get_state().tolist(),
        [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else [],
    )


def digest(tensors):
    """Of the bytes of tensors, and of where there is none."""
    found = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            found.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(tensor).encode())
    return found.hexdigest()


def differences(a, b):
    return [key for key in a if not same(a[key], b[key])]


def unequal(expected, found):
    """What differs between two archives of the same run: steps, moments, rates, and every dataset bit for bit."""
    if expected.steps.tolist() != found.steps.tolist():
        return [f"steps {found.steps.tolist()}, not {expected.steps.tolist()}"]
    facts = ("epoch", "batch", "samples_seen", "window", "trigger", "learning_rates", "update_applied")
    wrong = []
    for a, b in zip(expected, found, strict=True):
        wrong += [f"{name} of step {a.step}" for name in facts if getattr(a, name) != getattr(b, name)]
        wrong += [f"datasets of step {a.step}"] * (a.probes.keys() != b.probes.keys())
        for probe, values in a.probes.items():
            others = b.probes[probe]
            wrong += [
                f"{name} of step {a.step}"
                for name, value in values.items()
                if name not in others or not np.array_equal(value, others[name], equal_nan=True)
            ]
    return wrong


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and digest([a]) == digest([b])  # the bits: a NaN is equal to itself
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
