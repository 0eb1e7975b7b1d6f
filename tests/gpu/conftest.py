"""Where these tests run: on a CUDA device, and nowhere else unless ``--device cpu`` asks for it.

On the CPU they show that they themselves are right; what only a GPU does is seen on one.
"""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS repeats no sum bit for bit


def pytest_collection_modifyitems(config, items):
    """Where all would be skipped, the first of each file is, and says so for the others: a thousand skips take ten seconds."""
    if torch.device(config.getoption("--device")).type != "cuda" or torch.cuda.is_available():
        return
    said, spare = set(), []
    for item in [item for item in items if item.path.parent == Path(__file__).parent]:
        if item.path in said:
            spare.append(item)
        said.add(item.path)
    left_out = set(spare)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=spare)


@pytest.fixture(scope="session")
def device(request):
    """The device under test; every test that uses it is skipped where there is none."""
    asked = torch.device(request.config.getoption("--device"))
    if asked.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device: run `make gpu-test` on a machine with one")
    return torch.device("cuda", torch.cuda.current_device()) if asked.type == "cuda" else asked
