"""The sizes by which derivatives are compared beside a kernel: the largest magnitude in each parameter's part.

Oracle: NumPy. Both are exact: no rounding stands between an entry and the largest of them.
"""

import numpy as np
import pytest
import torch

from kerneltrack.ntk.machine import Machine, use
from kerneltrack.ntk.methods.comparison import _largest


@pytest.mark.parametrize("entries", [5, 2**16])
@pytest.mark.parametrize("machine", [Machine(), Machine.accelerator(memory=1e9)])
def test_sizes_are_the_largest_magnitudes(machine, entries):
    """Of entries of either sign; what is not a number makes a size of which nothing can be said."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(size, generator=generator) for size in ((3, entries), (entries,), (1,), (2, 4))]
    parts[0][1, 2], parts[1][3] = -7.0, 9.0
    parts[3][0, 1] = float("-inf")
    with use(machine):
        found = _largest(parts)
        parts[0][2, 1] = float("nan")
        assert torch.isnan(_largest(parts)).tolist() == [True, False, False, False]
    expected = [7.0, 9.0, np.abs(parts[2].numpy()).max(), np.inf]
    assert found.tolist() == expected
