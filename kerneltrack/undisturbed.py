"""Measuring without being noticed: what a measurement may touch is put back, whatever happens inside.

Every guard here answers a trap that was observed: a forward pass in train mode moves BatchNorm's statistics, one random
number drawn shifts the run's whole sequence, ``train()`` thaws a BatchNorm that the user froze, a torch.func transform
over a compiled module makes the rest of the training silently run eager, gradients are disabled or unavailable inside
validation hooks. ``tests/callbacks/test_guards.py`` removes each guard in turn and sees a difference.
"""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial, wraps
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluate ``module`` in eval mode, with gradients available, leaving no trace of it.

    Inside: every submodule's ``training`` flag is False, gradients are enabled, inference mode and autocast are off,
    compiled modules run eagerly, matrix products keep full float32 precision (no TF32), determinism is as the user set
    it. On leaving, also by an exception: flags per submodule, buffers (values and identities), random number generators
    of Python, NumPy, torch and every initialised CUDA device, and all the settings above are as they were.
    ``.grad`` is never touched because nothing here calls ``backward``.
    """
    with ExitStack() as stack:
        for guard in GUARDS:
            stack.enter_context(guard(module))
        yield


@contextmanager
def preserved_rng(module: nn.Module | None = None) -> Iterator[None]:
    """Put back the random number generators of Python, NumPy, torch and each CUDA device in use."""
    del module
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


#: Generators that an object may hold as an attribute of its own.
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@contextmanager
def preserved_generators(*generators: Any) -> Iterator[None]:
    """Put back generators that modules, datasets or transforms hold: any of :data:`GENERATORS`."""
    kept = [generator_state(generator) for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, kept, strict=True):
            set_generator_state(generator, state)


def generator_state(generator: Any) -> Any:
    """What :func:`preserved_generators` needs to put ``generator`` back."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Put ``generator`` where :func:`generator_state` was taken."""
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)


def held_generators(owner: Any, depth: int = 6) -> list[Any]:
    """The generators that ``owner`` holds: in its attributes, and in what lies in these (datasets, transforms, containers).

    Tensors, arrays and plain values hold none; a container of more than a thousand entries is taken for data.
    """
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [(owner, depth)]
    while waiting:
        value, left = waiting.pop()
        if id(value) in seen or isinstance(value, (Tensor, np.ndarray, str, bytes, int, float, type)):
            continue
        seen.add(id(value))
        if isinstance(value, GENERATORS):
            found[id(value)] = value
        elif left:
            inside: list[Any] = [*getattr(value, "__dict__", {}).values()]
            if isinstance(value, (Mapping, list, tuple)) and len(value) <= 1000:
                inside += value.values() if isinstance(value, Mapping) else value
            waiting += [(each, left - 1) for each in inside]
    return list(found.values())


@contextmanager
def eval_flags(module: nn.Module) -> Iterator[None]:
    """Set ``training`` to False on every submodule and put each one's own flag back.

    The flags are set directly: ``module.train()`` and ``module.eval()`` may be overridden (frozen BatchNorm, adapters
    that merge their weights), and calling them would run that code.
    """
    flags = [(child, child.training) for child in module.modules()]
    for child, _ in flags:
        child.training = False
    try:
        yield
    finally:
        for child, flag in flags:
            child.training = flag


@contextmanager
def preserved_buffers(module: nn.Module) -> Iterator[None]:
    """Put back every buffer: the same tensor object with the same values, as autograd saved it.

    Autograd counts the writes to what it has saved, and refuses to go backward after one. What is put back to the bit is what
    a graph of the user's has saved, so its count is put back with it: a measurement between forward and backward breaks none.
    """
    kept: list[tuple[nn.Module, str, Tensor | None, Tensor | None]] = []
    for child in module.modules():
        for name, buffer in child._buffers.items():
            kept.append((child, name, buffer, None if buffer is None else buffer.detach().clone()))
    counted = tuple(buffer for *_, buffer, _ in kept if buffer is not None and not buffer.is_inference())
    with _unsafe_preserve_version_counter(counted):
        try:
            yield
        finally:
            for child, name, buffer, values in kept:
                child._buffers[name] = buffer
                if buffer is not None and values is not None and not _same_bits(buffer, values):
                    with torch.no_grad():
                        buffer.copy_(values)


