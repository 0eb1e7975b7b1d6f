"""Models and inputs on another device, with the tensors that ``Module.to`` does not know."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import kerneltrack as kt
from kerneltrack.errors import KernelError


def inputs_on(device: torch.device, inputs: Any) -> Any:
    """The same pytree with its tensors on ``device``."""
    return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, inputs)


def model_on(device: torch.device, model: nn.Module) -> nn.Module:
    """``model`` moved, and plain tensor attributes of its modules with it."""
    model = model.to(device)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.device != device:
                setattr(module, name, value.detach().to(device))
    return model


def kernel_by(method: str, model: nn.Module, x: Any, **options: Any) -> Tensor | None:
    """The kernel on the CPU, which the device gave; None where the structured method refuses this model."""
    try:
        kernel = kt.empirical_ntk(model, x, method=method, **options)
    except KernelError as refusal:
        if method != "structured" or "does not apply" not in str(refusal):
            raise
        return None
    assert kernel.device == next(model.parameters()).device
    return kernel.cpu()
