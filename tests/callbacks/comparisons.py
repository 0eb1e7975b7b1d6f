"""A training, everything it leaves behind, and how two of those are compared bit for bit."""

import random

import numpy as np
import pytorch_lightning as pl
import torch
from trainings import Regressor, loader, trainer

from kerneltrack import schedule
from kerneltrack.callbacks import NTKTracker


def run(*callbacks, model=Regressor, **options):
    """What a training leaves: everything that a later step could depend on."""
    pl.seed_everything(3, verbose=False)
    generator = torch.Generator().manual_seed(11)
    data = torch.utils.data.DataLoader(loader().dataset, batch_size=8, shuffle=True, generator=generator)
    model = model()
    fitted = trainer(*callbacks, **options)
    fitted.fit(model, data)
    return {
        "weights and buffers": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizers": [o.state_dict() for o in fitted.optimizers],
        "losses": model.losses,
        "grad": [p.grad for p in model.parameters()],
        "generators": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                       generator.get_state().tolist()),
        "flags": [m.training for m in model.modules()],
    }  # fmt: skip


def differences(a, b):
    return [key for key in a if not same(a[key], b[key])]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def tracker(path, **options):
    return NTKTracker(path, probe=8, schedule=schedule.Every(2, window=2), loss="half_mse", log=False, **options)
