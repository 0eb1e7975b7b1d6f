"""Makes problems.py and oracles.py importable from the tests beside them: importlib mode adds no folder."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kerneltrack.ntk.machine import Machine

sys.path.insert(0, str(Path(__file__).parent))


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


@pytest.fixture
def machine(monkeypatch):
    """Makes every device a machine with other sizes: ``machine(small_bytes=0)``."""

    def with_sizes(**sizes):
        monkeypatch.setattr(Machine, "of", lambda device: replace(Machine(), **sizes))

    return with_sizes
