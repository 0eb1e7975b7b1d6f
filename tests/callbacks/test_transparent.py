"""Training with and without the tracker, bit for bit: weights, buffers, optimizer state, losses, generators.

Oracle: the same seed without the tracker. The negative controls let one thing through and must see a difference.
"""

from contextlib import contextmanager

import pytest
import pytorch_lightning as pl
import torch
from comparisons import differences, run, tracker

import kerneltrack.undisturbed as guards

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
    torch.rand(1)  # what a forward with noise in it would do; the kernel's own code puts its draws back
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
