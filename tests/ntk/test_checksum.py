"""Sums of what tensors hold: equal for equal contents, and others for any one change.

Oracle: the bytes, which are changed one at a time and exchanged.
"""

import pytest
import torch
from torch import nn

from kerneltrack.ntk.network import State, checksum
from kerneltrack.ntk.network.checksum import checksums
from tests.ntk.launches import launches

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn),
]
#: One entry, an odd number of bytes, a row of the sum and one entry more, and several rows.
SIZES = [(), (1,), (7,), (3, 5), (4097,), (2, 3, 6001)]


def drawn(shape, dtype, seed=0):
    """Entries of any bits; a bool has two values."""
    generator, size = torch.Generator().manual_seed(seed), torch.Size(shape).numel()
    if dtype == torch.bool:
        return torch.randint(2, shape, generator=generator).bool()
    item = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(256, (size * item,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).view(shape)


def summed(*tensors):
    (only,) = checksums(tensors).values()
    return only.tolist()


LAYOUTS = {
    "plain": lambda t: t.clone(),
    "padded": lambda t: torch.stack([t, t], -1)[..., 1],
    "reversed axes": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t.flip(0).flip(0) if t.dim() else t.clone(),
    "in the middle": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
    "leaf": lambda t: nn.Parameter(t.clone(), requires_grad=t.is_floating_point() and t.element_size() > 1),
}


def flipped(tensor, place, bit):
    """The same with one bit of one byte changed."""
    raw = tensor.detach().clone().contiguous().view(-1).view(torch.uint8).clone()
    raw[place] ^= 1 << bit
    return raw.view(tensor.dtype).view(tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bit_of_any_byte_is_seen(dtype):
    """In tensors of every size among others, at the first byte, the last and some between: bits 0, 3 and 7."""
    tensors = [drawn(shape, dtype, seed) for seed, shape in enumerate(SIZES)]
    before = summed(*tensors)
    assert before == summed(*(t.clone() for t in tensors))
    for index, tensor in enumerate(tensors):
        count = tensor.numel() * tensor.element_size()
        for place in {0, 1 % count, count // 3, count // 2, count - 1}:
            for bit in (0,) if dtype == torch.bool else (0, 3, 7):
                others = [*tensors]
                others[index] = flipped(tensor, place, bit)
                assert summed(*others) != before, (tensor.shape, place, bit)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float8_e4m3fn], ids=str)
def test_where_entries_lie_does_not_matter(dtype, layout):
    tensors = [drawn(shape, dtype, seed) for seed, shape in enumerate(SIZES)]
    assert summed(*map(LAYOUTS[layout], tensors)) == summed(*tensors)


def test_lazy_conjugates_and_signs_are_their_values():
    z = drawn((3, 5), torch.complex64)
    assert summed(z.conj()) == summed(z.conj().resolve_conj()) != summed(z)
    assert summed(z.conj().imag) == summed(z.conj().imag.resolve_neg()) != summed(z.imag)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 7, 4096, 10_001])
def test_exchanged_contents_are_seen(dtype, count):
    """Of two tensors, of two entries, and of two halves."""
    a, b = drawn((count,), dtype), drawn((count,), dtype, 1)
    if dtype == torch.bool:
        a[0], b[0] = True, False
    assert summed(a, b) != summed(b, a)
    if count > 1:
        assert summed(a.roll(1)) != summed(a) if dtype != torch.float8_e4m3fn else True
        assert summed(a[:-1], a[-1:]) == summed(a), (
            "how they are cut is not in the sum: whoever compares knows the shapes"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("count", [2, 7, 4096, 10_001])
def test_signs_do_not_cancel(dtype, count):
    """They are the last bits of a word, of which two changes cancel in any sum that is not told of lower ones."""
    tensor = torch.rand(count, generator=torch.Generator().manual_seed(0)).add(1).to(dtype)
    before = summed(tensor)
    for i in range(min(count, 40)):
        for j in (i + 1, count // 2, count - 1):
            if i < j < count:
                other = tensor.clone()
                other[[i, j]] = -other[[i, j]]
                assert summed(other) != before
    assert summed(-tensor[: count // 2 * 2]) != summed(tensor[: count // 2 * 2])


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state")
def test_sparse_tensors_are_what_they_hold():
    dense = torch.eye(6).roll(1)
    for sparse in (dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(), dense.to_sparse_bsr((2, 2))):
        before = summed(sparse)
        assert before == summed(sparse.clone())
        assert before != summed(sparse * 2)
    elsewhere = torch.eye(6).roll(2).to_sparse()
    assert summed(dense.to_sparse()) != summed(elsewhere)


def test_what_holds_nothing():
    assert checksums([torch.empty(3, device="meta")]) == {}
    assert summed(torch.empty(0, 3)) == summed(torch.empty(0, dtype=torch.int64)) == [0]


def test_many_bytes_are_summed_a_part_at_a_time(monkeypatch):
    """Memory stays bounded: no operation makes more than four rows here. Every part shows a change, at its edges too."""
    monkeypatch.setattr(checksum, "TOGETHER", 4 * 8 * 4096)
    tensors = [drawn((size,), torch.float32, seed) for seed, size in enumerate((5, 80_003, 8, 32_768, 1))]
    words = sum(t.numel() for t in tensors) / 2
    before, largest = summed(*tensors), 0
    assert len(before) == -(-words // (4 * 4096))

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            given = {
                t.untyped_storage().data_ptr()
                for t in (*args, *(args[0] if isinstance(args[0], list) else ()))
                if isinstance(t, torch.Tensor)
            }
            if result.untyped_storage().data_ptr() not in given:
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Sizes():
        checksums(tensors)
    assert largest == 4 * 8 * 4096
    raw = torch.cat([t.view(torch.uint8) for t in tensors]).numel()
    starts = [0]
    for t in tensors:
        starts.append(starts[-1] + 4 * t.numel())
    edges = {e + d for e in (*starts[:-1], *range(0, raw, 4 * 8 * 4096)) for d in (-1, 0) if 0 <= e + d < raw}
    for place in edges:
        index = max(i for i, start in enumerate(starts[:-1]) if start <= place)
        others = [*tensors]
        others[index] = flipped(others[index], place - starts[index], 0)
        assert sum(a != b for a, b in zip(summed(*others), before, strict=True)) == 1


def lenet():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Linear(84, 10)),
    ).eval()


def test_a_network_is_summed_in_a_dozen_launches():
    """However many tensors it has; the comparison is two more for each device. Before it was seven and more for each tensor."""
    model, x = lenet(), torch.randn(4, 3, 32, 32)
    before = State(model, [x])
    assert launches(lambda: State(model, [x])).total() <= 9
    assert launches(lambda: State(model, [x]).differs(before)).total() <= 12
