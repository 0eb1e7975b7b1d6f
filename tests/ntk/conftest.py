"""Makes problems.py and oracles.py importable from the tests beside them: importlib mode adds no folder."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def seeded():
    """Whatever order the tests run in, each starts from the same random state."""
    torch.manual_seed(0)
