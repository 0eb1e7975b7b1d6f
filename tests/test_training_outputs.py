"""The outputs in training mode. Oracle: the module itself in that mode, its dropout drawn from torch's generator of that seed."""

import pytest
import torch
from torch import nn

from kerneltrack.measurement.training_outputs import flags_of, training_outputs


def test_what_is_random_is_drawn_from_the_seed_and_nothing_waits_for_a_device(monkeypatch):
    """torch.manual_seed notes the stack of its caller where no CUDA device is in use, and keeps it."""
    model, x = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5)), torch.ones(4, 3)
    flags, before = flags_of(model), torch.get_rng_state()
    torch.manual_seed(7)
    expected = model(x)
    torch.set_rng_state(before)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("torch.manual_seed"))
    found = training_outputs(model.eval(), x, flags, seed=7)
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), before)
