"""Training with and without the tracker, bit for bit: weights, buffers, optimizer state, losses, generators.

Oracle: the same seed without the tracker. The negative controls let one thing through and must see a difference.
"""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from kerneltrack.callbacks import NTKTracker
from trainings import Regressor, loader, trainer

import kerneltrack.undisturbed as guards
from kerneltrack import schedule


def run(*callbacks, **options):
    """What a training leaves: everything that a later step could depend on."""
    pl.seed_everything(3, verbose=False)
    generator = torch.Generator().manual_seed(11)
    data = torch.utils.data.DataLoader(loader().dataset, batch_size=8, shuffle=True, generator=generator)
    model = Regressor()
    fitted = trainer(*callbacks, **options)
    fitted.fit(model, data)
    return {
        "weights and buffers": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizer": fitted.optimizers[0].state_dict(),
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


SETUPS = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "clipping": {"gradient_clip_val": 0.1},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "64-true": {"precision": "64-true"},
    "epochs": {"max_steps": -1, "max_epochs": 2},
}


@pytest.mark.parametrize("options", SETUPS.values(), ids=SETUPS)
def test_training_is_bit_identical(tmp_path, options):
    assert differences(run(tracker(tmp_path / "run.h5"), **options), run(**options)) == []


def test_training_is_bit_identical_when_a_measurement_raises_in_the_middle(tmp_path):
    def gives_up(model, x):
        torch.rand(3)
        model(x)
        if gives_up.armed:
            raise ValueError("in the middle")
        return model(x)

    class Arms(pl.Callback):
        def on_train_batch_end(self, *_):
            gives_up.armed = True

    gives_up.armed = False
    failing = tracker(tmp_path / "run.h5", forward=gives_up, on_error="warn")
    with pytest.warns(UserWarning, match="in the middle"):
        disturbed = run(failing, Arms())
    assert differences(disturbed, run()) == []


@contextmanager
def leaves_eval_flags(module):
    for child in module.modules():
        child.training = False
    yield


@contextmanager
def leaves_generators(module):
    yield


@pytest.mark.parametrize(("guard", "leak"), [("preserved_rng", leaves_generators), ("eval_flags", leaves_eval_flags)])
def test_a_guard_that_puts_nothing_back_is_seen(tmp_path, monkeypatch, guard, leak):
    """Negative control: the same guard without its second half changes the run."""
    monkeypatch.setattr(guards, "GUARDS", tuple(leak if g.__name__ == guard else g for g in guards.GUARDS))

    def nosy(model, x):
        torch.rand(1)
        return model(x)

    assert differences(run(tracker(tmp_path / "run.h5", forward=nosy)), run()) != []


def test_the_comparison_sees_one_bit():
    """Negative control of the comparison itself."""
    a, b = run(), run()
    weights = b["weights and buffers"]["layers.0.weight"]
    weights.view(torch.int32)[0, 0] ^= 1
    assert differences(a, b) == ["weights and buffers"]
