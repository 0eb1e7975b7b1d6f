"""The whole network of a module whose parameters are sharded over ranks (FSDP2: parameters are DTensors).

A sharded module cannot be differentiated sample by sample: its parameters are gathered and freed around each forward.
So what is measured is its skeleton: the same modules in their original classes, with the full parameters in them and
without the hooks that shard. The module itself, its shards and its hooks are not touched.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from kerneltrack.errors import UnsupportedModelError

#: The mesh dimensions along which a module's own code is written for its part of a parameter: Lightning's name, torch's.
TENSOR_PARALLEL = ("tensor_parallel", "tp")


def is_sharded(module: nn.Module) -> bool:
    """Whether a parameter of ``module`` is a DTensor."""
    return any(hasattr(parameter, "full_tensor") for parameter in module.parameters())


def unsharded(module: nn.Module) -> nn.Module:
    """``module`` itself, or its skeleton with full parameters if it is sharded. Collective: every rank calls it.

    The skeleton holds the full parameters on every rank until it is dropped. Buffers, requires_grad and ties are kept.

    Raises:
        UnsupportedModelError: a parameter is split along more than the data-parallel axis: then the module's own
            code is written for its part (attention heads for instance), and would mean something else with the whole.
    """
    if not is_sharded(module):
        return module
    full: dict[int, nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        full[id(parameter)] = nn.Parameter(_gathered(name, parameter), requires_grad=parameter.requires_grad)
    return _skeleton(module, full, {})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or the whole of a sharded one. Collective for those."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _gathered(name: str, parameter: Any) -> torch.Tensor:
    if not hasattr(parameter, "full_tensor"):
        return parameter.detach()  # type: ignore[no-any-return]
    mesh = parameter.device_mesh
    dimensions = mesh.mesh_dim_names or ()
    if any(name in TENSOR_PARALLEL and mesh[name].size() > 1 for name in dimensions):
        raise UnsupportedModelError(
            f"parameter {name!r} is sharded for tensor parallelism",
            expected="data parallelism only (fully_shard)",
            got=f"a mesh {dict(zip(dimensions, mesh.shape, strict=True))}",
            remedy="Use ModelParallelStrategy(tensor_parallel_size=1), or measure saved checkpoints afterwards.",
        )
    return whole(parameter.detach())


def _skeleton(module: nn.Module, full: dict[int, nn.Parameter], made: dict[int, nn.Module]) -> nn.Module:
    """A shallow copy of the tree of modules; a module used in two places is one in the copy, too."""
    if id(module) in made:
        return made[id(module)]
    copy: nn.Module = object.__new__(_original_class(type(module)))
    made[id(module)] = copy
    copy.__dict__.update(module.__dict__)
    # Torch keeps these in plain dicts of each module; the copy's are its own.
    copy.__dict__["_parameters"] = {n: None if p is None else full[id(p)] for n, p in module._parameters.items()}
    copy.__dict__["_buffers"] = dict(module._buffers)
    copy.__dict__["_modules"] = {
        name: None if child is None else _skeleton(child, full, made) for name, child in module._modules.items()
    }
    for hooks in ("_forward_pre_hooks", "_forward_hooks"):
        own: Any = getattr(module, hooks)
        copy.__dict__[hooks] = OrderedDict((key, hook) for key, hook in own.items() if not _shards(hook))
    return copy


def _original_class(kind: type) -> type:
    """The user's class: ``fully_shard`` swaps in a subclass of FSDPModule and of it."""
    from torch.distributed.fsdp import FSDPModule

    return next(c for c in kind.__mro__[1:] if not issubclass(c, FSDPModule)) if issubclass(kind, FSDPModule) else kind


def _shards(hook: Any) -> bool:
    """Whether a hook is torch.distributed's own, which gathers and frees shards."""
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed")
