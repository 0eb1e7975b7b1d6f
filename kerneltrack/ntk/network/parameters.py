"""Which parameters a kernel speaks of, what they are called, and which layer each belongs to.

Names are those of ``named_parameters()`` without the prefixes that wrappers add; a tied parameter is listed
once, under its first name. This file reads a module and never changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from kerneltrack.errors import KernelError, UnsupportedModelError

Selection = Callable[[str], bool] | Iterable[str] | None
Metric = float | Mapping[str, float | Tensor] | None
Preconditioner = Mapping[str, float | Tensor]  # what a metric comes to: an entry for each parameter


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module inside DataParallel, DistributedDataParallel and ``torch.compile`` wrappers.

    Raises:
        UnsupportedModelError: a function, a class or anything else that is no module.
    """
    _check_module(model)
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _check_module(model: object) -> None:
    if isinstance(model, nn.Module):
        return
    owner = getattr(model, "__self__", getattr(model, "func", None))
    if isinstance(model, type):
        remedy = f"Give an instance: {model.__name__}(...)."
    elif isinstance(owner, nn.Module):
        remedy = f"Give the {type(owner).__name__} itself, and what is called of it as forward=lambda model, x: ...."
    else:
        remedy = "Give the module that holds the parameters, and the function as forward=lambda model, x: ...."
    raise UnsupportedModelError(
        "the model is no torch.nn.Module", expected="a module", got=type(model).__name__, remedy=remedy
    )


def reported_name(model: nn.Module, raw: str) -> str:
    """``raw`` without the components that wrappers put in the middle of it."""
    if "module" not in raw and "_orig_mod" not in raw:
        return raw
    kept, module = [], model
    for part in raw.split(".")[:-1]:
        wrapped = part == "_orig_mod" or (
            part == "module" and isinstance(module, (DataParallel, DistributedDataParallel))
        )
        if not wrapped:
            kept.append(part)
        module = getattr(module, part)
    return ".".join([*kept, raw.rpartition(".")[2]])


def trainable(model: nn.Module, params: Selection, own: Mapping[str, Tensor] | None = None) -> dict[str, str]:
    """Reported name → raw name of every selected parameter, each tensor once.

    Args:
        model: the module.
        params: None for all that train, a predicate on names, or names, any of those that a tied one has.
        own: ``dict(model.named_parameters())``, where that is known.

    Raises:
        KernelError: a name that is unknown or frozen.
        UnsupportedModelError: nothing to differentiate by, or a parameter that is not real or not initialised.
    """
    names: dict[str, str] = {}
    alias: dict[str, str] = {}
    first: dict[int, str] = {}
    frozen: set[str] = set()
    if own is None or params is not None:  # any name of a tied parameter selects it
        own = dict(model.named_parameters(remove_duplicate=False))
    for raw, parameter in own.items():
        name = reported_name(model, raw)
        if not parameter.requires_grad:
            frozen.add(name)
        elif id(parameter) in first:
            alias[name] = first[id(parameter)]
        else:
            _check_real(name, parameter)
            first[id(parameter)] = name
            names[name], alias[name] = raw, name
    if params is None:
        chosen = set(names)
    elif callable(params):
        chosen = {alias[name] for name in alias if params(name)}
    else:
        chosen = {_known(name, alias, frozen) for name in ([params] if isinstance(params, str) else params)}
    if not chosen:
        raise UnsupportedModelError(
            "there is no trainable parameter",
            expected="at least one parameter that requires grad",
            got=f"{len(names)} trainable, {len(frozen)} frozen, none selected"
            if params is not None
            else f"{len(frozen)} frozen",
            remedy="Unfreeze what the kernel should speak of, or widen params=.",
        )
    return {name: raw for name, raw in names.items() if name in chosen}


