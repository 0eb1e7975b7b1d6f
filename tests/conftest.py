"""What every test shares: a seed of its own, and no state left behind by another."""

import gc
import os
import random

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # Matplotlib must not look for a display
# Problems here are tiny: a second thread gains nothing, and on a busy machine its waiting costs a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--without-audit",
        action="store_true",
        help="switch off the engine's own audit: what only it has seen is seen by no test (make audit-off)",
    )
    parser.addoption(
        "--device",
        default="cuda",
        help="where tests/gpu runs (make gpu-test); with cpu, those tests try themselves where there is no GPU",
    )


def pytest_collection_finish(session):
    """The libraries' objects live to the end: the collector need not look through a million of them again and again.

    Nor after every 700 objects that are new: a drawing makes a hundred thousand.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def without_waiting_for_the_disk():
    """A test's files need not survive its machine; what does depend on fsync is tested in a simulated power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test starts from the same generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in __import__("sys").modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def own_catalogue():
    """What a file registers is gone behind it: a study adds observables that no other test's state can compute."""
    from kerneltrack.observables import registry

    before = dict(registry._REGISTERED)
    yield
    registry._REGISTERED.clear()
    registry._REGISTERED.update(before)
