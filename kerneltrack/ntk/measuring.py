"""The context in which a network is evaluated.

The module comes out as it went in, and every operation is differentiable.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kerneltrack.undisturbed import full_precision


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Autograd on, autocast and compilation off, attention by its differentiable formula.

    ``model`` restored on exit.
    """
    device = next(iter(model.parameters())).device
    with contextlib.ExitStack() as stack:
        stack.enter_context(_restored(model))
        stack.enter_context(plain_arithmetic())
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(_no_attention_fast_path())
        stack.enter_context(full_precision())
        if "torch._dynamo" in sys.modules:  # asking costs seconds of import where nothing was ever compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(warnings.catch_warnings())
        # vmap says that an operation has no batching rule of its own and loops: slower, and exact.
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        # torch counts FLOPs with global hooks, of which a compiled module warns; here it runs eagerly.
        warnings.filterwarnings("ignore", message="Using `torch.compile", category=UserWarning)
        # torch's own forward mode compiles two decompositions with a deprecated function when it is first
        # used.
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Outside inference mode and autocast, whatever the caller has switched on; usable as a decorator."""
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextlib.contextmanager
def _no_attention_fast_path() -> Iterator[None]:
    """The fused inference kernels of nn.MultiheadAttention have neither forward-mode nor vmap rules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Puts every module's attributes back.

    Old-style weight_norm and caches write plain tensors during forward.
    """
    kept = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers in kept:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for current, before in ((module._parameters, parameters), (module._buffers, buffers)):
                current.clear()
                current.update(before)  # type: ignore[arg-type]
