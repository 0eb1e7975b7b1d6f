"""Slices of per-sample gradients: each entry of the weight is formed once, whatever the slices are.

Oracle: one einsum over the whole of it, in float64, and NumPy's triangle.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kerneltrack.ntk.capture import Record
from kerneltrack.ntk.capture.linear import EinsumAxes, LinearUse
from kerneltrack.ntk.contraction.gram import add_gram, mirror, upper_blocks
from kerneltrack.ntk.contraction.per_sample_gradients import token_features
from kerneltrack.ntk.machine import Machine
from tests.ntk.oracles import distance

N, GROUPS, CHANNELS, COLUMNS, ROWS = 3, 4, 5, 7, 6


def block(outputs, groups, uses, rows_last, trace):
    """A block of samples with one weight that is used ``uses`` times, and the gradients that autograd would give."""
    generator = torch.Generator().manual_seed(outputs * 100 + groups * 10 + uses)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [draw(N, groups, ROWS, COLUMNS) for _ in range(uses)]
    gradients = [[draw(N, groups, CHANNELS, ROWS) for _ in range(outputs)] for _ in range(uses)]
    if rows_last:  # the memory order of a linear layer's gradient
        gradients = [[g.transpose(2, 3).contiguous().transpose(2, 3) for g in use] for use in gradients]
    axes = EinsumAxes("gti", "gei", "gte")
    weight = torch.zeros(groups, CHANNELS, COLUMNS)
    recorded = [LinearUse(Record([a], torch.Size((N, groups, ROWS, CHANNELS))), weight, axes) for a in inputs]
    side = SimpleNamespace(
        kind="trace" if trace else "full",
        count=N,
        row_planes=lambda index: [gradients[index]],
        input_rows=lambda index, start, stop, room: recorded[index].input_rows(start, stop),
    )
    whole = sum(torch.einsum("onget,ngti->nogei", torch.stack(g), a) for g, a in zip(gradients, inputs, strict=True))
    return side, whole


@pytest.mark.parametrize("width", [1, 2, 9, 35, 64, 10_000])
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize(
    ("outputs", "groups", "uses", "rows_last"), list(itertools.product((1, 3), (1, GROUPS), (1, 2), (False, True)))
)
def test_slices_have_every_entry_once(outputs, groups, uses, rows_last, trace, width):
    """The Gram matrix of all slices is that of the whole; a lost or repeated slice, output or use changes it."""
    side, whole = block(outputs, groups, uses, rows_last, trace)
    rows = N if trace else N * outputs
    features = whole.reshape(rows, -1)
    buffer = torch.full((rows * width,), torch.nan, dtype=torch.float64)
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    entries = 0
    for part in token_features(side, SimpleNamespace(uses=tuple(range(uses))), 0, width, buffer, Machine()):
        assert part.shape[0] == rows
        assert part.shape[1] <= width
        entries += part.shape[1]
        gram += part @ part.T
    assert entries == features.shape[1]
    assert distance(gram, (features @ features.T).numpy()) < 1e-13  # sums of some hundred products


@pytest.mark.parametrize("size", [1, 2, 5, 79, 80, 81, 163, 640])
@pytest.mark.parametrize("square", [1, 7, 80])
def test_blocks_cover_the_upper_triangle_once(size, square):
    """Oracle: a count of every entry. Entries below the diagonal may be met, in the squares on it only."""
    met = np.zeros((size, size), dtype=int)
    for rows, columns in upper_blocks(0, size, square):
        met[rows, columns] += 1
    assert (met[np.triu_indices(size)] == 1).all()
    below = met[np.tril_indices(size, -1)]
    assert below.max(initial=0) <= 1
    assert below.sum() <= size * square / 2


@pytest.mark.parametrize("columns", [3, 5000])  # less and more than one product's depth
def test_gram_adds_to_what_is_there(columns):
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(r, columns, generator=generator, dtype=torch.float64) for r in (100, 90))
    theta = torch.ones(100, 100, dtype=torch.float64)
    add_gram(theta, left, left, symmetric=True, machine=Machine(), scale=0.5)
    upper = np.triu_indices(100)
    expected = 1 + 0.5 * left.numpy() @ left.numpy().T
    assert distance(theta.numpy()[upper], expected[upper]) < 1e-12
    rectangle = torch.ones(100, 90, dtype=torch.float64)
    add_gram(rectangle, left, right, symmetric=False, machine=Machine(), scale=0.5)
    assert distance(rectangle, 1 + 0.5 * left.numpy() @ right.numpy().T) < 1e-12


@pytest.mark.parametrize("size", [1, 512, 513, 1100])
def test_the_mirror_copies_every_block_below_the_diagonal(size):
    """Oracle: NumPy's triangles. It works in blocks of 512 rows, and no problem of the table has so many."""
    theta = torch.randn(2, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    upper = np.triu(theta.numpy().copy())
    mirror(theta, 512)
    assert np.array_equal(theta.numpy(), upper + np.triu(upper, 1).transpose(0, 2, 1))
