"""One seed and one thread for every kernel test."""

import importlib
from dataclasses import replace

import pytest
import torch

from kerneltrack.ntk import machine as sizes
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.matrix_free import factor_cache
from kerneltrack.ntk.methods import recording


@pytest.fixture(autouse=True)
def seeded():
    """Whatever order the tests run in, each starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small gain nothing from threads, and lose much where other jobs share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nothing_is_recorded(monkeypatch):
    """All these networks are small, and would be met as such alone; test_small.py and test_recording.py have them so."""
    monkeypatch.setattr(sizes, "SMALL", 0)
    monkeypatch.setattr(recording, "tape_for", lambda device: None)


@pytest.fixture
def machine(monkeypatch):
    """Makes every device a machine with other sizes: ``machine(small_bytes=0)``."""

    def with_sizes(**sizes):
        monkeypatch.setattr(Machine, "of", lambda device: replace(Machine(), **sizes))

    return with_sizes


@pytest.fixture(autouse=True)
def audit_as_asked(request, monkeypatch):
    """A wrong kernel that the engine itself refuses is no proof that a test would have seen it."""
    if request.config.getoption("--without-audit"):
        module = importlib.import_module("kerneltrack.ntk.methods.audit")  # its folder has a function of that name
        monkeypatch.setattr(module, "_compare", lambda *given: None)
        monkeypatch.setattr(factor_cache, "_audit", lambda found, expected: None)
        monkeypatch.setattr(module, "audit_products", lambda *given: True)
