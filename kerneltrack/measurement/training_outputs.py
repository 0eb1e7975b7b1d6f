"""The outputs of the network as it is in training: dropout drawn, batch statistics used. Measured, then undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.ntk import Inputs, as_rows, default_forward
from kerneltrack.undisturbed import evaluating, preserved_buffers

#: ``training`` by the submodule's name.
Flags = Mapping[str, bool]


def flags_of(module: nn.Module) -> Flags:
    """The ``training`` flag of every submodule as it is now."""
    return {name: child.training for name, child in module.named_modules()}


def training_outputs(
    module: nn.Module, inputs: Any, flags: Flags, *, forward: Callable[[Any, Any], Any] | None = None, seed: int = 0
) -> Tensor:
    """f(x) (N, O) with the flags of training and the probe as one batch.

    Buffers and generators are as they were afterwards. What is random is drawn from a generator seeded with ``seed``, so
    that a replay of a checkpoint gives the same number.

    Raises:
        NotMeasured: the model cannot be run so.
    """
    if any(isinstance(m, nn.SyncBatchNorm) and flags.get(name) for name, m in module.named_modules()):
        raise NotMeasured("SyncBatchNorm in training mode needs every process")
    before = flags_of(module)
    try:
        with preserved_buffers(module), evaluating(list(module.modules())), torch.no_grad():
            _set(module, flags)
            _seed(seed, next(module.parameters()).device)
            samples = Inputs(inputs)
            outputs = as_rows((forward or default_forward)(module, samples.assemble()), len(samples))
            return outputs.clone()
    except Exception as error:  # a user's model in a mode that the kernel does not need
        raise NotMeasured(f"training mode: {type(error).__name__}: {error}") from error
    finally:
        _set(module, before)


def _seed(seed: int, device: torch.device) -> None:
    """Seeds the generators in use.

    For a CUDA device that is not, torch would note the call with its whole stack, which takes milliseconds in a trainer's hook,
    keep it for good, and seed that device when it comes.
    """
    if device.type == "cpu" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own is untyped
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _set(module: nn.Module, flags: Flags) -> None:
    for name, child in module.named_modules():
        child.training = flags.get(name, False)
