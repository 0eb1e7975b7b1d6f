"""A training on the device is bit-identical with and without the tracker, in the set-ups of tests/callbacks.

Oracle: the same seed without the tracker: weights, buffers, optimizer state, gradients in flight, generators of the host and
of the device, flags and logged losses, at the end and around every batch.
"""

from dataclasses import replace

import pytest

from kerneltrack import open_archive
from tests.callbacks.comparisons import differences, tracker, train
from tests.callbacks.setups import SETUPS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*nested tensors.*",
    "ignore:.*nested_tensor.*",
    "ignore:.*does not have a deterministic.*",
    "ignore:.*lr_scheduler.step.*",  # of updates that a loss scale skips
)
NAMES = (
    "automatic optimization",
    "gradient accumulation",
    "gradient clipping by norm",
    "manual optimization, two optimizers",
    "manual optimization, gradients in flight",
    "bf16-mixed",
    "activation checkpointing",
    "frozen BatchNorm",
    "frozen parameters",
    "validation within the epoch",
    "convolutional network",
    "transformer, dict batches, last token",
    "leading eigenpairs",
)


def on(device, setup, **options):
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    return replace(
        setup, options={**setup.options, "accelerator": accelerator, "devices": 1, "deterministic": True, **options}
    )


def claim(setup, path):
    alone = train(setup)[1]
    watched = train(setup, tracker(path, **setup.tracker))[1]
    assert differences(watched, alone) == []
    with open_archive(path) as archive:
        assert len(archive) >= 3
        assert all(snapshot.status == "ok" for snapshot in archive)


@pytest.mark.parametrize("name", NAMES)
def test_transparent(device, tmp_path, name):
    claim(on(device, SETUPS[name]), tmp_path / "run.h5")


def test_transparent_with_a_loss_scale(device, tmp_path):
    """16-mixed, whose first updates are skipped on a GPU; on the CPU there is none, and the set-up of its own stands for it."""
    name = "16-mixed, skipped updates"
    setup = SETUPS["automatic optimization"] if device.type == "cuda" else SETUPS[name]
    options = {"precision": "16-mixed"} if device.type == "cuda" else {}
    claim(on(device, setup, **options), tmp_path / "run.h5")
