"""What is known of the machine that computes: every size that depends on a cache, a core or a bus stands here.

The values of a plain :class:`Machine` are a CPU's, measured on two cores with torch 2.x unless a comment says otherwise.
:meth:`Machine.accelerator` has an accelerator's. :func:`use` makes any device such a machine for a while: the engine then
plans and computes as there, and the arrays stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import torch

#: As many as there are: nothing is cut.
_ALL = 2**62
#: Operations of a kernel that is small: what a core does in some 20 ms. Up to there a recording is faster, by a third on many.
SMALL = 2 * 10**9
#: What it does while it is asked for one operation that is written down, some 3 µs, and the memory that recordings may hold there.
_CALLED, _RECORDED = 300_000, 2**26


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Shares of a large matrix product's rate. Small or thin products run below it.

    Measured with T between 16 and 256.
    """

    gradient: float = 1.0
    form: float = 0.6  # of per-sample gradients
    token: float = 0.9
    hybrid: float = 0.5  # of T × T products
    lookup: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Sizes of one device. It is passed down to what needs one; nothing else knows a cache."""

    efficiency: Efficiency = field(default_factory=Efficiency)

    #: Operations that a core does while it moves one byte to or from memory: about 10 on CPUs (70 GFLOP/s against 7 GB/s
    #: for each core here) and about 14 on data-centre GPUs (67 TFLOP/s in float32 against 4.8 TB/s).
    operations_per_byte: int = 10

    #: What a core does while Python calls one function of torch: some 10 µs at 100 GFLOP/s.
    call_operations: int = 1_000_000

    #: Where the plain Jacobian takes more memory than this, and than the structured plan, it is no choice.
    plain_bytes: int = 2**28

    #: Rows of the smallest square on the diagonal of a symmetric product, computed whole. Smaller squares waste less
    #: below the diagonal, larger ones multiply faster. 40 to 160 measured at 640 and 2,560 rows, 80 best: 0.85 of the
    #: rate of a rectangular product, where panels of 128 rows gave 0.75.
    gram_square: int = 80

    #: Columns of per-sample gradients in one pass over theta. Measured at 32 to 640 rows: on two cores a tenth to a fifth less time
    #: than with 4,096 up to 160 rows, no more with others; on one core a thirtieth less to a thirtieth more.
    gram_depth: int = 2**14

    #: A small product leaves a core idle; its depth is split into products of so many columns, one batch. Measured with
    #: 64 to 640 rows: up to a fifth faster. Products with more rows keep all cores busy by themselves.
    split_columns: int = 1024
    split_rows: int = 640

    #: A tile of Θ of at most so many entries gets a product that was made beside it: made in the tile, each of its terms is
    #: rounded to what the tile holds. A language model's trace lost 1.5e-5 of its diagonal so, now 5e-7. It takes as long
    #: while the tile stays in a core's cache; 0 is never.
    added_entries: int = 2**17

    #: Rows of a square that is copied from above the diagonal to below it. With 128 it stays in a core's cache: 0.5 to 0.6 of the
    #: time of 512, and of the whole, at 320 to 1,536 rows.
    mirror_rows: int = 128

    #: Entries of one tile of Θ that stays in a core's second-level cache while layers are added to it.
    tile_entries: int = 2**18

    #: Per-sample gradients are formed in slices of at most so many columns and bytes.
    slice_columns: int = 2**14
    slice_bytes: int = 48 * 2**20

    #: Inputs of more bytes than this are read from memory for every slice: then slices are wide, so that they are read
    #: less often. Smaller inputs stay in a shared cache, and a narrow slice stays there beside them: of so many columns,
    #: more where there are few rows (a product of 64 channels runs at 1.3 times the rate of one of 32).
    cached_bytes: int = 8 * 2**20
    narrow_columns: int = 2**12
    narrow_bytes: int = 10 * 2**20

    #: Bytes that are copied at a time to bring the gradients of all outputs side by side.
    copy_bytes: int = 4 * 2**20

    #: A product needs about so many rows and columns to run near the rate of large ones.
    product_rows: int = 32
    product_columns: int = 128

    #: A pair of looked-up rows costs about so many times what the same products cost inside a dense matrix product.
    lookup_pair: int = 16

    #: Rows, N·T, of a backward pass from which a pass for each output is the fastest.
    backward_rows: int = 1024

    #: Where all samples together take no more than this, the trial is of all of them, and is not made again: most of the
    #: time of a small kernel is spent on seeing which function is called on what.
    small_bytes: int = 2**26

    #: Products with held factors take vectors so many at a time that what stands between pull and push stays below this.
    vector_bytes: int = 64 * 2**20

    #: Bytes of factors that an operator holds between products unless it is given a budget; a quarter of what is free is the
    #: other bound.
    factor_bytes: int = _ALL

    #: Bytes of per-sample gradients that an operator's diagonal forms at a time.
    diagonal_bytes: int = 256 * 2**20

    #: Rows of Θ that the audit reads at a time.
    audit_rows: int = 256

    #: Saved activations that one chunk of samples may hold in a product J v or Jᵀ u.
    activation_bytes: int = 512 * 2**20

    #: What the host takes to start one operation on the device, in operations that the device could do meanwhile; 0 where
    #: host and device are one.
    launch_operations: int = 0

    #: The triangle of a symmetric product in so many block rows, where that saves more than its launches cost; 0 where
    #: launches cost nothing, and squares of ``gram_square`` rows on the diagonal save more.
    block_rows: int = 0

    #: Rows from which the triangle may pay: with fewer, block rows are too thin to keep the device busy.
    triangle_rows: int = 0

    #: Memory that recordings of kernels may hold between calls (:mod:`kerneltrack.ntk.methods.recording`); 0 where nothing is
    #: recorded.
    recorded_bytes: int = 0

    #: A kernel of fewer operations takes most of its time in Python: it is made as on an accelerator, in few operations, which
    #: are recorded (:attr:`small`). 0 where no kernel is taken for small.
    small_operations: int = 0

    #: Samples that a call compares beside its kernel, as it has them and as one batch; None is a few.
    compared: int | None = None

    #: The device's memory in bytes; None where the device is asked what is free.
    memory: int | None = None

    @property
    def counts_launches(self) -> bool:
        """Whether starting an operation costs more than most operations take."""
        return self.launch_operations > 0

    @property
    def counts_calls(self) -> bool:
        """Whether kernels are small, and what a recording does twice it does once."""
        return self.compared is not None

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """The machine that a device is, or the one that :func:`use` has put in its place.

        On one core nothing is split to keep cores busy: the split alone costs a tenth of a kernel of 256 samples.
        """
        if (used := _IN_USE.get()) is not None:
            return used
        if device.type == "cpu":
            return _processor(torch.get_num_threads() > 1, SMALL)
        return _card(device.index) if device.type == "cuda" else cls.accelerator()

    @cached_property
    def small(self) -> Machine:
        """The machine of small kernels: an accelerator's way of few operations, which a CPU calls one after the other.

        All samples are compared beside such a kernel. That takes little, and its operations do not hear of a change in Python.
        """
        return replace(
            Machine.accelerator(),
            efficiency=self.efficiency,
            operations_per_byte=self.operations_per_byte,
            launch_operations=_CALLED,
            small_bytes=self.small_bytes,
            mirror_rows=self.mirror_rows,
            recorded_bytes=_RECORDED,
            compared=_ALL,
            memory=self.memory,
        )

    @classmethod
    def accelerator(cls, memory: float | None = None) -> Machine:
        """An accelerator: no tiles for a cache, the largest products that fit the budget, few launches.

        Measured on one NVIDIA H200 with torch 2.11, float32 without TF32, where the card was busy a tenth to a third of the
        time of a kernel that was cut for a CPU's cache.

        Args:
            memory: bytes of the device; None where it is asked what is free.
        """
        room = 2**36 if memory is None else int(memory)
        return cls(
            # 50.6 TFLOP/s of float32 products against copies of 4.3 TB/s.
            operations_per_byte=12,
            # Products of 4,096 columns ran in 64 × 64 tiles, one of the whole depth at 40 to 50 TFLOP/s.
            gram_depth=_ALL,
            split_rows=0,
            added_entries=0,
            # A triangle of 4 block rows takes 0.64 of the time of 2,560 rows squared; 8 are no faster.
            block_rows=4,
            triangle_rows=700,
            # Wall time less the time that the card was busy was 24 to 55 µs for each launched kernel: 30 µs of 50 TFLOP/s.
            launch_operations=3 * 10**9 // 2,
            # One copy beside the kernel of a gibibyte at most; every further square would be four more launches.
            mirror_rows=2**14,
            # Tiles, slices and copies are bounded by the budget alone.
            tile_entries=_ALL,
            slice_columns=_ALL,
            slice_bytes=_ALL,
            cached_bytes=0,
            copy_bytes=_ALL,
            # What is narrower is joined: 640 rows of 2¹⁶ columns are copied in the time of one launch.
            narrow_columns=2**18,
            # All outputs in one pass: 2 to 5 times as fast as one by one, equal on a ResNet.
            backward_rows=_ALL,
            small_bytes=room // 64,
            vector_bytes=room // 64,
            factor_bytes=room // 10,
            diagonal_bytes=room // 32,
            audit_rows=2**12,
            activation_bytes=room // 16,
            recorded_bytes=room // 16,
            memory=None if memory is None else room,
        )


@cache
def _processor(several: bool, small: int) -> Machine:
    """A CPU with several cores at work, or one."""
    sizes = Machine() if several else replace(Machine(), split_rows=0)
    return replace(sizes, small_operations=small)


@cache
def _card(index: int | None) -> Machine:
    """A CUDA device, of whose memory recordings may hold a sixteenth, and an operator's factors a tenth."""
    if not torch.cuda.is_available():  # it is only spoken of
        return Machine.accelerator()
    total = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index).total_memory
    return replace(Machine.accelerator(), recorded_bytes=total // 16, factor_bytes=total // 10)


_IN_USE: ContextVar[Machine | None] = ContextVar("machine", default=None)


@contextmanager
def use(machine: Machine) -> Iterator[None]:
    """Every device is ``machine``: the engine plans and computes as on it, and arrays stay where they are.

    What an accelerator would do can be tried, counted and tested without one::

        with use(Machine.accelerator(memory=80e9)):
            kernel = kerneltrack.empirical_ntk(model, x)

    Where the machine has a ``memory``, half of it is the budget of calls that give none. Only this thread, or this
    asynchronous task, is affected.
    """
    before = _IN_USE.set(machine)
    try:
        yield
    finally:
        _IN_USE.reset(before)