@contextmanager
def eager(module: nn.Module | None = None) -> Iterator[None]:
    """Run compiled code eagerly.

    Calling a torch.func transform over a compiled module marks its code as skipped for the rest of the process: training
    would go on eagerly without a word. Under this stance the compiled code stays.
    """
    del module
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def gradients(module: nn.Module | None = None) -> Iterator[None]:
    """Record gradients, also inside of ``no_grad`` and ``inference_mode``."""
    del module
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def no_autocast(module: nn.Module | None = None) -> Iterator[None]:
    """Compute in the parameters' own precision: the spectrum under mixed precision is that of its float32 parameters."""
    del module
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


@contextmanager
def full_precision(module: nn.Module | None = None) -> Iterator[None]:
    """float32 products in full float32: TF32 (the default of cuDNN) and bfloat16 shortcuts cost three digits and more.

    torch has two interfaces for this, and reading the old one raises where the new one says something that the old one
    cannot. So the new one decides; an old switch is turned only where it could be read, so that it still can be inside
    (``torch.backends.cudnn.flags`` in a forward reads it). cuDNN's operations, where no switch was set, come back as
    set to what they were by default: that is how torch's own ``flags`` leaves them.
    """
    del module
    old, new = _old_switches(), _precision_switches()
    own = _own_precisions(new)
    for switch, _, full in old:
        switch(full)
    try:
        _set_precisions(new, {**dict.fromkeys(own, "none"), "torch.backends": "ieee"})
        yield
    finally:
        for switch, before, _ in old:
            switch(before)
        _set_precisions(new, own)


def full_on_processors() -> bool:
    """Whether products of a CPU are full float32 as switches stand; then there it is :func:`full_precision` already."""
    own = [switch for name, switch in _precision_switches().items() if not name.startswith("cu")]
    reduced = any(switch.fp32_precision not in ("none", "ieee") for switch in own)
    return not reduced and _readable(torch.get_float32_matmul_precision) == "highest"


@cache
def _precision_switches() -> dict[str, Any]:
    """What has an ``fp32_precision``, by name, each before those that follow it where they say "none"."""
    cudnn, mkldnn = cast(Any, torch.backends.cudnn), cast(Any, torch.backends.mkldnn)
    return {
        "torch.backends": torch.backends,
        "cudnn": cudnn,
        # The public attribute reads oneDNN's own switch and sets that of all backends.
        "mkldnn": cast(Any, torch.backends)._FP32Precision("mkldnn", "all"),
        "cuda.matmul": torch.backends.cuda.matmul,
        "cudnn.conv": cudnn.conv,
        "cudnn.rnn": cudnn.rnn,
        "mkldnn.matmul": mkldnn.matmul,
        "mkldnn.conv": mkldnn.conv,
        "mkldnn.rnn": mkldnn.rnn,
    }


def _own_precisions(switches: Mapping[str, Any]) -> dict[str, str]:
    """What every switch itself is set to; afterwards those that others follow are at "none".

    A switch reads as what it follows, so its own value shows only while that is "none". Those of cuDNN's operations that
    were never set are left out: they read "tf32" then, although they follow, and no value brings that state back.
    """
    own = {}
    for name, switch in switches.items():
        own[name] = switch.fp32_precision
        if "." not in name.removeprefix("torch."):
            switch.fp32_precision = "none"
    cast(Any, torch.backends).fp32_precision = "ieee"
    followers = [name for name in ("cudnn.conv", "cudnn.rnn") if switches[name].fp32_precision != own[name] == "tf32"]
    return {name: value for name, value in own.items() if name not in followers}


def _set_precisions(switches: Mapping[str, Any], values: Mapping[str, str]) -> None:
    for name, switch in switches.items():
        if name in values:
            switch.fp32_precision = values[name]


