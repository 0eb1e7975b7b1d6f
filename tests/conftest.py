"""What every test shares: a seed of its own, and no state left behind by another."""

import os
import random

import numpy as np
import pytest

# Matplotlib must not look for a display, and Lightning must not take the machine for a cluster.
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test starts from the same generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in __import__("sys").modules:
        import torch

        torch.manual_seed(0)
