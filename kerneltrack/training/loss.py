"""The loss on the probe: its value, the residual m = N·∂L/∂f, and the Hessian blocks S of stability.

Every loss here is a mean over samples of one per-sample function ℓ(f_n, y_n); everything else is derived from ℓ by
differentiation, so that a loss has one definition; only the second derivatives of squares, constants, are written down.
For L = (1/N) Σ_n ℓ(f_n, y_n):

    m_n = ∂ℓ/∂f_n,        ∇²_f L = blockdiag(∂²ℓ/∂f_n²) / N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kerneltrack.errors import TrackerError

LossName = Literal["half_mse", "mse", "cross_entropy"]
MeanLoss = Callable[[Tensor, Tensor], Tensor]  # (outputs (N, O), targets) -> mean over the samples, a scalar


def half_mse(output: Tensor, target: Tensor) -> Tensor:
    """ℓ = ½ Σ_o (f_o − y_o)²: the least-squares loss of the spectrum-alignment literature; m = f − y."""
    return (output - target).square().sum() / 2


def mse(output: Tensor, target: Tensor) -> Tensor:
    """ℓ = (1/O) Σ_o (f_o − y_o)²: ``torch.nn.MSELoss``, which is 2/O times :func:`half_mse`."""
    return (output - target).square().mean()


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """ℓ = −Σ_o y_o log softmax(f)_o with one-hot (or soft) y: ``torch.nn.CrossEntropyLoss``."""
    return -(target * torch.log_softmax(output, dim=-1)).sum()


_PER_SAMPLE: dict[str, MeanLoss] = {"half_mse": half_mse, "mse": mse, "cross_entropy": cross_entropy}
NAMES = tuple(_PER_SAMPLE)
#: c of the losses whose Hessian blocks are c times the identity, whatever f and y, by the number of outputs.
_QUADRATIC: dict[str, Callable[[int], float]] = {"half_mse": lambda outputs: 1.0, "mse": lambda outputs: 2 / outputs}


@dataclass(frozen=True)
class _OneSample:
    """A mean over samples, of one sample; a class and not a lambda, so that a tracker pickles."""

    mean: MeanLoss

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.mean(output.unsqueeze(0), target.unsqueeze(0))


@dataclass(frozen=True)
class ProbeLoss:
    """A mean loss over the probe.

    Attributes:
        name: what the archive calls it.
        sample: ℓ(f_n (O,), y_n (O,)) → scalar.
        mean: the user's own mean over samples, where one was given.
    """

    name: str
    sample: MeanLoss
    mean: MeanLoss | None = None

    @classmethod
    def of(cls, loss: LossName | MeanLoss) -> ProbeLoss:
        """The loss that an argument means: a name, or a callable (outputs (N, O), targets (N, O)) → mean.

        Raises:
            TrackerError: for an unknown name.
        """
        if callable(loss):
            mean = loss
            name = getattr(loss, "__qualname__", type(loss).__qualname__)
            # a user's own function may be called "mse", and mean another one
            name = f"{name} (a callable)" if name in NAMES else name
            return cls(name, _OneSample(mean), mean)
        if loss not in NAMES:
            raise TrackerError(
                "loss",
                expected=f"None, one of {', '.join(NAMES)}, or a callable (outputs, targets) -> mean",
                got=repr(loss),
                remedy="Name the loss that is trained, or give it as a callable.",
            )
        return cls(loss, _PER_SAMPLE[loss])

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L = (1/N) Σ ℓ, a scalar; outputs and targets (N, O)."""
        return torch.func.vmap(self.sample)(outputs, targets).mean()

    def verify(self, outputs: Tensor, targets: Tensor) -> None:
        """Check once that the loss is one of these outputs, and a user's callable the mean over samples of itself on one sample.

        Raises:
            TrackerError: cross-entropy of one output; or a callable that is a sum, or couples samples: then neither m nor S is
                what this module says.
        """
        if self.mean is None:
            self._require_classes(outputs)
            return
        whole, of_samples = float(self.mean(outputs, targets)), float(self.value(outputs, targets))
        tolerance = 1e3 * torch.finfo(outputs.dtype).eps * max(abs(whole), abs(of_samples))
        if not abs(whole - of_samples) <= tolerance:
            raise TrackerError(
                f"loss {self.name}",
                expected=f"the mean of its values on single samples, {of_samples:.6g}",
                got=f"{whole:.6g} on the whole probe",
                remedy="Give a loss that is a mean over samples (reduction='mean'), or loss=None.",
            )

    def _require_classes(self, outputs: Tensor) -> None:
        """The softmax of one output is 1 whatever it is, and the loss 0."""
        if self.name == "cross_entropy" and outputs.shape[1] < 2:
            raise TrackerError(
                "loss='cross_entropy'",
                expected="an output for each class, two or more",
                got="one output, whose softmax is always 1",
                remedy="For one logit a sample give loss=torch.nn.functional.binary_cross_entropy_with_logits.",
            )

    def ignores_shift(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether a function added to all outputs changes nothing at these points, to rounding: m·1 = 0 and S·1 = 0."""
        residual, rounding = self.residual(outputs, targets), 1e3 * torch.finfo(outputs.dtype).eps
        if outputs.shape[1] < 2 or not residual.any() or self._sees(residual.sum(-1), residual, rounding):
            return False

        def along(direction: Tensor) -> Tensor:
            product: Tensor = torch.func.jvp(lambda f: self.residual_of(f, targets), (outputs,), (direction,))[1]
            return product

        # S·1 beside S along signs that alternate, which no such loss ignores
        signs = torch.ones_like(outputs)
        signs[:, ::2] = -1
        return not self._sees(along(torch.ones_like(outputs)), along(signs), rounding)

    @staticmethod
    def _sees(part: Tensor, whole: Tensor, rounding: float) -> bool:
        return bool(part.abs().max() > rounding * whole.abs().max())

    def residual_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """m (N, O), differentiable in the outputs."""
        gradient: Tensor = torch.func.vmap(torch.func.grad(self.sample))(outputs, targets)
        return gradient

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The residual m = N·∂L/∂f, shape (N, O)."""
        return self.residual_of(outputs, targets).detach()

    def hessian_blocks(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """∂²ℓ/∂f_n², shape (N, O, O); divided by N they are the blocks of S = ∇²_f L."""
        if self.name in _QUADRATIC:  # differentiated, they would be the same to the last bit, after some milliseconds
            width = outputs.shape[1]
            block = _QUADRATIC[self.name](width) * torch.eye(width, dtype=outputs.dtype, device=outputs.device)
            return block.expand(len(outputs), width, width)
        blocks: Tensor = torch.func.vmap(torch.func.hessian(self.sample))(outputs, targets)
        return blocks.detach()
