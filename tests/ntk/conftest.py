"""One seed and one thread for every kernel test."""

import pytest
import torch


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
