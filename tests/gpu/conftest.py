"""Where these tests run: on a CUDA device, and nowhere else unless ``--device cpu`` asks for it.

On the CPU they show that they themselves are right; what only a GPU does is seen on one.
"""

import os

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS repeats no sum bit for bit


@pytest.fixture(scope="session")
def device(request):
    """The device under test; every test that uses it is skipped where there is none."""
    asked = torch.device(request.config.getoption("--device"))
    if asked.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device: run `make gpu-test` on a machine with one")
    return torch.device("cuda", torch.cuda.current_device()) if asked.type == "cuda" else asked
