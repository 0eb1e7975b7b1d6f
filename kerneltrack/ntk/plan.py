"""What a kernel costs before it runs: FLOPs and bytes as integer arithmetic, printed like a receipt; no torch here."""

from __future__ import annotations

from dataclasses import dataclass

from kerneltrack.formatting import format_bytes, format_flops


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """One line of the receipt: parameters whose contribution is computed together.

    Attributes:
        parameters: names that this line covers.
        layer: the layer that they belong to.
        rule: the structure of ∂y/∂w that is used ("linear", "convolution", …), or "jacobian" or "products"
            for none.
        order: order of contraction ("gradient", "token", "hybrid", …); "" where there is no choice.
        flops: floating-point operations (a multiply-add is two).
        bytes: memory traffic of the same work.
        reason: why there is no structure to use; "" where there is.
    """

    parameters: tuple[str, ...]
    layer: str
    rule: str
    order: str = ""
    flops: int = 0
    bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a kernel is computed and what it costs; ``print(plan)`` is the receipt.

    Attributes:
        method: "structured", "jacobian" or "products"; "structured" may contain uses by Jacobian.
        output: the reduction.
        gauge: "raw", or "softmax" for the outputs less what softmax does not see.
        shape: shape of the kernel.
        dtype: in which it is computed.
        uses: what covers each trainable parameter.
        frozen: parameters that the kernel does not speak of.
        forward_flops: forward and backward passes together, before any contraction.
        result_bytes: size of the kernel.
        working_bytes: the most that is held beside it.
        budget_bytes: what was allowed.
        notes: what a reader must know (why a batch is not vectorised, for instance).
    """

    method: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    uses: tuple[PlanLine, ...]
    frozen: tuple[str, ...] = ()
    forward_flops: int = 0
    result_bytes: int = 0
    working_bytes: int = 0
    budget_bytes: int = 0
    notes: tuple[str, ...] = ()
    gauge: str = "raw"

    @property
    def flops(self) -> int:
        """All floating-point operations."""
        return self.forward_flops + sum(use.flops for use in self.uses)

    @property
    def bytes(self) -> int:
        """Memory traffic of the contractions."""
        return sum(use.bytes for use in self.uses)

    @property
    def peak_bytes(self) -> int:
        """Memory that the measurement adds: the result and the work beside it."""
        return self.result_bytes + self.working_bytes

    def __str__(self) -> str:
        """The receipt."""
        shape = " × ".join(map(str, self.shape))
        names = [", ".join(use.parameters) for use in self.uses]
        width = min(48, max([9, *map(len, names)]))
        gauge = "" if self.gauge == "raw" else f", gauge={self.gauge!r}"
        lines = [
            f"kernel of output={self.output!r}{gauge}: {shape}, {self.dtype}, method {self.method}",
            f"{'parameter':{width}}  {'rule':14} {'order':10} {'FLOPs':>9} {'traffic':>10}",
        ]
        for name, use in zip(names, self.uses, strict=True):
            flops, traffic = format_flops(use.flops), format_bytes(use.bytes)
            lines.append(f"{name:{width}}  {use.rule:14} {use.order:10} {flops:>9} {traffic:>10} {use.reason}".rstrip())
        lines += [f"{name:{width}}  frozen" for name in self.frozen]
        lines.append(f"{'forward and backward':{width}}  {'':14} {'':10} {format_flops(self.forward_flops):>9}")
        lines.append(
            f"total {format_flops(self.flops)}; memory {format_bytes(self.result_bytes)} result + "
            f"{format_bytes(self.working_bytes)} work, budget {format_bytes(self.budget_bytes)}"
        )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