def selected(model: nn.Module, params: Selection) -> list[str]:
    """Names of every parameter that ``params`` selects, whether it trains or not; each tensor once, in the module's order.

    Raises:
        KernelError: a name that is unknown.
    """
    tied: dict[int, list[str]] = {}
    for raw, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append(reported_name(model, raw))
    if params is None:
        return [names[0] for names in tied.values()]
    alias = {name: names[0] for names in tied.values() for name in names}
    if callable(params):
        chosen = {alias[name] for name in alias if params(name)}
    else:
        chosen = {_known(name, alias, set()) for name in ([params] if isinstance(params, str) else params)}
    return [names[0] for names in tied.values() if names[0] in chosen]


def _known(name: str, alias: Mapping[str, str], frozen: set[str]) -> str:
    if name in alias:
        return alias[name]
    if name in frozen:
        raise KernelError(
            f"parameter {name!r} is frozen", remedy="Call requires_grad_() on it, or leave it out of params=."
        )
    raise KernelError(
        f"there is no parameter {name!r}",
        expected=f"some of {list(alias)[:12]}",
        remedy="Names are those of model.named_parameters().",
    )


def _check_real(name: str, parameter: Tensor) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise UnsupportedModelError(
            f"parameter {name!r} is not initialised", remedy="Run one batch through the lazy module first."
        )
    if parameter.is_inference():
        raise UnsupportedModelError(
            f"parameter {name!r} was made under torch.inference_mode, and autograd takes no part in it",
            remedy="Build or load the model outside torch.inference_mode(); torch.no_grad() is enough for most purposes.",
        )
    if not parameter.is_floating_point():
        raise UnsupportedModelError(
            f"parameter {name!r} is {parameter.dtype}",
            expected="real floating-point parameters",
            remedy="Hold nn.Parameter(torch.view_as_real(w)) and use torch.view_as_complex(self.w) in forward, or freeze it.",
        )


def layer_of(name: str) -> str:
    """The layer of a parameter: its name without the last part.

    For a parametrisation, the module that carries it.
    """
    owner = name.rpartition(".")[0]
    head, found, _ = f".{owner}.".partition(".parametrizations.")
    return head.strip(".") if found else owner


def preconditioner(metric: Metric, parameters: Mapping[str, Tensor]) -> Preconditioner | None:
    """P of J P Jᵀ, one positive number or tensor for each parameter.

    Raises:
        KernelError: an unknown or missing name, a wrong shape, or an entry that is not positive and finite.
    """
    if metric is None:
        return None
    given = metric if isinstance(metric, Mapping) else dict.fromkeys(parameters, metric)
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise KernelError(
            f"metric= names {unknown}",
            expected=f"some of {list(parameters)[:12]}",
            remedy="Use the names of the trainable parameters.",
        )
    missing = [name for name in parameters if name not in given]
    if missing:
        raise KernelError(
            f"metric= leaves out {missing[:12]}",
            remedy="Give every trainable parameter its entry, 1.0 where it is plain.",
        )
    return {name: _entry(name, given[name], p) for name, p in parameters.items()}


def _entry(name: str, value: float | Tensor, parameter: Tensor) -> float | Tensor:
    tensor = torch.as_tensor(value, dtype=parameter.dtype, device=parameter.device)
    if tensor.dim() and tensor.shape != parameter.shape:
        raise KernelError(
            f"metric= of {name!r} has the wrong shape",
            expected=f"a number or {tuple(parameter.shape)}",
            got=tuple(tensor.shape),
        )
    if not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
        raise KernelError(
            f"metric= of {name!r} is not positive",
            expected="positive finite entries",
            remedy="A learning rate of 0 is a frozen parameter: leave it out with params=.",
        )
    return tensor.detach() if tensor.dim() else float(tensor)


def summed_dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    """In which sums over parameters are taken: half precision is for the network."""
    return torch.promote_types(common_dtype(parameters), torch.float32)


def common_dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype that holds all of them."""
    dtypes = [p.dtype for p in parameters.values()]
    common = dtypes[0]
    for dtype in dtypes[1:]:
        common = torch.promote_types(common, dtype)
    return common
