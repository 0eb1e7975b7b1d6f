"""What is known of the machine that computes: every size that depends on a cache, a core or a bus stands here.

The values are a CPU's, measured on two cores with torch 2.x unless a comment says otherwise. An accelerator has the same
values for now, but for two that could not be right there; its own are to be measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch


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

    #: Columns of per-sample gradients in one pass over theta: what some hundred rows of them need of a core's cache.
    gram_depth: int = 4096

    #: A small product leaves a core idle; its depth is split into products of so many columns, one batch. Measured with
    #: 64 to 640 rows: up to a fifth faster. Products with more rows keep all cores busy by themselves.
    split_columns: int = 1024
    split_rows: int = 640

    #: Rows of a square that is copied from above the diagonal to below it.
    mirror_rows: int = 512

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

    #: Bytes of per-sample gradients that an operator's diagonal forms at a time.
    diagonal_bytes: int = 256 * 2**20

    #: Rows of Θ that the audit reads at a time.
    audit_rows: int = 256

    #: Saved activations that one chunk of samples may hold in a product J v or Jᵀ u.
    activation_bytes: int = 512 * 2**20

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """The machine that a device is.

        On an accelerator every product is a launch: squares of 512 rows are an estimate, as is what it could do in the time
        of a call, and nothing is split to keep cores busy. Nor is it on one core, where the split alone costs a tenth of a
        kernel of 256 samples.
        """
        if device.type == "cpu":
            return cls() if torch.get_num_threads() > 1 else replace(cls(), split_rows=0)
        return replace(cls(), gram_square=512, split_rows=0, call_operations=500_000_000, plain_bytes=2**32)