def _old_switches() -> list[tuple[Callable[[Any], None], Any, Any]]:
    """Setter, value and value of full precision of each switch of the old interface that is reduced and can be read."""
    matmul = _readable(torch.get_float32_matmul_precision)
    found: list[tuple[Callable[[Any], None], Any, Any]] = []
    if matmul not in (None, "highest"):
        found.append((torch.set_float32_matmul_precision, matmul, "highest"))
    for backend in (torch.backends.cudnn, torch.backends.mkldnn):
        if _readable(partial(getattr, backend, "allow_tf32")):
            found.append((partial(setattr, backend, "allow_tf32"), True, False))
    return found


def _readable(read: Callable[[], Any]) -> Any:
    """What a switch of the old interface says; None where torch refuses to say, because the new one says more."""
    try:
        return read()
    except RuntimeError:
        return None


#: The guards of :func:`undisturbed`, outermost first.
GUARDS = (preserved_rng, eager, gradients, no_autocast, full_precision, preserved_buffers, eval_flags)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality that counts NaN as equal to itself, so that a NaN buffer is not rewritten each time."""
    if a.layout != torch.strided:  # torch.equal knows no sparse tensors
        a, b = a.to_dense(), b.to_dense()
    return bool(torch.equal(a, b) or (a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))))


@contextlib.contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Autograd on, autocast and compilation off, attention by its differentiable formula.

    A model's ``modules`` are restored on exit.
    """
    with (
        restored(modules),
        plain_arithmetic(),
        preserved_rng(),
        sdpa_kernel(SDPBackend.MATH),
        _no_attention_fast_path(),
        _recurrence_without_cudnn(modules),
        full_precision(),
        _never_compiled(),
        _without_warnings(),
    ):
        yield


def _never_compiled() -> contextlib.AbstractContextManager[Any]:
    """Asking costs seconds of import where nothing was ever compiled."""
    return eager() if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Those of torch that say what is meant to be so here."""
    with warnings.catch_warnings():
        # vmap says that an operation has no batching rule of its own and loops: slower, and exact.
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        # torch counts FLOPs with global hooks, of which a compiled module warns; here it runs eagerly.
        warnings.filterwarnings("ignore", message="Using `torch.compile", category=UserWarning)
        # torch tells where backward hooks of modules do not reach; whoever trains with them has read it there.
        warnings.filterwarnings("ignore", message="For backward hooks to be called", category=UserWarning)
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        # torch's own forward mode compiles two decompositions with a deprecated function when it is first used.
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Outside inference mode and autocast, whatever the caller has switched on; usable as a decorator."""
    if not (torch.is_inference_mode_enabled() or any(map(torch.is_autocast_enabled, ("cpu", "cuda")))):
        yield
        return
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
def _recurrence_without_cudnn(modules: Sequence[nn.Module]) -> Iterator[None]:
    """cuDNN off during the forward of recurrent modules, where it has no backward pass in eval mode; on for all else.

    torch's own formula is then differentiated. The bare switch is turned: ``torch.backends.cudnn.flags`` reads switches of
    precision that torch refuses to read once the new interface was used.
    """
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    forwards = [vars(module).get("forward") for module in recurrent]
    for module in recurrent:
        vars(module)["forward"] = _without_cudnn(module.forward)
    try:
        yield
    finally:
        for module, forward in zip(recurrent, forwards, strict=True):
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _without_cudnn(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def switched(*args: Any, **kwargs: Any) -> Any:
        before = torch.backends.cudnn.enabled
        torch.backends.cudnn.enabled = False
        try:
            return forward(*args, **kwargs)
        finally:
            torch.backends.cudnn.enabled = before

    return switched


@contextlib.contextmanager
def restored(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Puts every module's attributes back.

    Old-style weight_norm and caches write plain tensors during forward.
    """
    kept = [(m, dict(m.__dict__), dict(m._parameters), dict(m._buffers)) for m in modules]
    try:
        yield
    finally:
        for module, attributes, parameters, buffers in kept:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for current, before in ((module._parameters, parameters), (module._buffers, buffers)):
                current.clear()
                current.update(before)  # type: ignore[arg-type]
